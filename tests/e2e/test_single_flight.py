"""One upstream call for equal questions that come at once: in any form, over either wire, whoever leaves."""

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest

from scripts.benchmarks.hanging import Upstream
from scripts.running_gateway import RunningGateway
from tests.e2e.program import (
    SERVER,
    Answered,
    Stream,
    call,
    chat,
    chat_body,
    connect,
    in_flight,
    metric,
    serving,
    text_of,
    until,
)

LIMIT = 400


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """Serve what answers when it is told to."""
    with Upstream() as running:
        yield running


@pytest.fixture(scope="module")
def house(upstream: Upstream) -> Iterator[RunningGateway]:
    """Serve the test's own server, and the upstream; both speak OpenAI's wire."""
    echo = f'  echo: {{task: chat, command: {{run: "{SERVER}", concurrency: 4}}, pool: {{min: 1}}}}'
    with serving(echo, f"  far: {{task: chat, http: {{url: {upstream.url}}}}}") as running:
        yield running


def message(url: str, model: str, text: str, *, stream: bool) -> Answered:
    """Ask over Anthropic's wire."""
    body = {"model": model, "max_tokens": LIMIT, "messages": [{"role": "user", "content": text}], "stream": stream}
    return call(url, "POST", "/v1/messages", body)


def text_of_events(answered: Answered) -> str:
    """Return the text of Anthropic's event stream."""
    events = [json.loads(line[6:]) for line in answered.body.splitlines() if line.startswith(b"data: ")]
    assert events[-1]["type"] == "message_stop", answered.body
    return "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")


def text_of_message(answered: Answered) -> str:
    """Return the text of Anthropic's whole message."""
    text: str = answered.json()["content"][0]["text"]
    return text


def followers(url: str, model: str, text: str, threads: ThreadPoolExecutor) -> dict[str, "Future[Answered]"]:
    """Ask the same in every form that the leader did not."""
    streamed = chat_body(model, text, max_tokens=LIMIT, stream=True, stream_options={"include_usage": True})
    return {
        "whole": threads.submit(chat, url, model, text, max_tokens=LIMIT),
        "streamed with usage": threads.submit(call, url, "POST", "/v1/chat/completions", streamed),
        "message": threads.submit(message, url, model, text, stream=False),
        "message, streamed": threads.submit(message, url, model, text, stream=True),
    }


def joined(url: str, model: str, count: int) -> None:
    """Wait until so many requests have a part in the work, and look that it is one job."""
    until(lambda: metric(url, "warmgate_flight_seats") == count, f"{count} have joined")
    assert in_flight(url, model) == 1


def read_all(told: dict[str, "Future[Answered]"]) -> dict[str, str]:
    """Return what each follower was told; each of them had joined."""
    answers = {name: each.result() for name, each in told.items()}
    assert ["collapsed" in answered.headers["cache-status"] for answered in answers.values()] == [True] * len(answers)
    return {
        "whole": text_of(answers["whole"]),
        "streamed with usage": _chunks_text(answers["streamed with usage"]),
        "message": text_of_message(answers["message"]),
        "message, streamed": text_of_events(answers["message, streamed"]),
    }


def _chunks_text(answered: Answered) -> str:
    lines = [line[6:] for line in answered.body.splitlines() if line.startswith(b"data: ")]
    assert lines[-1] == b"[DONE]"
    chunks: list[dict[str, Any]] = [json.loads(line) for line in lines[:-1]]
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def test_a_leader_that_leaves_its_stream_takes_nothing_along(house: RunningGateway) -> None:
    """Whoever joined is told the whole answer, from its beginning: whole or streamed, over this wire or the other."""
    text = "slow " * 150
    with Stream(house.url, "echo", text, max_tokens=LIMIT) as leader, ThreadPoolExecutor(4) as threads:
        next(leader.texts())
        told = followers(house.url, "echo", text, threads)
        joined(house.url, "echo", 5)
        leader.leave()
        joined(house.url, "echo", 4)

    assert read_all(told) == dict.fromkeys(told, f"echo: {text}".rstrip())
    # What they were told is remembered too, though nobody is left who asked for it first.
    again = chat(house.url, "echo", text, max_tokens=LIMIT)
    assert "hit" in again.headers["cache-status"]
    assert text_of(again) == f"echo: {text}".rstrip()


def test_a_leader_that_wants_it_whole_takes_nothing_along(house: RunningGateway, upstream: Upstream) -> None:
    """Its request goes out as it came, so nobody sees the answer grow; each is told it in the form asked for."""
    with closing(connect(house.url)) as leader, ThreadPoolExecutor(4) as threads:
        leader.request("POST", "/v1/chat/completions", json.dumps(chat_body("far", "silent whole", max_tokens=LIMIT)))
        exchange = until(lambda: next(iter(upstream.about("silent whole")), None), "the upstream was asked")
        body = chat_body("far", "silent whole", max_tokens=LIMIT, stream=True)
        told = {
            "whole": threads.submit(chat, house.url, "far", "silent whole", max_tokens=LIMIT),
            "message, streamed": threads.submit(message, house.url, "far", "silent whole", stream=True),
            "streamed": threads.submit(call, house.url, "POST", "/v1/chat/completions", body),
        }
        joined(house.url, "far", 4)
        leader.close()
        joined(house.url, "far", 3)
        exchange.go_on.set()
        answers = {name: each.result() for name, each in told.items()}

    assert len(upstream.about("silent whole")) == 1
    assert text_of(answers["whole"]) == text_of_events(answers["message, streamed"]) == "begun"
    assert b'"content":"begun"' in answers["streamed"].body
    assert answers["streamed"].body.endswith(b"data: [DONE]\n\n")
    assert all("collapsed" in answered.headers["cache-status"] for answered in answers.values())


def test_a_follower_that_leaves_takes_nothing_along(house: RunningGateway, upstream: Upstream) -> None:
    """Neither does one of several; the last to leave ends the work at the upstream."""
    with ExitStack() as stack:
        streams = [stack.enter_context(Stream(house.url, "far", "partly read")) for _ in range(3)]
        joined(house.url, "far", 3)
        exchange = upstream.about("partly read")[0]
        for left, stream in zip((2, 1), streams[1:], strict=True):
            stream.leave()
            until(lambda left=left: metric(house.url, "warmgate_flight_seats") == left, "it has left")  # type: ignore[misc]
            assert exchange.ended_s is None
        streams[0].leave()
        until(lambda: exchange.ended_s is not None, "the upstream's client has left")

    assert len(upstream.about("partly read")) == 1
    assert not exchange.answered
