"""Upstreams that speak Anthropic's wire: chats in its words, and what it has no words for."""

import json
from typing import Any

import pytest

from backends.anthropic_wire import DEFAULT_MAX_TOKENS, AnthropicWire
from backends.contract import (
    BadJob,
    Job,
    Message,
    Sampling,
    Task,
)

WIRE = AnthropicWire()
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def user(text: str) -> Message:
    """Make a message of the user's."""
    return Message("user", text)


def chat(*messages: Message | str, stream: bool = False, **more: Any) -> Job:
    """Make a chat job; a string is a message of the user's."""
    said = tuple([user(each) if isinstance(each, str) else each for each in messages])
    return Job(Task.CHAT, messages=said, stream=stream, **more)


def body_of(job: Job) -> dict[str, Any]:
    """Return the body that asks for a job."""
    body: dict[str, Any] = json.loads(WIRE.request_of(job, "claude-x").body)
    return body


def test_a_chat_in_anthropic_s_words():
    """System texts are lifted out, turns alternate, results of tools come first in the user's turn."""
    call = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"text": "x"}'}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "auto"}}
    body = body_of(
        chat(
            Message("system", "Be brief."),
            "One.",
            "Two.",
            Message("assistant", "", {"tool_calls": [call]}),
            Message("tool", "said", {"tool_call_id": "t1", "name": "f"}),
            Message("developer", "Be kind."),
            Message("user", "What?", {"content": [{"type": "text", "text": "What?"}, picture]}),
            sampling=Sampling(max_tokens=7, temperature=0.5, top_p=0.9, stop=("END",)),
            extra={"top_k": 4, "n": 1},
            stream=True,
        )
    )

    assert body == {
        "model": "claude-x",
        "system": "Be brief.\n\nBe kind.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"text": "x"}}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "said"},
                    {"type": "text", "text": "What?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                ],
            },
        ],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "top_k": 4,
        "stream": True,
    }


def test_a_limit_that_the_client_did_not_name():
    """Anthropic demands one, so there is a default; nothing else is said that the client did not say."""
    body = {"model": "claude-x", "messages": [{"role": "user", "content": "hi"}], "max_tokens": DEFAULT_MAX_TOKENS}
    assert body_of(chat("hi")) == body


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"tools": [FUNCTION]}, {"tools": [{"name": "f", "input_schema": SCHEMA}]}),
        ({"tools": []}, {}),
        (
            {"tools": [CLOCK], "tool_choice": "required"},
            {
                "tools": [{"name": "clock", "input_schema": {"type": "object", "properties": {}}}],
                "tool_choice": {"type": "any"},
            },
        ),
        (
            {"tools": [FUNCTION], "tool_choice": "auto", "parallel_tool_calls": False},
            {
                "tools": [{"name": "f", "input_schema": SCHEMA}],
                "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
            },
        ),
        (
            {"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tools": [{"name": "f", "input_schema": SCHEMA}], "tool_choice": {"type": "tool", "name": "f"}},
        ),
        (
            {"tools": [FUNCTION], "tool_choice": "none", "parallel_tool_calls": False},
            {"tools": [{"name": "f", "input_schema": SCHEMA}], "tool_choice": {"type": "none"}},
        ),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        ),
        ({"response_format": {"type": "text"}, "reasoning_effort": "low"}, {"output_config": {"effort": "low"}}),
        ({"logprobs": False, "frequency_penalty": 0, "modalities": ["text"]}, {}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        ),
    ],
)
def test_fields_in_anthropic_s_words(extra, said):
    """Tools, their choice, the format and the effort have counterparts; what asks for nothing is left out."""
    body = body_of(chat("hi", extra=extra))
    assert {name: value for name, value in body.items() if name not in ("model", "messages", "max_tokens")} == said


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"extra": {"n": 2}}, "n"),
        ({"extra": {"logprobs": True}}, "logprobs"),
        ({"extra": {"logit_bias": {"5": 1}}}, "logit_bias"),
        ({"extra": {"frequency_penalty": 0.5}}, "frequency_penalty"),
        ({"extra": {"presence_penalty": -1}}, "presence_penalty"),
        ({"extra": {"response_format": {"type": "json_object"}}}, "response_format"),
        ({"extra": {"reasoning_effort": "minimal"}}, "reasoning_effort"),
        ({"extra": {"functions": [{"name": "f"}]}}, "functions"),
        ({"extra": {"audio": {"voice": "x"}}}, "audio"),
        ({"extra": {"tools": [{"type": "custom", "custom": {"name": "x"}}]}}, "tools"),
        ({"extra": {"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools"}}}, "tool_choice"),
        ({"extra": {"tools": [FUNCTION], "tool_choice": {"type": "function"}}}, "tool_choice"),
        ({"sampling": Sampling(temperature=1.5)}, "temperature"),
        ({"sampling": Sampling(seed=1)}, "seed"),
        ({"messages": (Message("function", "x", {"name": "f"}),)}, "messages"),
        ({"messages": (Message("user", "x", {"name": "Ann"}),)}, "messages"),
        ({"messages": (Message("user", "", {"content": [{"type": "input_audio", "input_audio": {}}]}),)}, "messages"),
        ({"messages": (Message("user", "", {"content": [{"type": "image_url", "image_url": None}]}),)}, "messages"),
        ({"messages": (Message("user", "", {"content": [{"type": "file", "file": {"file_id": "f"}}]}),)}, "messages"),
        (
            {"messages": (Message("user", "", {"content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}),)},
            "messages",
        ),
        (
            {"messages": (Message("assistant", "", {"tool_calls": [{"id": "1", "type": "custom"}]}),)},
            "messages",
        ),
        (
            {
                "messages": (
                    Message(
                        "assistant", "", {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}]}
                    ),
                )
            },
            "messages",
        ),
        ({"task": Task.EMBED}, "model"),
        ({"task": Task.COMPLETION}, "model"),
    ],
)
def test_what_anthropic_has_no_words_for_is_refused_by_name(changes, param):
    """Nothing that would change the answer is left out in silence."""
    job = Job(**{"task": Task.CHAT, "messages": (user("hi"),), **changes})

    with pytest.raises(BadJob) as caught:
        WIRE.request_of(job, "claude-x")

    assert caught.value.param == param
