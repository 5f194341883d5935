"""OpenAI's wire: what is understood, what is refused and how, what comes back."""

import contextlib
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import BadJob, Finish, Task, Text, Usage
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


def test_content_that_is_more_than_text_is_kept_whole():
    """Parts that are no text stay beside the text, and such a message is never matched by meaning."""
    parts = [{"type": "text", "text": "what is "}, {"type": "image_url", "image_url": {"url": "data:,"}}]

    request, _ = chat(messages=[{"role": "user", "content": parts}])

    assert request.job.messages[0].content == "what is "
    assert request.job.messages[0].extra == {"content": parts}
    assert request.asked is None


@pytest.mark.parametrize("kind", ["input_audio", "file", "image_url"])
def test_pictures_sounds_and_files_are_taken(kind):
    """Every kind of part that OpenAI knows goes on to the backend; so does one that is not known here."""
    for name in (kind, "video_url"):
        request, _ = chat(messages=[{"role": "user", "content": [{"type": name, name: {"data": "x"}}]}])
        assert request.job.messages[0].extra["content"] == [{"type": name, name: {"data": "x"}}]


def test_turns_with_tools_are_read():
    """An assistant's calls without content, and what the tools answered, keep their fields."""
    calls = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
    request, _ = chat(
        messages=[
            {"role": "developer", "content": "be brief"},
            *HELLO,
            {"role": "assistant", "content": None, "tool_calls": calls, "refusal": None},
            {"role": "tool", "content": "4", "tool_call_id": "c1"},
        ]
    )

    *_, called, answered = request.job.messages
    assert (called.content, called.extra) == ("", {"tool_calls": calls})
    assert (answered.content, answered.extra) == ("4", {"tool_call_id": "c1"})
    assert request.asked is None


def test_fields_of_the_answer_reach_the_backend():
    """What shapes the answer is in the job in OpenAI's own words, and makes another request."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    asked = {
        "tools": tools, "tool_choice": "required", "parallel_tool_calls": False, "n": 2, "logprobs": True,
        "top_logprobs": 2, "logit_bias": {"5": -100}, "response_format": {"type": "json_object"},
        "frequency_penalty": 0.5, "reasoning_effort": "low", "top_k": 5,
    }  # fmt: skip

    request, _ = chat(**asked)

    assert request.job.extra == asked
    for name in asked:
        assert chat(**{name: asked[name]})[0].fields != chat()[0].fields


def test_the_same_said_in_two_ways_is_one_request():
    """The older name of the limit, one stop text, and a single part of text are the same question."""
    part = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]

    assert chat(max_tokens=5)[0].fields == chat(max_completion_tokens=5)[0].fields
    assert chat(stop="x")[0].fields == chat(stop=["x"])[0].fields
    assert chat(messages=part)[0].fields == chat()[0].fields


def test_a_request_is_kept_as_it_came():
    """A backend that speaks the same wire gets the client's bytes; what shapes the reply alone tells replies apart."""
    kinds = []
    for more in ({}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}, {"user": "u"}):
        request, _ = chat(**more)
        verbatim = request.job.verbatim
        assert json.loads(verbatim.body) == {"model": "atlas", "messages": HELLO, **more}
        kinds.append(verbatim.kind)

    assert kinds[:2] == ["openai /chat/completions", "openai /chat/completions stream"]
    assert len(set(kinds)) == 4


def test_identity_leaves_out_what_only_shapes_the_reply():
    """Stream, user and metadata are no part of identity; unknown fields are, and go to upstreams untouched."""
    plain, _ = chat()
    dressed, _ = chat(stream=True, user="u", metadata={"a": 1}, stream_options={"include_usage": True})
    unknown, _ = chat(num_ctx=5)

    assert plain.fields == dressed.fields
    assert unknown.fields != plain.fields
    assert unknown.job.extra == {"num_ctx": 5}
    assert dressed.job.extra == {}


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"messages": []}, "messages", "non-empty list"),
        ({"messages": "hi"}, "messages", '"hi"'),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "system, developer, user, assistant"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "is missing"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "non-empty list of parts"),
        ({"messages": [{"role": "user", "content": ["hi"]}]}, "messages[0].content[0]", "'type'"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", "a string"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].image_url",
            "an object",
        ),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content", "is missing"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "the call that is answered"),
        ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls", "a list"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0]", "'id'"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f"}}]}]},
            "messages[0].tool_calls[0].function.arguments",
            "a string of JSON",
        ),
        ({"messages": [3]}, "messages[0]", "3"),
        ({"temperature": "hot"}, "temperature", "from 0 to 2"),
        ({"temperature": True}, "temperature", "true"),
        ({"temperature": 3}, "temperature", "from 0 to 2"),
        ({"max_tokens": -1}, "max_tokens", "from 0"),
        ({"max_tokens": 1.5}, "max_tokens", "1.5"),
        ({"seed": "x"}, "seed", "whole number"),
        ({"stop": [""]}, "stop", "non-empty"),
        ({"stop": ["a"] * 5}, "stop", "at most 4"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "can only be used when `stream` is True"),
        ({"n": 0}, "n", "from 1"),
        ({"n": "2"}, "n", "whole number"),
        ({"tools": {}}, "tools", "a list"),
        ({"tools": ["f"]}, "tools[0]", "'type'"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "'name'"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": "x"}}]},
            "tools[0].function.parameters",
            "JSON Schema",
        ),
        ({"functions": [{}]}, "functions[0]", "'name'"),
        ({"tool_choice": 1}, "tool_choice", "names a tool"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls", "true or false"),
        ({"response_format": "json"}, "response_format", "an object"),
        ({"response_format": {}}, "response_format.type", "json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "'schema'"),
        ({"logprobs": 3}, "logprobs", "true or false"),
        ({"top_logprobs": -1}, "top_logprobs", "from 0"),
        ({"logit_bias": {"5": "much"}}, "logit_bias", "from -100 to 100"),
        ({"logit_bias": []}, "logit_bias", "an object"),
        ({"presence_penalty": 3}, "presence_penalty", "from -2 to 2"),
        ({"user": 5}, "user", "a string"),
        ({"metadata": "x"}, "metadata", "an object"),
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


def test_completion_request_and_reply():
    """A prompt may be text or token ids; the reply is a `text_completion`."""
    request, encoder = decode("/v1/completions", {"model": "m", "prompt": [1, 2]})
    single, _ = decode("/v1/completions", {"model": "m", "prompt": ["one"]})

    assert request.job.prompt == (1, 2)
    assert single.job.prompt == "one"
    assert json.loads(encoder.whole(SPOKEN).body)["choices"][0]["text"] == "Paris."


@pytest.mark.parametrize("prompt", [None, [], [""] * 2049, [1, "a"], 5, [True], [-1], [[]], [["a"]]])
def test_bad_prompts_are_refused(prompt):
    """What is no prompt is refused by name."""
    with pytest.raises(InvalidRequest) as caught:
        decode("/v1/completions", {"model": "m", "prompt": prompt})
    assert str(caught.value.param).startswith("prompt")


@pytest.mark.parametrize(
    ("prompt", "expected"), [(["a", "b"], ("a", "b")), ([[1], [2, 3]], ((1,), (2, 3))), ("", None), ([""], None)]
)
def test_several_prompts_are_one_job(prompt, expected):
    """Several prompts are the job's inputs; a single one is its prompt, be it empty, and however it was written."""
    request, _ = decode("/v1/completions", {"model": "m", "prompt": prompt})

    assert (request.job.inputs or None) == expected
    assert request.job.prompt == (None if expected else "")
    assert decode("/v1/completions", {"model": "m", "prompt": [""]})[0].fields["prompt"] == ""


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


@pytest.mark.parametrize("wrong", [[-1], [2**31], [True], [1.0], ["a"]])
def test_many_token_ids_are_checked_in_few_steps(wrong):
    """Each of them is, and none of them by a step of Python's; one wrong id among them is found."""
    steps = 0

    def count(_frame: object, _event: str, _arg: object) -> object:
        nonlocal steps
        steps += 1
        return count

    sys.settrace(count)
    try:
        request, _ = decode("/v1/embeddings", {"model": "m", "input": [[2**31 - 1] * 5000, [0] * 5000]})
    finally:
        sys.settrace(None)
    assert steps < 5000
    assert len(request.job.inputs) == 2
    with pytest.raises(InvalidRequest, match=r"'input\[1\]'"):
        decode("/v1/embeddings", {"model": "m", "input": [[1], [0] * 9 + wrong]})


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
