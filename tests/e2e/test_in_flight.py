"""Requests while they wait and stream: clients that leave, that join each other, and that find the queue full."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import openai
import pytest

from scripts.running_gateway import RunningGateway
from tests.e2e.program import Stream, call, chat, chat_body, connect, in_flight, metric, needs, pool, text_of, until

# The test's own server takes two requests at a time here, and the pool's queue one more.
SLOTS = 2


@pytest.fixture(autouse=True)
def calm(gateway: RunningGateway) -> Iterator[None]:
    """Check that a test leaves nothing in flight."""
    yield
    until(lambda: in_flight(gateway.url, "echo") == 0 == pool(gateway.url, "echo")["queued"], "the pool is calm")


@pytest.fixture
def filled(gateway: RunningGateway) -> Iterator[list[Stream]]:
    """Hold every slot of the pool with a stream that never ends."""
    with ExitStack() as stack:
        streams = [stack.enter_context(Stream(gateway.url, "echo", f"stall {number}")) for number in range(SLOTS)]
        assert [next(stream.texts()) for stream in streams] == ["echo:"] * SLOTS
        yield streams


def test_client_that_leaves_a_stream_cancels_its_work(gateway: RunningGateway) -> None:
    """Closing the connection in the middle of a stream frees the slot, and nothing of it is remembered."""
    with Stream(gateway.url, "echo", "stall and leave") as stream:
        assert next(stream.texts()) == "echo:"
        assert in_flight(gateway.url, "echo") == 1

    until(lambda: in_flight(gateway.url, "echo") == 0, "the work is cancelled")
    with Stream(gateway.url, "echo", "stall and leave") as again:
        assert "fwd=miss" in again.cache_status


def test_client_that_leaves_a_worker_of_ours_cancels_its_work(gateway: RunningGateway) -> None:
    """The same down to an onnx worker: it stops making tokens, and the gateway counts none for the one who left."""
    counted = metric(gateway.url, "warmgate_tokens_total", model="atlas", direction="out")
    with Stream(gateway.url, "atlas", "Describe Germany.") as stream:
        next(stream.texts())

    until(lambda: in_flight(gateway.url, "atlas") == 0, "the work is cancelled")
    assert metric(gateway.url, "warmgate_tokens_total", model="atlas", direction="out") == counted
    assert "fwd=miss" in chat(gateway.url, "atlas", "Describe Germany.").headers["cache-status"]


def test_the_same_question_in_other_words_waits_for_the_answer_that_is_being_made(gateway: RunningGateway) -> None:
    """The model is asked once; the later request says that it was collapsed with one that means the same."""
    needs("minilm")
    words = "What is the slow railway between the capital of Canada and the west coast called by those who built it"
    # So that its vector is known: it shall not come after the whole of the first answer on a busy machine.
    known = call(
        gateway.url, "POST", "/v1/chat/completions", chat_body("echo", words), **{"cache-control": "only-if-cached"}
    )
    assert known.status == 504
    with Stream(gateway.url, "echo", f"{words}?") as first, ThreadPoolExecutor() as threads:
        texts = first.texts()
        begun = next(texts)
        second = threads.submit(chat, gateway.url, "echo", words)
        answer = begun + "".join(texts)

    assert text_of(second.result()) == answer == f"echo: {words}?"
    status = second.result().headers["cache-status"]
    assert status.startswith("warmgate; fwd=miss; collapsed; ttl=")
    assert status.endswith("; detail=semantic")


def test_client_that_leaves_before_its_answer_cancels_its_work(gateway: RunningGateway) -> None:
    """A client that wants the whole answer and does not wait for it is no different."""
    with closing(connect(gateway.url)) as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(chat_body("echo", "stall whole")))
        until(lambda: in_flight(gateway.url, "echo") == 1, "the work is under way")

    until(lambda: in_flight(gateway.url, "echo") == 0, "the work is cancelled")


def test_client_that_leaves_the_queue_frees_its_place(gateway: RunningGateway, filled: list[Stream]) -> None:
    """Who leaves while waiting for a slot makes room for the next, who is refused no longer."""
    with closing(connect(gateway.url)) as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(chat_body("echo", "waits")))
        until(lambda: pool(gateway.url, "echo")["queued"] == 1, "one waits")
        assert chat(gateway.url, "echo", "one too many").status == 429

    until(lambda: pool(gateway.url, "echo")["queued"] == 0, "nobody waits")
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(chat, gateway.url, "echo", "served in the end")
        until(lambda: pool(gateway.url, "echo")["queued"] == 1, "the next one waits")
        filled[0].leave()
        assert text_of(waiting.result()) == "echo: served in the end"


def test_full_queue_is_the_clients_rate_limit_error(
    gateway: RunningGateway, client: openai.OpenAI, filled: list[Stream]
) -> None:
    """One request more than slots and queue hold is a 429 that says when to come back."""
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(chat, gateway.url, "echo", "in the queue")
        until(lambda: pool(gateway.url, "echo")["queued"] == 1, "one waits")

        with pytest.raises(openai.RateLimitError, match="as many as its queue holds") as caught:
            client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "one too many"}])

        assert int(caught.value.response.headers["Retry-After"]) >= 1
        assert caught.value.response.headers["x-should-retry"] == "true"
        filled[0].leave()
        assert text_of(waiting.result()) == "echo: in the queue"


def test_hit_needs_no_place_in_the_queue(gateway: RunningGateway) -> None:
    """What is cached is served while the pool is full."""
    assert text_of(chat(gateway.url, "echo", "known")) == "echo: known"
    with ExitStack() as stack:
        for number in range(SLOTS):
            next(stack.enter_context(Stream(gateway.url, "echo", f"stall {number}")).texts())

        assert text_of(chat(gateway.url, "echo", "known")) == "echo: known"


def test_follower_joins_a_live_stream(gateway: RunningGateway) -> None:
    """The same question asked while its answer streams is answered from that stream, from its beginning."""
    text = "slow " * 30
    with Stream(gateway.url, "echo", text) as leader:
        first = next(leader.texts())
        with Stream(gateway.url, "echo", text) as follower:
            assert in_flight(gateway.url, "echo") == 1
            assert ("collapsed" in leader.cache_status, "collapsed" in follower.cache_status) == (False, True)
            assert "".join(follower.texts()) == first + "".join(leader.texts()) == f"echo: {text}".rstrip()
    assert "hit" in chat(gateway.url, "echo", text).headers["cache-status"]


def test_follower_stays_when_the_leader_leaves(gateway: RunningGateway) -> None:
    """The work goes on for whoever still waits."""
    text = "slow and steady " + "slow " * 20
    with Stream(gateway.url, "echo", text) as leader:
        next(leader.texts())
        with Stream(gateway.url, "echo", text) as follower:
            leader.leave()

            assert "".join(follower.texts()) == f"echo: {text}".rstrip()


def test_whole_and_stream_share_their_work(gateway: RunningGateway) -> None:
    """A client that wants the whole answer joins a stream of the same question."""
    text = "slow but whole " + "slow " * 20
    with Stream(gateway.url, "echo", text) as leader:
        first = next(leader.texts())
        whole = chat(gateway.url, "echo", text)

        assert "collapsed" in whole.headers["cache-status"]
        assert text_of(whole) == f"echo: {text}".rstrip() == first + "".join(leader.texts())


def test_only_if_cached_never_asks_a_model(gateway: RunningGateway) -> None:
    """A client that wants the cache or nothing gets a 504 where there is nothing."""
    body = chat_body("echo", "never asked")
    answered = call(gateway.url, "POST", "/v1/chat/completions", body, **{"Cache-Control": "only-if-cached"})

    assert answered.status == 504
    assert answered.error["code"] == "not_cached"
