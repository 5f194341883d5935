"""OpenAI's wire: what is understood, what is refused and how, what comes back."""

import base64
import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import BadJob, Finish, Task, Text, Usage, Vectors
from gateway.answer import Answer, Head
from gateway.errors import InvalidRequest, fault
from gateway.fields import parse_object
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.wire import Call

SURFACE = OpenAISurface()
HEAD = Head("atlas", "v1", 1700000000.5)
SPOKEN = Answer(HEAD, (Text("Par"), Text("is."), Usage(7, 2), Finish("stop")))
HELLO = [{"role": "user", "content": "hello"}]


def decode(path: str, body: object):
    """Decode a body on one of the surface's paths."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return SURFACE.decode(Call("POST", path, {}, raw, None), "0123456789abcdef01234567")


def chat(**fields: object):
    """Decode a chat request with these fields over a minimal one."""
    return decode("/v1/chat/completions", {"model": "atlas", "messages": HELLO, **fields})


def test_chat_request_becomes_a_job():
    """Every sampling field reaches the job, and the last user text is what a match by meaning may vary."""
    request, encoder = chat(temperature=0.5, top_p=0.9, seed=7, max_tokens=5, stop="\n", stream=True)

    assert request.job.task is Task.CHAT
    assert request.job.sampling.temperature == 0.5
    assert request.job.sampling.stop == ("\n",)
    assert request.asked == "hello"
    assert encoder.frames is not None


def test_content_parts_are_joined():
    """A list of text parts reads as their concatenation."""
    request, _ = chat(
        messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    )

    assert request.job.messages[0].content == "ab"


def test_conversation_that_ends_with_the_assistant_has_nothing_to_vary():
    """Only a last message of the user's may be matched by meaning."""
    request, _ = chat(messages=[*HELLO, {"role": "assistant", "content": "hi"}])

    assert request.asked is None


def test_identity_leaves_out_what_only_shapes_the_reply():
    """Stream, user and metadata are no part of identity; unknown fields are, and go to upstreams untouched."""
    plain, _ = chat()
    dressed, _ = chat(stream=True, user="u", metadata={"a": 1}, stream_options={"include_usage": True})
    unknown, _ = chat(num_ctx=5)

    assert plain.fields == dressed.fields
    assert unknown.fields != plain.fields
    assert unknown.job.extra == {"num_ctx": 5}


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"messages": []}, "messages", "non-empty list"),
        ({"messages": "hi"}, "messages", '"hi"'),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "system, developer, user, assistant"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "null"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]", "text"),
        ({"messages": [3]}, "messages[0]", "3"),
        ({"temperature": "hot"}, "temperature", "from 0 to 2"),
        ({"temperature": True}, "temperature", "true"),
        ({"temperature": 3}, "temperature", "from 0 to 2"),
        ({"max_tokens": 0}, "max_tokens", "from 1"),
        ({"max_tokens": 1.5}, "max_tokens", "1.5"),
        ({"seed": "x"}, "seed", "whole number"),
        ({"stop": [""]}, "stop", "non-empty"),
        ({"stop": ["a"] * 5}, "stop", "at most 4"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "can only be used when `stream` is True"),
        ({"n": 2}, "n", "not supported"),
        ({"tools": [{"type": "function"}]}, "tools", "not supported"),
        ({"logprobs": True}, "logprobs", "not supported"),
        ({"model": 5}, "model", "5"),
        ({"model": ""}, "model", "non-empty"),
    ],
)
def test_bad_fields_are_named_with_what_is_allowed(fields, param, words):
    """A refusal names the field and its value, and says what is allowed."""
    with pytest.raises(InvalidRequest) as caught:
        chat(**fields)

    assert caught.value.param == param
    assert words in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000])
def test_bodies_that_are_no_json_object_are_refused(body):
    """Whatever the bytes, the answer is an `InvalidRequest` and no other exception."""
    with pytest.raises(InvalidRequest):
        decode("/v1/chat/completions", body)


@given(
    st.dictionaries(
        st.sampled_from(["model", "messages", "stop", "seed", "stream", "stream_options", "n", "x", "temperature"]),
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), st.lists, max_leaves=5),
    )
)
def test_any_json_object_decodes_or_is_refused(body):
    """No JSON object raises anything but a refusal."""
    with contextlib.suppress(InvalidRequest):
        request, _ = decode("/v1/chat/completions", body)
        assert request.model


def test_whole_chat_reply():
    """A complete answer is one `chat.completion` with usage."""
    _, encoder = chat()

    body = json.loads(encoder.whole(SPOKEN).body)

    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "Paris."
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert body["id"] == "chatcmpl-0123456789abcdef01234567"


def stream_of(encoder) -> list[object]:
    """Encode an answer as a stream, and parse its data lines."""
    frames = encoder.frames
    raw = frames.opening(HEAD) + b"".join(frames.frame(event) for event in SPOKEN.events) + frames.closing()
    assert raw.endswith(b"data: [DONE]\n\n")
    return [json.loads(line[6:]) for line in raw.decode().split("\n\n")[:-2]]


def test_streamed_chat_reply():
    """Chunks say the role first, then the text, then why it ended; without `include_usage` none has a usage."""
    _, encoder = chat(stream=True)

    chunks = stream_of(encoder)

    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Paris."
    assert chunks[-1]["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}
    assert all("usage" not in chunk for chunk in chunks)
    assert len({chunk["id"] for chunk in chunks}) == 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_include_usage_adds_exactly_one_chunk(path):
    """The usage comes in one last chunk with no choices; all others carry a null usage."""
    _, encoder = decode(
        path,
        {"model": "m", "messages": HELLO, "prompt": "p", "stream": True, "stream_options": {"include_usage": True}},
    )

    *others, last = stream_of(encoder)

    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 9
    assert all(chunk["usage"] is None for chunk in others)


def test_completion_request_and_reply():
    """A prompt may be text or token ids; the reply is a `text_completion`."""
    request, encoder = decode("/v1/completions", {"model": "m", "prompt": [1, 2]})
    single, _ = decode("/v1/completions", {"model": "m", "prompt": ["one"]})

    assert request.job.prompt == (1, 2)
    assert single.job.prompt == "one"
    assert json.loads(encoder.whole(SPOKEN).body)["choices"][0]["text"] == "Paris."


@pytest.mark.parametrize("prompt", [None, "", [], ["a", "b"], [1, "a"], 5, [True], [-1]])
def test_prompts_that_cannot_be_served(prompt):
    """Several prompts at once, and what is no prompt, are refused by name; an empty text is a prompt."""
    if prompt == "":
        assert decode("/v1/completions", {"model": "m", "prompt": prompt})[0].job.prompt == ""
        return
    with pytest.raises(InvalidRequest) as caught:
        decode("/v1/completions", {"model": "m", "prompt": prompt})
    assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    ("given_input", "expected"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1], [2, 3]], ((1,), (2, 3)))],
)
def test_embedding_inputs(given_input, expected):
    """A string, a list of strings, a list of tokens and a list of those are all understood."""
    request, _ = decode("/v1/embeddings", {"model": "m", "input": given_input})

    assert request.job.inputs == expected


@pytest.mark.parametrize("given_input", ["", [], [""], [[]], [1.5], None, {"a": 1}, [["a"]], ["a"] * 2049])
def test_bad_embedding_inputs(given_input):
    """What is no input is refused with the field's name."""
    with pytest.raises(InvalidRequest) as caught:
        decode("/v1/embeddings", {"model": "m", "input": given_input})
    assert str(caught.value.param).startswith("input")


def test_embeddings_as_numbers_and_as_base64():
    """Both encodings carry the same little-endian float32 values."""
    rows = np.array([[0.5, -1.0], [0.25, 2.0]], dtype="<f4")
    answer = Answer(HEAD, (Vectors(rows.tobytes(), (2, 2)), Usage(3), Finish("stop")))
    _, numbers = decode("/v1/embeddings", {"model": "m", "input": "a", "encoding_format": "float"})
    _, packed = decode("/v1/embeddings", {"model": "m", "input": "a", "encoding_format": "base64"})

    as_numbers = json.loads(numbers.whole(answer).body)
    as_base64 = json.loads(packed.whole(answer).body)

    assert [item["embedding"] for item in as_numbers["data"]] == rows.tolist()
    decoded = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4").tolist() for item in as_base64["data"]]
    assert decoded == rows.tolist()
    assert as_numbers["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_errors_have_openai_s_shape():
    """An error says message, type, param and code; in a stream it is a data line of its own."""
    trouble = fault(BadJob("too long", "messages"))

    assert json.loads(SURFACE.failure(trouble).body)["error"] == {
        "message": "too long",
        "type": "invalid_request_error",
        "param": "messages",
        "code": None,
    }
    assert SURFACE.failure_frame(trouble).startswith(b'data: {"error"')


@pytest.mark.parametrize("levels", [253, 300, 900])
@pytest.mark.parametrize("place", ['{"model":%s}', '{"x":%s}', '{"metadata":%s}', '{"messages":%s}', "%s"])
def test_nesting_that_cannot_be_written_again_is_refused(place, levels):
    """JSON that is deep enough to be read but not to be digested or shown is a refusal, wherever it stands."""
    with pytest.raises(InvalidRequest):
        decode("/v1/chat/completions", (place % ("[" * levels + "]" * levels)).encode())


def test_many_brackets_side_by_side_are_no_nesting():
    """A body with many small lists is taken."""
    assert parse_object(b'{"a":[' + b",".join([b"[]"] * 1000) + b"]}")["a"][999] == []


def test_deep_nesting_is_refused_within_bounds():
    """A nesting bomb is a clear refusal, not a crash of the parser."""
    with pytest.raises(InvalidRequest, match="JSON"):
        parse_object(b'{"a":' * 5000 + b"1" + b"}" * 5000)


def test_the_same_bytes_are_decoded_once_and_answered_under_their_own_ids():
    """A repeat shares the request of the first, never the reply's id; other bytes are another request."""
    body = json.dumps({"model": "atlas", "messages": HELLO}).encode()
    (first, encoder), (second, other), (changed, _) = [
        SURFACE.decode(Call("POST", "/v1/chat/completions", {}, bytes(bytearray(sent)), None), reply_id)
        for sent, reply_id in ((body, "a" * 24), (body, "b" * 24), (body.replace(b"hello", b"hallo"), "c" * 24))
    ]

    assert first is second
    assert changed != first
    ids = [json.loads(made.whole(SPOKEN).body)["id"] for made in (encoder, other)]
    assert ids == ["chatcmpl-" + "a" * 24, "chatcmpl-" + "b" * 24]
