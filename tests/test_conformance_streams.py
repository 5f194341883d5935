"""What users of caches in gateways complained of, asked of ours from outside: streams, tools, wires and work in flight.

The list with sources is docs/cache-conformance.md.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conformance import Subject, about, chunks_of, data_of, is_hit, subject

TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {"at": {"type": "string", "minLength": 9}}, "required": ["at"]},
    },
}
# What an answer may hold beside text, each with the request that leads to it.
ANSWERS = {
    "text": about("plain words"),
    "letters of all kinds": about("Grüße, 世界 🎉 עולם and a zero\u200dwidth joiner"),
    "reasoning": about("think of a number"),
    "tool calls": about("look please", tools=[TOOL]),
    "several choices": about("twice", n=2),
    "log probabilities": about("likely", logprobs=True, top_logprobs=1),
}


@pytest.fixture(scope="module")
def ours() -> Iterator[Subject]:
    """Run one gateway for all of them."""
    with subject() as found:
        yield found


def streamed(body: dict[str, Any]) -> dict[str, Any]:
    """Ask for the same as a stream, with its usage."""
    return {**body, "stream": True, "stream_options": {"include_usage": True}}


def told(chunk: Any) -> Any:
    """Return what a chunk says but for what is each reply's own."""
    return {name: value for name, value in chunk.items() if name not in ("id", "created", "system_fingerprint")}


def calls_without_ids(value: Any) -> Any:
    """Leave out the ids of calls, which are each reply's own."""
    if isinstance(value, dict):
        return {name: calls_without_ids(each) for name, each in value.items() if name not in ("id", "created")}
    return [calls_without_ids(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_stream_is_told_again_chunk_by_chunk(ours: Subject, kind: str) -> None:
    """Text, reasoning, calls, log probabilities, usage and reasons to stop come in the chunks in which they came."""
    body = streamed({**ANSWERS[kind], "seed": 1})
    first, again = ours.ask(body), ours.ask(body)
    assert (is_hit(first), is_hit(again)) == (False, True)
    assert calls_without_ids(chunks_of(again)) == calls_without_ids(chunks_of(first))
    assert len(chunks_of(first)) > 2


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_whole_answer_is_told_again_as_it_was(ours: Subject, kind: str) -> None:
    """With its details of usage, and the same answer as a stream says the same."""
    body = {**ANSWERS[kind], "seed": 2}
    first, again = ours.ask(body), ours.ask(body)
    assert is_hit(again)
    assert calls_without_ids(again.json()) == calls_without_ids(first.json())
    stream = ours.ask(streamed(body))
    assert is_hit(stream)
    for choice in first.json()["choices"]:
        deltas = [
            each["delta"]
            for chunk in chunks_of(stream)
            for each in chunk["choices"]
            if each["index"] == choice["index"]
        ]
        for field in ("content", "reasoning_content"):
            assert "".join(delta.get(field) or "" for delta in deltas) == (choice["message"].get(field) or "")
        calls = [call["function"] for call in choice["message"].get("tool_calls") or ()]
        pieces = [call["function"] for delta in deltas for call in delta.get("tool_calls") or ()]
        assert "".join(piece.get("arguments", "") for piece in pieces) == "".join(call["arguments"] for call in calls)
        reasons = {
            each["finish_reason"]
            for chunk in chunks_of(stream)
            for each in chunk["choices"]
            if each["index"] == choice["index"]
        }
        assert reasons == {None, choice["finish_reason"]}


def test_a_hit_is_in_the_form_that_was_asked_for(ours: Subject) -> None:
    """A stream to who asks for a stream and JSON to who does not, whichever of them came first."""
    for first in (True, False):
        body = about(f"form {first}")
        ours.ask({**body, "stream": first})
        stream, whole = ours.ask({**body, "stream": True}), ours.ask({**body, "stream": False})
        assert is_hit(stream)
        assert is_hit(whole)
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert whole.headers["content-type"].startswith("application/json")
        text = "".join(each["delta"].get("content") or "" for chunk in chunks_of(stream) for each in chunk["choices"])
        assert whole.json()["choices"][0]["message"]["content"] == text == f"echo: form {first}"


def test_a_stream_ends_with_one_done_and_an_empty_line(ours: Subject) -> None:
    """Byte for byte as clients look for it, on hits as well."""
    body = about("the end", stream=True)
    for answered in (ours.ask(body), ours.ask(body)):
        assert answered.body.endswith(b"data: [DONE]\n\n")
        assert data_of(answered).count(b"[DONE]") == 1


def test_usage_is_told_once_and_only_to_who_asks(ours: Subject) -> None:
    """Not on each chunk, and not where the stream did not ask for it; the figures are those of the first answer."""
    body = about("used")
    whole = ours.ask(body).json()["usage"]
    asked, unasked = ours.ask(streamed(body)), ours.ask({**body, "stream": True})
    assert is_hit(asked)
    usages = [chunk["usage"] for chunk in chunks_of(asked) if chunk.get("usage")]
    assert [(usage["prompt_tokens"], usage["completion_tokens"]) for usage in usages] == [
        (whole["prompt_tokens"], whole["completion_tokens"])
    ]
    assert not [chunk for chunk in chunks_of(unasked) if chunk.get("usage")]


def test_each_reply_has_ids_of_its_own(ours: Subject) -> None:
    """A hit is a new answer to who keeps books by ids."""
    body = about("ids")
    replies = [ours.ask(body) for _ in range(4)]
    assert len({reply.json()["id"] for reply in replies[1:]}) == 3
    assert len({reply.headers["x-request-id"] for reply in replies}) == 4
    streams = [ours.ask({**body, "stream": True}) for _ in range(3)]
    assert len({chunks_of(stream)[0]["id"] for stream in streams}) == 3


def test_a_call_that_breaks_its_schema_is_given_out_and_not_kept(ours: Subject) -> None:
    """Whole and streamed alike: the model's mistake is not repeated to the next one."""
    strict = json.loads(json.dumps(TOOL))
    # The upstream makes the least value, which no number of this kind is.
    strict["function"]["parameters"]["properties"]["at"] = {"type": "integer", "minimum": 5}
    for stream in (False, True):
        body = about(f"look {stream}", tools=[strict], stream=stream)
        assert ours.calls(body, body) == 2
        assert ours.calls(about(f"look {stream}", tools=[TOOL], stream=stream)) == 1


def test_an_answer_of_one_wire_is_a_hit_on_another(ours: Subject) -> None:
    """The same question over OpenAI's and Anthropic's API is one question."""
    text = "over two wires"
    asked = {"model": "echo", "max_tokens": 77, "temperature": 0, "messages": [{"role": "user", "content": text}]}
    first = ours.ask(asked, path="/v1/messages")
    second = ours.ask(asked)
    assert first.status == second.status == 200
    assert is_hit(second)
    assert first.json()["content"][0]["text"] == second.json()["choices"][0]["message"]["content"] == f"echo: {text}"


def test_work_in_flight_is_shared_by_streams_and_whole_answers(ours: Subject) -> None:
    """Ten ask for the same at once: one call, and each has all of it in its own form."""
    body = about("slow for ten at once, of whom some stream")
    before = ours.upstream.asked()
    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(lambda n: ours.ask({**body, "stream": n % 2 == 0}), range(10)))
    assert ours.upstream.asked() == before + 1
    for number, reply in enumerate(replies):
        if number % 2:
            text = reply.json()["choices"][0]["message"]["content"]
        else:
            text = "".join(
                each["delta"].get("content") or "" for chunk in chunks_of(reply) for each in chunk["choices"]
            )
        assert text == "echo: slow for ten at once, of whom some stream"


def test_who_shares_work_that_fails_is_told_at_once(ours: Subject) -> None:
    """No follower waits for anything after its leader has failed, nor is a failure kept for those who come later."""
    body = about("slow status-500")
    before = ours.upstream.asked()
    with ThreadPoolExecutor(4) as pool:
        assert {reply.status for reply in pool.map(lambda _: ours.ask(body), range(4))} == {502}
    assert ours.upstream.asked() > before
    assert ours.ask(body).status == 502


def test_every_reply_says_what_the_cache_did(ours: Subject) -> None:
    """Whole and streamed, hits and misses, with an age on hits: nobody has to guess."""
    for stream in (False, True):
        body = about(f"told {stream}", stream=stream)
        miss, hit = ours.ask(body), ours.ask(body)
        assert miss.headers["cache-status"].startswith("warmgate; fwd=miss")
        assert "age" not in miss.headers
        assert hit.headers["cache-status"].startswith("warmgate; hit; ttl=")
        assert int(hit.headers["age"]) >= 0
