"""What users of caches in gateways complained of, asked of ours from outside: keys, tenants, errors and limits.

The list with sources is docs/cache-conformance.md.
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conformance import Subject, about, is_hit, subject
from tests.e2e.program import connect

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
OTHER_TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "required": []}}}


@pytest.fixture(scope="module")
def ours() -> Iterator[Subject]:
    """Run one gateway for all of them."""
    with subject() as found:
        yield found


def test_the_same_request_is_the_same_however_it_is_written(ours: Subject) -> None:
    """The order of keys, spaces and escapes in JSON, and what says who asks and how to deliver, are no part of it."""
    body = about("written in many ways")
    turned = dict(reversed(body.items()))
    spaced = json.dumps(body, indent=3, ensure_ascii=True).encode()
    said = {**body, "user": "u-17", "metadata": {"trace": "t"}, "stream": False}
    assert ours.calls(body, turned, spaced, said, {**body, "stream": True}) == 1


def test_the_same_bytes_always_have_the_same_key(ours: Subject) -> None:
    """A hundred times over: nothing of a process, such as the order of a map, gets into a key."""
    body = about("many keys", tools=[TOOL], logit_bias={str(n): n % 5 for n in range(50)}, stop=["x", "y"])
    assert ours.calls(*[body] * 100) == 1


CHANGES: Mapping[str, Any] = {
    "temperature": 0.0001,
    "top_p": 0.5,
    "seed": 7,
    "max_tokens": 900,
    "stop": ["zz"],
    "n": 2,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"1": 5},
    "logprobs": True,
    "tools": [TOOL],
    "response_format": {"type": "json_object"},
    "reasoning_effort": "low",
    "num_ctx": 4096,
    "a_field_of_next_year": True,
}


@pytest.mark.parametrize("field", CHANGES)
def test_whatever_may_change_an_answer_makes_another_key(ours: Subject, field: str) -> None:
    """Each parameter, those that only some providers have and those that nobody knows included."""
    # A sampled answer is not kept at all; with a seed it is.
    pinned = {"seed": 1} if field == "temperature" else {}
    body = about(f"with and without {field}", **pinned)
    assert ours.calls(body, {**body, field: CHANGES[field]}, body) == 2


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "who are you"}],
        [{"role": "system", "content": "Be verbose."}, {"role": "user", "content": "who are you"}],
        [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "who are you"}],
        [
            {"role": "user", "content": "who are you"},
            {"role": "assistant", "content": "I"},
            {"role": "user", "content": "?"},
        ],
        [{"role": "user", "content": "who"}, {"role": "assistant", "content": "I"}, {"role": "user", "content": "?"}],
        [{"role": "user", "content": "who are you", "name": "ann"}],
    ],
    ids=["system", "another system", "developer", "history", "another history", "name"],
)
def test_all_of_a_conversation_is_part_of_the_key(ours: Subject, messages: list[Any]) -> None:
    """A system prompt, what was said before and who said it: an answer of another conversation is never served."""
    assert ours.calls({"model": "echo", "temperature": 0, "messages": messages}) == 1


def test_another_schema_of_the_same_tool_makes_another_key(ours: Subject) -> None:
    """The name of a tool is not what it takes."""
    assert ours.calls(about("tools", tools=[TOOL]), about("tools", tools=[OTHER_TOOL])) == 2


def test_long_texts_with_the_same_beginning_are_told_apart(ours: Subject) -> None:
    """No window of any model ends what is compared."""
    same = "word " * 20_000
    assert ours.calls(about(f"{same} a"), about(f"{same} b"), about(f"{same} a")) == 2


def test_tenants_never_share_an_answer(ours: Subject) -> None:
    """Two keys ask the same: two calls, however often, also for streams and at the same time."""
    body = about("slow for two tenants")
    before = ours.upstream.asked()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ours.ask, body, key) for key in ("one", "other", "one", "other")]
        assert {one.result().status for one in asked} == {200}
    assert ours.upstream.asked() == before + 2
    assert ours.calls({**body, "stream": True}, key="one") == ours.calls({**body, "stream": True}, key="other") == 0


def test_a_hit_counts_against_the_limits_of_its_key(ours: Subject) -> None:
    """Answers from the cache are requests: a key with five a minute gets no sixth."""
    body = about("five times")
    statuses = [ours.ask(body, "few").status for _ in range(7)]
    assert statuses[:4] == [200] * 4
    assert statuses[-1] == 429


def test_a_hit_is_counted_and_timed_like_any_request(ours: Subject) -> None:
    """The metrics of requests know of hits, whole and as streams."""
    body = about("counted")
    ours.ask(body)
    before = ours.counted("warmgate_request_seconds_count", surface="openai", cache="exact")
    assert is_hit(ours.ask(body))
    assert is_hit(ours.ask({**body, "stream": True}))
    assert ours.counted("warmgate_request_seconds_count", surface="openai", cache="exact") == before + 2


def test_a_request_that_says_it_wants_no_stream_is_cached(ours: Subject) -> None:
    """`"stream": false` is what most clients send."""
    body = about("no stream", stream=False)
    assert ours.calls(body, body) == 1


REFUSALS = [(f"status-{status}", stream) for status in (400, 429, 500) for stream in (False, True)]
# Whole answers do not fail in the midst.
BREAKS = [(way, True) for way in ("garbage", "break", "cut")]


@pytest.mark.parametrize(("way", "stream"), REFUSALS + BREAKS)
def test_what_failed_is_never_kept(ours: Subject, way: str, stream: bool) -> None:
    """Refusals, errors in the midst and streams that end early: the next one asks again, and no error becomes a 200."""
    body = about(f"please {way} now", stream=stream)
    before = ours.upstream.asked()
    first, second = ours.ask_anyway(body), ours.ask_anyway(body)
    assert ours.upstream.asked() >= before + 2
    for answered in (first, second):
        if answered is not None and answered.status == 200:
            assert b'"error"' in answered.body


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "body",
    [
        about("cut off by its own limit of tokens", max_tokens=2),
        about("decline this"),
    ],
    ids=["length", "refusal"],
)
def test_what_is_not_an_answer_is_not_kept(ours: Subject, body: Mapping[str, Any], stream: bool) -> None:
    """What was cut off at its limit, and what was refused in words."""
    asked = {**body, "stream": stream}
    assert ours.calls(asked, asked) == 2


def test_an_answer_of_a_client_that_left_is_not_half_kept(ours: Subject) -> None:
    """Who leaves in the midst of a stream leaves nothing; the next one gets all of it."""
    text = "slow " + "left " * 30
    connection = connect(ours.url)
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(about(text, stream=True)), {"Authorization": "Bearer sk-one"}
    )
    connection.getresponse().readline()
    connection.close()
    answered = ours.ask(about(text))
    assert answered.json()["choices"][0]["message"]["content"] == f"echo: {text}".rstrip()


def test_who_wants_no_cache_shares_with_nobody(ours: Subject) -> None:
    """`no-cache` asks anew and is not joined to others; `no-store` leaves nothing; `only-if-cached` asks nobody."""
    body = about("slow and fresh")
    with ThreadPoolExecutor(2) as pool:
        before = ours.upstream.asked()
        list(pool.map(lambda _: ours.ask(body, **{"Cache-Control": "no-cache"}), range(2)))
        assert ours.upstream.asked() == before + 2
    secret = about("leaves nothing")
    assert ours.calls(secret, secret, **{"Cache-Control": "no-store"}) == 2
    assert ours.ask(secret, **{"Cache-Control": "only-if-cached"}).status == 504


def test_reading_an_answer_does_not_make_it_younger(ours: Subject) -> None:
    """What the reply says of its age and of the time that is left comes from when it was made, not when it was read."""
    body = about("ages")
    ours.ask(body)
    left = [int(ours.ask(body).headers["cache-status"].partition("ttl=")[2].partition(";")[0]) for _ in range(20)]
    assert left == sorted(left, reverse=True)
