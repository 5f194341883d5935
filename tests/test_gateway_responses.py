"""OpenAI's Responses: what they become as a chat, what is refused, and what an answer becomes as a response."""

import json
from dataclasses import replace
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._models import construct_type_unchecked
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import (
    Response,
    ResponseError,
    ResponseErrorEvent,
    ResponseFailedEvent,
    ResponseStreamEvent,
)
from pydantic import TypeAdapter

from backends.contract import (
    BadJob,
    Event,
    Finish,
    Logprobs,
    QueueFull,
    Reasoning,
    Refusal,
    StartFailed,
    Text,
    ToolCall,
    Usage,
    WorkerDied,
)
from gateway.answer import Answer, Head
from gateway.errors import InvalidRequest, fault
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.responses import ResponsesSurface
from gateway.surfaces.wire import Call

SURFACE = ResponsesSurface()
REPLY_ID = "0123456789abcdef01234567"
FAILED = "response.failed"
HEAD = Head("atlas", "v1", 1700000000.5)
SPOKEN = Answer(HEAD, (Text("Par"), Text("is."), Usage(7, 2, 1, 1), Finish("stop")))
TOKEN = {"token": "Par", "logprob": -0.5, "bytes": [80], "top_logprobs": []}


def decode(**fields: object):
    """Decode a request with these fields over a minimal one."""
    body = json.dumps({"model": "atlas", "input": "hello", **fields}).encode()
    return SURFACE.decode(Call("POST", "/v1/responses", {}, body, None), REPLY_ID)


def whole(answer: Answer, **fields: object) -> Any:
    """Encode an answer as one body."""
    return json.loads(decode(**fields)[1].whole(answer).body)


def stream(answer: Answer, **fields: object) -> list[Any]:
    """Encode an answer as a stream, and parse its events."""
    frames = decode(stream=True, **fields)[1].frames
    return parsed(frames.opening(HEAD) + b"".join(frames.frame(event) for event in answer.events) + frames.closing())


def parsed(raw: bytes) -> list[Any]:
    """Parse the events of a stream."""
    events = []
    for block in raw.decode().split("\n\n")[:-1]:
        named, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert named == f"event: {events[-1]['type']}"
    return events


def test_a_text_is_a_chat_of_one_message():
    """The same question over both wires is one request, also for a match by meaning."""
    request, _ = decode(instructions="be brief", max_output_tokens=5, temperature=0)
    body = {
        "model": "atlas",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
        "max_tokens": 5,
        "temperature": 0,
    }
    chat, _ = OpenAISurface().decode(Call("POST", "/v1/chat/completions", {}, json.dumps(body).encode(), None), "")

    assert request.fields == chat.fields
    assert request.asked == "hello"
    assert request.job.messages == chat.job.messages
    assert request.job.sampling == chat.job.sampling


def test_items_become_messages():
    """Parts get chat's names; calls in a row are one turn of the assistant's; earlier thoughts are left out."""
    request, _ = decode(
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"type": "reasoning", "id": "r", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I call"}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": "data:,", "detail": "low"},
                    {"type": "input_file", "file_data": "data:,", "filename": "x"},
                ],
            },
        ]
    )

    messages = request.fields["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "user"]
    assert messages[0]["content"] == "ab"
    assert messages[1]["content"] == "I call"
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["c1", "c2"]
    assert messages[2] == {"role": "tool", "tool_call_id": "c1", "content": "1"}
    assert messages[3]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:,", "filename": "x"}},
    ]
    assert request.asked is None


def test_fields_become_chat_s():
    """Tools, formats, effort and log probabilities are said in chat's words; what is not known goes on as it is."""
    schema = {"type": "object"}
    request, _ = decode(
        tools=[{"type": "function", "name": "f", "parameters": schema, "strict": True}],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}, "verbosity": "low"},
        reasoning={"effort": "low"},
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
        top_k=3,
        seed=7,
        store=True,
        metadata={"a": "b"},
    )

    assert request.job.extra == {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}},
        "verbosity": "low",
        "reasoning_effort": "low",
        "logprobs": True,
        "top_logprobs": 0,
        "top_k": 3,
    }
    assert request.job.sampling.seed == 7


def test_a_choice_among_tools_is_understood():
    """A list of allowed tools is chat's too; a word stays the word."""
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]}

    assert decode(tool_choice="required")[0].job.extra["tool_choice"] == "required"
    assert decode(tool_choice=allowed)[0].job.extra["tool_choice"] == {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{"type": "reasoning"}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": None}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "schema": 5}}}, "text.format.json_schema"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"instructions": 5}, "instructions"),
        ({"stream": 1}, "stream"),
        ({"model": None}, "model"),
    ],
)
def test_what_a_chat_cannot_say_is_refused_by_name(fields: dict[str, object], param: str):
    """Each refusal names the field; that nothing is kept is said where it matters."""
    with pytest.raises(InvalidRequest) as caught:
        decode(**fields)

    assert caught.value.param == param


@given(
    st.dictionaries(
        st.sampled_from(["model", "input", "tools", "text", "tool_choice", "include", "reasoning", "stream", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=3),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["type", "role", "content"]), inner),
            max_leaves=5,
        ),
    )
)
def test_any_json_object_decodes_or_is_refused(body: dict[str, Any]):
    """No JSON object raises anything but a refusal."""
    try:
        request, _ = decode(**body)
    except InvalidRequest:
        return
    assert request.job.messages


def test_whole_reply_satisfies_the_client_s_model():
    """A response tells its text, its usage, what was asked, and that nothing is stored."""
    response = Response.model_validate(whole(SPOKEN, store=True, metadata={"a": "b"}, instructions="be brief"))

    assert response.output_text == "Paris."
    assert response.status == "completed"
    assert response.usage is not None
    assert (response.usage.total_tokens, response.usage.input_tokens_details.cached_tokens) == (9, 1)
    assert (response.metadata, response.instructions) == ({"a": "b"}, "be brief")
    assert response.to_dict()["store"] is False


def test_stream_of_a_text():
    """Events come in OpenAI's order, numbered from 0."""
    events = stream(SPOKEN)

    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"] == whole(SPOKEN)


@pytest.mark.parametrize(("reason", "told"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_is_not_whole_is_incomplete(reason: str, told: str):
    """The response, its last event and its message all say so."""
    answer = Answer(HEAD, (Text("Par"), Usage(7, 1), Finish(reason)))

    last = stream(answer)[-1]

    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": told}
    assert last["response"]["output"][0]["status"] == "incomplete"


def test_log_probabilities_go_with_their_text():
    """They stand in the delta of their text, and in the whole."""
    answer = Answer(HEAD, (Text("Par"), Logprobs((TOKEN,)), Finish("stop")))
    asked = {"include": ["message.output_text.logprobs"]}

    (delta,) = [event for event in stream(answer, **asked) if event["type"] == "response.output_text.delta"]

    assert (delta["delta"], delta["logprobs"]) == ("Par", [TOKEN])
    assert whole(answer, **asked)["output"][0]["content"][0]["logprobs"] == [TOKEN]


PIECES = st.one_of(
    st.builds(Text, st.text()),
    st.builds(Reasoning, st.text()),
    st.builds(Refusal, st.text()),
    st.builds(ToolCall, st.integers(0, 2), st.just(""), st.just("f"), st.text()),
    st.builds(Logprobs, st.just((TOKEN,))),
)


@given(st.lists(PIECES, max_size=12), st.sampled_from(["stop", "length", "tool_calls"]))
def test_streamed_is_whole(pieces: list[Event], reason: str):
    """Whatever the answer, the stream's last event tells the whole reply, and the official client can follow it."""
    answer = Answer(HEAD, (*pieces, Usage(3, 2), Finish(reason)))
    events = stream(answer)
    state: Any = ResponseStreamState(input_tools=[], text_format=openai.omit)

    for event in events:
        state.handle_event(construct_type_unchecked(value=event, type_=ResponseStreamEvent))

    together = whole(answer)
    assert events[-1]["response"] == together
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert sorted(done, key=lambda item: item["id"][-2:]) == together["output"]
    texts = "".join([event["delta"] for event in events if event["type"] == "response.output_text.delta"])
    assert texts == Response.construct(**together).output_text


def broken(events: tuple[Event, ...], error: Exception, **fields: object) -> list[Any]:
    """Encode a stream that ends in an error after these events, and parse what it tells."""
    frames = decode(stream=True, **fields)[1].frames
    raw = frames.opening(HEAD) + b"".join(frames.frame(event) for event in events) if events else b""
    return parsed(raw + SURFACE.failure_frame(replace(fault(error), request_id=REPLY_ID)))


def test_an_error_in_the_stream_is_told_with_what_came_before_it():
    """The `error` is what the client raises; the response that failed has the text so far, and the numbers go on."""
    events = broken((Text("Par"),), WorkerDied("gone"))

    error, failed = events[-2:]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (error["type"], error["message"], error["error"]["message"]) == ("error", "gone", "gone")
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": "server_error", "message": "gone"}
    (item,) = failed["response"]["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "Par")
    assert failed["response"]["id"] == events[0]["response"]["id"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (QueueFull("full", 1.0), "rate_limit_exceeded"),
        (BadJob("no"), "invalid_prompt"),
        (StartFailed("no"), "server_error"),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"include": ["message.output_text.logprobs"]}])
def test_an_error_before_the_first_event_is_a_response_that_failed(error: Exception, code: str, fields: dict[str, Any]):
    """It begins as all do, so that readers know whose it is; the official client's types read each of its events."""
    events = broken((), error, **fields)

    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "error", FAILED]
    assert [event["sequence_number"] for event in events] == [0, 1, 2, 3]
    last = TypeAdapter(ResponseFailedEvent).validate_python(events[-1]).response
    assert (last.model, last.output, last.error) == ("atlas", [], ResponseError(code=code, message=str(error)))  # type: ignore[arg-type]
    TypeAdapter(ResponseErrorEvent).validate_python(events[2])
