"""An upstream of Anthropic's: what its answers, streams and errors become."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.anthropic_answers import StreamDecoder
from backends.contract import (
    BackendError,
    BadJob,
    Event,
    Finish,
    Frame,
    Job,
    Made,
    Reasoning,
    Sampling,
    Task,
    Text,
    ToolCall,
    UpstreamFailed,
    Usage,
    Verbatim,
)
from backends.sse import SseParser
from backends.upstream import HttpBackend
from gateway.answer import Head, answer_of
from tests import upstream_house
from tests.anthropic_server import RECORDED_STREAM, RECORDED_WHOLE, SEEN, SIGNATURE, application
from tests.test_backends_anthropic_wire import CLOCK, FUNCTION, WIRE, chat
from tests.upstream_house import collect

KEY = "sk-ant-very-secret"


def upstream(key: str = KEY) -> AbstractAsyncContextManager[HttpBackend]:
    """Serve the strict small server and give a backend over it."""
    return upstream_house.upstream(application(), "claude-x", key, wire=WIRE)


def joined(events: Sequence[Made]) -> list[Made]:
    """Join the pieces of texts, thoughts and calls, since streams cut them."""
    whole: list[Made] = []
    for event in events:
        match whole[-1] if whole else None, event:
            case Text(before), Text(text):
                whole[-1] = Text(before + text)
            case Reasoning(before, 0, ""), Reasoning(text, 0, signature):
                whole[-1] = Reasoning(before + text, 0, signature)
            case ToolCall(place, id=id_, name=name, arguments=before), ToolCall(after, id="", arguments=text) if (
                place == after
            ):
                whole[-1] = ToolCall(place, id_, name, before + text)
            case _:
                whole.append(event)
    return whole


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_the_same_streamed_or_whole(stream):
    """Thoughts, text, calls and what was counted come as events; a call without arguments has `{}`."""
    async with upstream() as backend:
        job = chat("think and use tools", stream=stream, extra={"tools": [FUNCTION, CLOCK]})
        events = await collect(backend, job)

    *parts, usage, finish = joined(events)
    assert parts == [
        Reasoning("let me see", signature=SIGNATURE),
        Text("echo: think and use tools"),
        ToolCall(0, "toolu_0", "f", '{"text":"think and use tools","place":0}'),
        ToolCall(1, "toolu_1", "clock", "{}"),
    ]
    assert isinstance(usage, Usage)
    assert usage.prompt_tokens > usage.cached_tokens == 2
    assert usage.completion_tokens > 5
    assert finish == Finish("tool_calls")
    assert SEEN["headers"]["x-api-key"] == KEY
    assert SEEN["headers"]["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("text", "sampling", "finish"),
    [
        ("hello", Sampling(), Finish("stop")),
        ("one two three", Sampling(max_tokens=2), Finish("length")),
        ("one END two", Sampling(stop=("END",)), Finish("stop", stop="END")),
        ("refuse", Sampling(), Finish("content_filter")),
    ],
)
async def test_reasons_to_stop(stream, text, sampling, finish):
    """Each reason has its canonical name, and a stop sequence is told."""
    async with upstream() as backend:
        events = await collect(backend, chat(text, stream=stream, sampling=sampling))

    assert events[-1] == finish


@pytest.mark.parametrize("stream", [False, True])
async def test_a_recorded_exchange_passes_byte_for_byte(stream):
    """A client's own words go to the upstream untouched but for the model, and the upstream's bytes come back."""
    said = (
        b'{ "model" : "mine",  "max_tokens": 5, "messages": [{"role": "user", "content": "recorded"}], "stream": %s }'
    )
    body = said % str(stream).lower().encode()
    headers = {"anthropic-version": "2026-10-21", "anthropic-beta": "b1,b2"}
    verbatim = Verbatim("anthropic", "/messages?beta=true", body, headers=headers, streamed=stream)
    async with upstream() as backend:
        events = await collect(backend, chat("recorded", stream=stream, verbatim=verbatim))

    assert isinstance(events[0], Frame)
    pieces = [made[0] for made in events if isinstance(made, tuple)]
    assert events[0].data + b"".join(pieces) == (RECORDED_STREAM if stream else RECORDED_WHOLE)
    assert events[0].kind == verbatim.kind
    assert SEEN["body"].encode() == body.replace(b'"mine"', b'"claude-x"')
    assert SEEN["path"] == "/v1/messages?beta=true"
    assert headers.items() <= {name.lower(): value for name, value in SEEN["headers"].items()}.items()
    told = joined(list(answer_of(Head("m", "v", 0.0), events).events))
    # A sealed thought is more than events can tell, so the answer has no reason: nothing may take it for whole.
    assert told == [Text("Hello ü there."), Usage(17, 15, 5)]


async def test_parts_that_only_anthropic_has():
    """Who speaks its wire gets them as bytes; anybody else is told that they cannot be passed on."""
    body = b'{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "cite"}]}'
    async with upstream() as backend:
        with pytest.raises(UpstreamFailed, match="web_search_tool_result"):
            await collect(backend, chat("cite"))
        events = await collect(backend, chat("cite", verbatim=Verbatim("anthropic", "/messages", body)))

    assert not any(isinstance(event, Finish) for event in events)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadJob),
        (413, BadJob),
        (404, UpstreamFailed),
        (429, UpstreamFailed),
        (500, UpstreamFailed),
        (529, UpstreamFailed),
    ],
)
async def test_refusals(stream, status, kind):
    """What is the client's doing keeps its status and words; the rest is the upstream's, with when to try again."""
    async with upstream() as backend:
        with pytest.raises(BackendError, match=f"told to refuse with {status}") as caught:
            await collect(backend, chat(f"status-{status}", stream=stream))

    assert type(caught.value) is kind
    assert caught.value.status == status  # type: ignore[attr-defined]
    if isinstance(caught.value, UpstreamFailed):
        assert caught.value.retry_after_s == 7


async def test_a_wrong_key_is_ours_to_blame():
    """The upstream's words are left out, since they may quote the key."""
    async with upstream(key="wrong") as backend:
        with pytest.raises(UpstreamFailed, match="credentials") as caught:
            await collect(backend, chat("hi"))
    assert caught.value.status == 401


async def test_errors_in_the_midst_of_a_stream():
    """An error event keeps its status; a stream that ends without `message_stop` was cut off."""
    async with upstream() as backend:
        with pytest.raises(UpstreamFailed, match="overloaded_error: told to break") as caught:
            await collect(backend, chat("break it", stream=True))
        assert caught.value.status == 529
        with pytest.raises(UpstreamFailed, match="before it was complete"):
            await collect(backend, chat("cut it", stream=True))


async def test_counting_tokens_is_relayed():
    """A request to count goes on as it came, and the upstream's reply comes back."""
    body = b'{"model": "m", "messages": [{"role": "user", "content": "how many are these?"}]}'
    job = Job(Task.RELAY, verbatim=Verbatim("anthropic", "/messages/count_tokens", body))
    async with upstream() as backend:
        frame, *_, finish = await collect(backend, job)

    assert isinstance(frame, Frame)
    assert json.loads(frame.data)["input_tokens"] > 4
    assert finish == Finish("stop")


EVENTS = [json.loads(data) for data in SseParser().feed(RECORDED_STREAM)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["text", "tool_use", "message_start", "x"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "index", "delta", "text"]), inner)
    ),
    max_leaves=5,
)


@st.composite
def spoilt(draw: st.DrawFn) -> Mapping[str, Any]:
    """Make an event of a stream with one of its fields exchanged."""
    event = json.loads(json.dumps(draw(st.sampled_from(EVENTS))))
    place = event
    while True:
        name = draw(st.sampled_from(sorted(place)))
        if isinstance(place[name], dict) and place[name] and draw(st.booleans()):
            place = place[name]
            continue
        place[name] = draw(JSON)
        return event  # type: ignore[no-any-return]


@given(st.lists(spoilt() | st.sampled_from(EVENTS), max_size=6))
def test_whatever_is_sent_is_events_or_a_failure(events):
    """No stream raises anything but `UpstreamFailed`."""
    decoder = StreamDecoder(chat("x"))
    with contextlib.suppress(UpstreamFailed):
        told = [each for event in events for each in decoder.feed(json.dumps(event).encode())]
        assert isinstance(decoder.end()[-1], Finish)
        assert all(isinstance(each, Event) for each in told)
