"""OpenAI's replies: one answer whole and streamed, in every shape that it can have, and an upstream's own bytes."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from backends.contract import Event, Finish, Frame, Logprobs, Reasoning, Refusal, Text, ToolCall, Usage, Vectors
from gateway.answer import Answer, Head, answer_of
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.passed import replayed
from gateway.surfaces.wire import Call, Encoder

SURFACE = OpenAISurface()
ID = "0123456789abcdef01234567"
HEAD = Head("atlas", "v1", 1700000000.5)
SPOKEN = Answer(HEAD, (Text("Par"), Text("is."), Usage(7, 2), Finish("stop")))
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
TOKEN = {"token": "Par", "logprob": -0.5, "bytes": [80, 97, 114], "top_logprobs": [{"token": "Par", "logprob": -0.5}]}
CALLED = (
    ToolCall(0, "c1", "add", '{"a":'),
    ToolCall(1, "c2", "sub", "{}"),
    ToolCall(0, arguments="1}"),
    Usage(7, 2),
    Finish("tool_calls"),
)


def encoder_of(path: str = CHAT, **fields: object) -> Encoder:
    """Make the encoder of a request with these fields over a minimal one."""
    asked = {"model": "atlas", "messages": [{"role": "user", "content": "hi"}], "prompt": "p", "input": "i", **fields}
    return SURFACE.decode(Call("POST", path, {}, json.dumps(asked).encode(), None), ID)[1]


def whole(answer: Answer, path: str = CHAT, **fields: object) -> Any:
    """Encode an answer as one body, and parse it."""
    return json.loads(encoder_of(path, **fields).whole(answer).body)


def raw_stream(answer: Answer, path: str = CHAT, **fields: object) -> bytes:
    """Encode an answer as a stream."""
    frames = encoder_of(path, stream=True, **fields).frames
    assert frames is not None
    return replayed(frames, answer)


def stream(answer: Answer, path: str = CHAT, **fields: object) -> list[Any]:
    """Encode an answer as a stream, and parse its data lines."""
    raw = raw_stream(answer, path, **fields)
    assert raw.endswith(b"data: [DONE]\n\n")
    return [json.loads(line[6:]) for line in raw.decode().split("\n\n")[:-2]]


def accumulated(chunks: list[Any]) -> ChatCompletion:
    """Put chunks together as the official client does."""
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return ChatCompletion.model_validate(state.get_final_completion().to_dict())


def test_whole_chat_reply():
    """A complete answer is one `chat.completion` with usage."""
    body = whole(SPOKEN)

    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "Paris.", "refusal": None}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert body["id"] == f"chatcmpl-{ID}"


def test_streamed_chat_reply():
    """Chunks say the role first, then the text, then why it ended; without `include_usage` none has a usage."""
    chunks = stream(SPOKEN)

    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Paris."
    assert chunks[-1]["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}
    assert all("usage" not in chunk for chunk in chunks)
    assert len({chunk["id"] for chunk in chunks}) == 1


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_include_usage_adds_exactly_one_chunk(path: str):
    """The usage comes in one last chunk with no choices; all others carry a null usage."""
    *others, last = stream(SPOKEN, path, stream_options={"include_usage": True})

    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 9
    assert all(chunk["usage"] is None for chunk in others)


def test_details_of_the_usage_are_told_where_there_are_any():
    """Tokens from a prompt cache and tokens of thought stand where clients look for them."""
    answer = Answer(HEAD, (Text("x"), Usage(7, 5, 3, 2), Finish("stop")))

    usage = whole(answer)["usage"]

    assert usage["prompt_tokens_details"] == {"cached_tokens": 3}
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 2}


def test_tool_calls_whole():
    """Calls are put together from their pieces; a message that only calls has no content."""
    choice = whole(Answer(HEAD, CALLED))["choices"][0]

    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "function", "function": {"name": "sub", "arguments": "{}"}},
    ]


def test_tool_calls_streamed():
    """Only the first piece of a call tells its id, type and name; all tell its place."""
    deltas = [chunk["choices"][0]["delta"] for chunk in stream(Answer(HEAD, CALLED))]

    assert deltas[1]["tool_calls"] == [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":'}}
    ]
    assert deltas[3]["tool_calls"] == [{"index": 0, "function": {"arguments": "1}"}}]


def test_calls_without_an_id_are_given_one():
    """A call that its model left unnamed can be answered all the same; streamed and whole it has the same name."""
    answer = Answer(HEAD, (ToolCall(0, "", "f", "{}"), ToolCall(1, "", "f", "{}"), Finish("tool_calls")))

    names = [call["id"] for call in whole(answer)["choices"][0]["message"]["tool_calls"]]
    streamed = [chunk["choices"][0]["delta"].get("tool_calls") for chunk in stream(answer)]

    assert [calls[0]["id"] for calls in streamed if calls] == names
    assert len(set(names)) == 2


def test_reasoning_and_refusals_have_fields_of_their_own():
    """Thoughts are `reasoning_content`; a refusal leaves no content."""
    thought = whole(Answer(HEAD, (Reasoning("hm"), Text("yes"), Finish("stop"))))["choices"][0]["message"]
    refused = whole(Answer(HEAD, (Refusal("no"), Finish("stop"))))["choices"][0]["message"]

    assert (thought["reasoning_content"], thought["content"]) == ("hm", "yes")
    assert (refused["refusal"], refused["content"]) == ("no", None)


def test_every_choice_says_its_role():
    """Each further choice of a stream opens with a chunk of its own."""
    chunks = stream(Answer(HEAD, (Text("a"), Text("b", 1), Text("c", 1), Finish("stop"), Finish("length", 1))), n=2)

    roles = [chunk["choices"][0]["index"] for chunk in chunks if "role" in chunk["choices"][0]["delta"]]
    assert roles == [0, 1]


def test_log_probabilities_go_with_their_text():
    """A text and the log probabilities of its tokens are one chunk; what has none goes out alone."""
    answer = Answer(HEAD, (Text("Par"), Logprobs((TOKEN,)), Text("is"), Text("."), Logprobs((TOKEN,)), Finish("stop")))

    chunks = stream(answer, logprobs=True)[1:-1]

    told = [(chunk["choices"][0]["delta"]["content"], "logprobs" in chunk["choices"][0]) for chunk in chunks]
    assert told == [("Par", True), ("is", False), (".", True)]
    assert whole(answer, logprobs=True)["choices"][0]["logprobs"] == {"content": [TOKEN, TOKEN], "refusal": None}


def test_log_probabilities_of_completions_have_their_older_shape():
    """Columns instead of rows, with offsets that go on through the chunks of a stream."""
    answer = Answer(HEAD, (Text("Par"), Logprobs((TOKEN,)), Text("Par"), Logprobs((TOKEN,)), Finish("stop")))

    together = whole(answer, COMPLETION, logprobs=1)["choices"][0]["logprobs"]
    pieces = [chunk["choices"][0]["logprobs"] for chunk in stream(answer, COMPLETION, logprobs=1)[:-1]]

    assert together == {
        "tokens": ["Par", "Par"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"Par": -0.5}] * 2,
        "text_offset": [0, 3],
    }
    assert [piece["text_offset"] for piece in pieces] == [[0], [3]]


def test_completion_of_several_prompts():
    """Each prompt's choices follow those of the one before, in the order of their indices."""
    answer = Answer(HEAD, (Text("b", 1), Text("a"), Usage(2, 2), Finish("stop", 1), Finish("length")))

    choices = whole(answer, COMPLETION)["choices"]

    assert [(choice["index"], choice["text"], choice["finish_reason"]) for choice in choices] == [
        (0, "a", "length"),
        (1, "b", "stop"),
    ]


PIECES = st.one_of(
    st.builds(Text, st.text(), st.integers(0, 2)),
    st.builds(Reasoning, st.text(), st.integers(0, 2)),
    st.builds(Refusal, st.text(), st.integers(0, 2)),
    st.builds(ToolCall, st.integers(0, 2), st.just(""), st.text(), st.text(), st.integers(0, 2)),
    st.builds(Logprobs, st.just((TOKEN,)), st.integers(0, 2)),
)


def _numbered(events: list[Event]) -> list[Event]:
    """Give each choice its calls in the order in which they come, each named in its first piece only, as is due."""
    places: dict[tuple[int, int], int] = {}
    for position, event in enumerate(events):
        if isinstance(event, ToolCall):
            key = (event.index, event.place)
            is_first = key not in places
            place = places.setdefault(key, sum(index == event.index for index, _ in places))
            events[position] = ToolCall(place, "", "f" if is_first else "", event.arguments, event.index)
    return events


def calls_of(choice: Any) -> list[tuple[str, str, str]]:
    """Return the id, name and arguments of each call."""
    calls = choice["message"].get("tool_calls") or []
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]


@given(st.lists(PIECES, max_size=12).map(_numbered), st.booleans())
def test_streamed_is_whole(events: list[Event], logprobs: bool):
    """Whatever the answer, its chunks put together by the official client are its whole reply."""
    answer = Answer(HEAD, (*events, Usage(3, 2), *[Finish("stop", index) for index in range(3)]))
    if not logprobs:
        answer = Answer(HEAD, tuple(event for event in answer.events if not isinstance(event, Logprobs)))

    streamed = accumulated(stream(answer, n=3, logprobs=logprobs, stream_options={"include_usage": True})).to_dict()
    together = ChatCompletion.model_validate(whole(answer, n=3, logprobs=logprobs)).to_dict()

    for one, other in zip(streamed["choices"], together["choices"], strict=True):
        assert calls_of(one) == calls_of(other)
        assert one.get("logprobs") == other["logprobs"]
        for name in ("content", "refusal", "reasoning_content"):
            assert (one["message"].get(name) or "") == (other["message"].get(name) or "")
    assert streamed["usage"] == together["usage"]


def test_completions_satisfy_the_client_s_models():
    """Whole and streamed completions are what the official client's models say."""
    assert Completion.model_validate(whole(SPOKEN, COMPLETION)).choices[0].text == "Paris."
    pieces = [Completion.construct(**chunk).choices[0].text for chunk in stream(SPOKEN, COMPLETION)]
    assert "".join(pieces) == "Paris."


def test_embeddings_as_numbers_and_as_base64():
    """Both encodings carry the same little-endian float32 values."""
    rows = np.array([[0.5, -1.0], [0.25, 2.0]], dtype="<f4")
    answer = Answer(HEAD, (Vectors(rows.tobytes(), (2, 2)), Usage(3), Finish("stop")))

    as_numbers = whole(answer, "/v1/embeddings", encoding_format="float")
    as_base64 = whole(answer, "/v1/embeddings", encoding_format="base64")

    assert [item["embedding"] for item in as_numbers["data"]] == rows.tolist()
    decoded = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4").tolist() for item in as_base64["data"]]
    assert decoded == rows.tolist()
    assert CreateEmbeddingResponse.model_validate(as_numbers).usage.total_tokens == 3


PASSED_HEAD = Head("atlas", "v1", 1.0, verbatim="openai /chat/completions", content_type="application/json; x=1")
STREAMED_HEAD = Head("atlas", "v1", 1.0, verbatim="openai /chat/completions stream", content_type="text/event-stream")


def framed(head: Head) -> Answer:
    """Make an answer whose bytes came in three pieces, with the events that they stand for."""
    frame = Frame(b"{ 'od", head.verbatim, "x")
    return answer_of(head, [frame, Text("Par"), (b"d' ", "is."), (b"}", ""), Finish("stop")])


def test_an_upstream_s_bytes_are_passed_on():
    """Where the reply came in the client's own wire and mode, its bytes are the reply, with the upstream's type."""
    passed = encoder_of().whole(framed(PASSED_HEAD))

    assert passed.body == b"{ 'odd' }"
    assert passed.content_type == "application/json; x=1"
    assert raw_stream(framed(STREAMED_HEAD)) == b"{ 'odd' }"


def test_bytes_of_another_kind_are_not_passed_on():
    """Who asked in another mode, form or wire is given the same answer in its own words."""
    streamed, unstreamed = framed(STREAMED_HEAD), framed(PASSED_HEAD)

    assert whole(streamed)["choices"][0]["message"]["content"] == "Paris."
    assert stream(unstreamed)[1]["choices"][0]["delta"]["content"] == "Par"
    assert stream(streamed, stream_options={"include_usage": True})[-1]["choices"] == []
