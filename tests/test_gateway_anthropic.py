"""Anthropic's wire: what is understood of a request, and that its questions are OpenAI's questions."""

import json
from typing import Any

import pytest

from backends.contract import Task
from gateway.caching.identity import compatibility, fingerprint
from gateway.request import Request
from gateway.surfaces.anthropic import AnthropicSurface
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.wire import Call

SURFACE = AnthropicSurface()
ID = "0123456789abcdef01234567"
HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "Tells the weather.", "input_schema": SCHEMA}
WEATHER_AS_FUNCTION = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA},
}


def decode(body: object, query: str = "", **headers: str):
    """Decode a body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return SURFACE.decode(Call("POST", "/v1/messages", names, raw, None, query), ID)


def asked(**fields: object) -> Request:
    """Decode a request with these fields over a minimal one."""
    return decode({"model": "atlas", "max_tokens": 9, "messages": HELLO, **fields})[0]


def openai_asked(**fields: object) -> Request:
    """Decode a chat request over OpenAI's wire."""
    body = json.dumps({"model": "atlas", "max_tokens": 9, "messages": HELLO, **fields}).encode()
    return OpenAISurface().decode(Call("POST", "/v1/chat/completions", {}, body, None), ID)[0]


def blocks(*content: dict[str, Any], role: str = "user") -> list[dict[str, Any]]:
    """Make a conversation of one turn of blocks."""
    return [{"role": role, "content": list(content)}]


def text_block(text: str) -> dict[str, Any]:
    """Make a block."""
    return {"type": "text", "text": text}


def test_request_becomes_a_job():
    """Every sampling field reaches the job, the system text is its first message, and the last text may vary."""
    request = asked(system="Be brief.", temperature=0.5, top_p=0.9, stop_sequences=["\n"], stream=True, top_k=4)

    job = request.job
    assert job.task is Task.CHAT
    assert [(message.role, message.content) for message in job.messages] == [("system", "Be brief."), ("user", "hello")]
    assert (job.sampling.max_tokens, job.sampling.temperature, job.sampling.top_p) == (9, 0.5, 0.9)
    assert job.sampling.stop == ("\n",)
    assert job.extra == {"top_k": 4}
    assert job.stream
    assert request.asked == "hello"


def test_same_question_over_both_wires_has_one_fingerprint():
    """System text, question, limits and tools identify a question, whatever wire it came over."""
    ours = asked(
        system=[text_block("Be brief.")],
        messages=blocks(text_block("hello")),
        temperature=0,
        top_p=0.5,
        stop_sequences=["END"],
        stream=True,
        metadata={"user_id": "u"},
        tools=[WEATHER],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
    )
    theirs = openai_asked(
        messages=[{"role": "system", "content": "Be brief."}, *HELLO],
        temperature=0,
        top_p=0.5,
        stop="END",
        user="someone",
        tools=[WEATHER_AS_FUNCTION],
        tool_choice="required",
        parallel_tool_calls=False,
    )

    assert fingerprint(ours) == fingerprint(theirs)
    assert compatibility(ours) == compatibility(theirs)
    assert ours.job.messages == theirs.job.messages
    assert ours.job.extra == theirs.job.extra


def test_round_of_a_tool_is_the_same_over_both_wires():
    """Calls, and their results in turns of the user's, become OpenAI's messages, in the order in which they stand."""
    ours = asked(
        messages=[
            *HELLO,
            {
                "role": "assistant",
                "content": [
                    text_block("I look."),
                    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
                    {"type": "tool_use", "id": "t2", "name": "clock", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "rain"},
                    {"type": "tool_result", "tool_use_id": "t2", "content": [text_block("broken")], "is_error": True},
                    text_block("And now?"),
                ],
            },
        ],
    )
    calls = [
        {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
        {"id": "t2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
    ]
    theirs = openai_asked(
        messages=[
            *HELLO,
            {"role": "assistant", "content": "I look.", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "t1", "content": "rain"},
            {"role": "tool", "tool_call_id": "t2", "content": "Error: broken"},
            {"role": "user", "content": "And now?"},
        ],
    )

    assert ours.job.messages == theirs.job.messages
    assert fingerprint(ours) == fingerprint(theirs)
    assert ours.asked == "And now?"


def test_question_that_ends_with_a_tool_or_a_picture_has_nothing_to_vary():
    """Only a last message that is the user's text alone may be matched by meaning."""
    picture = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "rain"}

    assert asked(messages=[*HELLO, *blocks(call, role="assistant"), *blocks(result)]).asked is None
    assert asked(messages=blocks(text_block("what?"), picture)).asked is None
    assert asked(messages=[*HELLO, {"role": "assistant", "content": "It is"}]).asked is None


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        ),
        (
            {"type": "image", "source": {"type": "url", "url": "https://e.org/a.png"}, "cache_control": {}},
            {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}},
        ),
        (
            {"type": "image", "source": {"type": "file", "file_id": "f1"}},
            {"type": "image", "source": {"type": "file", "file_id": "f1"}},
        ),
        (
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}},
            {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
        ),
        (
            {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
            text_block("T\n\nwords"),
        ),
        (
            {"type": "search_result", "source": "s", "title": "t", "content": [], "cache_control": {}},
            {"type": "search_result", "source": "s", "title": "t", "content": []},
        ),
    ],
)
def test_parts_that_are_more_than_text(block, part):
    """A block becomes OpenAI's part where there is one, and else goes on as it came, without hints for caches."""
    message = asked(messages=blocks(block, text_block("What is it?"))).job.messages[0]

    if part["type"] == "text":
        assert message.content == part["text"] + "What is it?"
        assert not message.extra
    else:
        assert message.extra["content"] == [part, text_block("What is it?")]
        assert message.content == "What is it?"


def test_thoughts_of_earlier_turns_are_identity_and_go_to_no_other_model():
    """What was thought before stays out of the job's messages; a question with other thoughts is another question."""
    said = text_block("Oslo.")
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    sealed = {"type": "redacted_thinking", "data": "x"}
    with_thoughts = asked(messages=[*HELLO, *blocks(thought, sealed, said, role="assistant"), *HELLO])
    without = asked(messages=[*HELLO, *blocks(said, role="assistant"), *HELLO])

    assert with_thoughts.job.messages == without.job.messages
    assert with_thoughts.fields != without.fields


def test_several_system_blocks_are_one_text():
    """Blocks of a system prompt are parted by blank lines, and a system turn amid the others stays where it is."""
    request = asked(
        system=[text_block("One."), {**text_block("Two."), "cache_control": {"type": "ephemeral"}}],
        messages=[*HELLO, {"role": "system", "content": "Three."}, *HELLO],
    )

    assert [message.content for message in request.job.messages] == ["One.\n\nTwo.", "hello", "Three.", "hello"]


def test_what_has_another_name_in_openai_s_words():
    """Schema and effort of the output, and a named tool, come in OpenAI's words; thinking keeps its own."""
    schema = {"type": "object"}
    extra = asked(
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": schema}, "new": 1},
        tools=[WEATHER, {"type": "web_search_20250305", "name": "web_search"}],
        tool_choice={"type": "tool", "name": "weather"},
        thinking={"type": "enabled", "budget_tokens": 2000},
        container="c1",
    ).job.extra

    assert extra == {
        "output_config": {"new": 1},
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "output", "schema": schema, "strict": True}},
        "tools": [WEATHER_AS_FUNCTION, {"type": "web_search_20250305", "name": "web_search"}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "container": "c1",
    }
    assert "thinking" not in asked(thinking={"type": "disabled"}).job.extra
    assert asked(thinking={"type": "disabled"}).fields != asked().fields


def test_request_travels_as_it_came():
    """The job carries the client's own bytes, its version and its betas, and never its key."""
    body = b'{"model": "m" , "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], "stream": true}'
    request, encoder = decode(
        body, query="beta=true", anthropic_version="2026-10-21", anthropic_beta="b1", x_api_key="secret", host="h"
    )

    verbatim = request.job.verbatim
    assert verbatim is not None
    assert (verbatim.wire, verbatim.path, verbatim.body) == ("anthropic", "/messages?beta=true", body)
    assert verbatim.headers == {"anthropic-version": "2026-10-21", "anthropic-beta": "b1"}
    assert verbatim.streamed
    assert encoder.frames is not None
    assert request.beside == {"anthropic-beta": "b1", "query": "beta=true"}


def test_a_version_shapes_the_reply_and_is_no_other_question():
    """Clients of two versions share an answer, and neither is given the other's bytes."""
    body = b'{"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}'
    (old, _), (new, _) = decode(body, anthropic_version="2023-06-01"), decode(body, anthropic_version="2026-10-21")
    assert fingerprint(old) == fingerprint(new)
    assert old.job.verbatim is not None
    assert new.job.verbatim is not None
    assert old.job.verbatim.kind != new.job.verbatim.kind


def test_the_same_bytes_are_decoded_once_unless_their_headers_differ():
    """A repeat shares the request of the first; the betas of a request are part of it."""
    body = {"model": "m", "max_tokens": 5, "messages": HELLO}

    assert decode(body)[0] is decode(body)[0]
    assert fingerprint(decode(body, anthropic_beta="x")[0]) != fingerprint(decode(body)[0])
