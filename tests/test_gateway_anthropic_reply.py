"""Anthropic's messages: what comes back whole and as a stream, as the official client puts it together."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from anthropic._streaming import SSEDecoder
from anthropic.lib.streaming._messages import accumulate_event
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import (
    Event,
    Finish,
    Logprobs,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
)
from gateway.answer import Answer, Head
from gateway.caching.wording import Wording
from gateway.surfaces.anthropic import AnthropicSurface
from gateway.surfaces.passed import PassedFrames, replayed
from gateway.surfaces.wire import Call, Encoder

HEAD = Head("atlas", "v1", 1700000000.5)
ID = "0123456789abcdef01234567"


def encoder(*, stream: bool = True) -> Encoder:
    """Make the encoder of a request's reply."""
    body = {"model": "atlas", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}], "stream": stream}
    return AnthropicSurface().decode(Call("POST", "/v1/messages", {}, json.dumps(body).encode(), None), ID)[1]


def whole_of(events: Sequence[Event]) -> dict[str, Any]:
    """Encode events as one message."""
    message: dict[str, Any] = json.loads(encoder(stream=False).whole(Answer(HEAD, tuple(events))).body)
    return message


def bytes_of(events: Sequence[Event], head: Head = HEAD) -> bytes:
    """Encode events as a stream."""
    frames = encoder().frames
    assert frames is not None
    return frames.opening(head) + b"".join([frames.frame(event) for event in events]) + frames.closing()


def stream_of(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Encode events as a stream, and read it as the official client does."""
    found = list(SSEDecoder().iter_bytes(iter([bytes_of(events)])))
    told = [each.json() for each in found]
    assert [each.event for each in found] == [each["type"] for each in told]
    return [each for each in told if each["type"] != "ping"]


def put_together(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put a stream together as the official client does."""
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for each in told:
        snapshot = accumulate_event(event=each, current_snapshot=snapshot, json_bufs=buffers)  # type: ignore[arg-type]
    message: dict[str, Any] = snapshot.to_dict(exclude_none=True)
    return message


def without_none(message: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is null, as the client's dictionaries do."""
    return {name: value for name, value in message.items() if value is not None}


def test_text_as_a_whole_message():
    """A complete answer is one `message` with its usage."""
    assert whole_of([Text("Par"), Text("is."), Usage(7, 2, cached_tokens=3), Finish("stop")]) == {
        "id": f"msg_{ID}",
        "type": "message",
        "role": "assistant",
        "model": "atlas",
        "content": [{"type": "text", "text": "Paris."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 3,
            "output_tokens": 2,
        },
    }


def test_text_as_a_stream():
    """The events stand in Anthropic's order; the tokens of the question are estimated first and right at the end."""
    told = stream_of([Text("Par"), Text("is."), Usage(7, 2), Finish("stop")])

    assert [each["type"] for each in told] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    start = told[0]["message"]
    assert (start["content"], start["stop_reason"], start["usage"]["input_tokens"]) == ([], None, 2)
    assert told[1] == {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    assert told[2]["delta"] == {"type": "text_delta", "text": "Par"}
    assert told[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert told[-2]["usage"]["input_tokens"] == 7
    assert told[-2]["usage"]["output_tokens"] == 2


@pytest.mark.parametrize(
    ("events", "reason", "stop"),
    [
        ([Text("x"), Finish("stop")], "end_turn", None),
        ([Text("x"), Finish("stop", stop="END")], "stop_sequence", "END"),
        ([Text("x"), Finish("length")], "max_tokens", None),
        ([ToolCall(0, "t", "f", "{}"), Finish("tool_calls")], "tool_use", None),
        ([ToolCall(0, "t", "f", "{}"), Finish("stop")], "tool_use", None),
        ([Finish("content_filter")], "refusal", None),
        ([Refusal("No."), Finish("stop")], "refusal", None),
    ],
)
def test_why_it_ended(events, reason, stop):
    """Reasons to stop have Anthropic's names, whole and streamed; a call that was asked for by name is a call."""
    message = whole_of(events)
    delta = stream_of(events)[-2]["delta"]

    assert (message["stop_reason"], message["stop_sequence"]) == (reason, stop)
    assert (delta["stop_reason"], delta["stop_sequence"]) == (reason, stop)


def test_thoughts_calls_and_text_are_blocks_in_their_order():
    """Each change of kind closes a block; a signature closes a thought; a call without a name for it gets one."""
    events = [
        Reasoning("let me "),
        Reasoning("see", signature="s1"),
        Reasoning("again", signature="s2"),
        Text("I look."),
        ToolCall(0, "t1", "weather", '{"city":'),
        ToolCall(0, arguments='"Oslo"}'),
        ToolCall(1, "", "clock"),
        Usage(5, 20, 0, 12),
        Finish("tool_calls"),
    ]

    message = whole_of(events)

    assert message["content"] == [
        {"type": "thinking", "thinking": "let me see", "signature": "s1"},
        {"type": "thinking", "thinking": "again", "signature": "s2"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": f"toolu_{ID}01", "name": "clock", "input": {}},
    ]
    assert message["usage"]["output_tokens_details"] == {"thinking_tokens": 12}
    assert put_together(stream_of(events)) == without_none(message)


def test_a_call_is_told_as_it_is_made():
    """The pieces of the arguments go out at once, and those of the next call as soon as the first is complete."""
    frames = encoder().frames
    assert frames is not None
    frames.opening(HEAD)

    first = frames.frame(ToolCall(0, "a", "f", '{"x":'))
    rest = frames.frame(ToolCall(0, arguments="1}"))
    second = frames.frame(ToolCall(1, "b", "g", '{"y"'))

    assert b'"partial_json":"{\\"x\\":"' in first
    assert b'"partial_json":"1}"' in rest
    assert b"content_block_stop" in second
    assert b'"name":"g"' in second


def test_calls_that_come_in_turns_are_told_one_after_the_other():
    """What is said of a second call waits until the first is complete."""
    events = [
        ToolCall(0, "a", "f", '{"x":'),
        ToolCall(1, "b", "g", '{"y":'),
        ToolCall(0, arguments="1}"),
        ToolCall(1, arguments="2}"),
        Finish("tool_calls"),
    ]

    told = stream_of(events)

    places = [each["index"] for each in told if each["type"].startswith("content_block")]
    assert places == sorted(places)
    assert put_together(told)["content"] == whole_of(events)["content"]


def test_a_call_that_was_cut_off_keeps_its_words():
    """Arguments that are no JSON object, since the answer ended amid them, are kept in the whole message."""
    message = whole_of([ToolCall(0, "a", "f", '{"x": "lo'), Finish("length")])

    assert message["content"][0]["input"] == {"INVALID_JSON": '{"x": "lo'}
    assert message["stop_reason"] == "max_tokens"


def test_other_choices_and_log_probabilities_are_not_told():
    """A message has one choice and no log probabilities."""
    events = [Text("a"), Text("b", 1), Logprobs(({"token": "a"},)), Finish("stop"), Finish("length", 1)]

    assert whole_of(events)["content"] == [{"type": "text", "text": "a"}]
    assert whole_of(events)["stop_reason"] == "end_turn"
    assert put_together(stream_of(events)) == without_none(whole_of(events))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def calls(draw: st.DrawFn) -> list[Event]:
    """Make the pieces of a few calls, each call's in their order, with those of others between them."""
    pieces: list[list[Event]] = []
    for place in range(draw(st.integers(1, 3))):
        said = json.dumps(draw(st.dictionaries(TEXTS, VALUES, max_size=3)))
        cut = draw(st.integers(0, len(said)))
        begin = ToolCall(place, f"id{place}", f"f{place}", said[:cut])
        pieces.append([begin, ToolCall(place, arguments=said[cut:])])
    mixed: list[Event] = []
    while left := [each for each in pieces if each]:
        mixed.append(draw(st.sampled_from(left)).pop(0))
    return mixed


ANSWERS = st.lists(
    st.one_of(
        st.builds(Text, TEXTS).map(lambda event: [event]),
        st.builds(Refusal, TEXTS).map(lambda event: [event]),
        st.builds(Reasoning, TEXTS, signature=st.sampled_from(["", "", "sig"])).map(lambda event: [event]),
    ),
    max_size=6,
)


@given(
    ANSWERS,
    calls() | st.just([]),
    ANSWERS,
    st.builds(Usage, st.integers(50, 99), st.integers(0, 99), st.integers(0, 50), st.integers(0, 9)),
    st.builds(Finish, st.sampled_from(["stop", "length", "tool_calls", "content_filter"])),
)
def test_a_stream_put_together_is_the_whole_message(before, called, after, usage, finish):
    """Whatever was answered, the official client makes of the stream what it would have got at once."""
    said = [event for group in before for event in group] + called + [event for group in after for event in group]
    events = [*said, usage, finish]

    assert put_together(stream_of(events)) == without_none(whole_of(events))


def test_the_upstream_s_own_bytes_are_passed_on():
    """Frames of the client's own kind go out untouched, whole and streamed; others are passed over."""
    events = (Text("x"), Usage(1, 1), Finish("stop"))
    head = Head("m", "v", 1.0, verbatim="anthropic /messages", content_type="application/json; charset=utf-8")
    streamed = Head("m", "v", 1.0, verbatim="anthropic /messages stream", content_type="text/event-stream")

    whole = encoder(stream=False).whole(Answer(head, events, Wording(b"raw ")))
    assert (whole.body, whole.content_type) == (b"raw ", "application/json; charset=utf-8")
    frames = encoder().frames
    assert isinstance(frames, PassedFrames)
    assert (frames.passes(streamed), frames.passes(head)) == (True, False)
    assert replayed(frames, Answer(streamed, events, Wording(b"ab"))) == b"ab"
    assert b"text_delta" in replayed(frames, Answer(head, events, Wording(b"raw ")))
