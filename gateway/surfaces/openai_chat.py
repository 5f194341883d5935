"""Reads chat requests of OpenAI's wire. Knows no reply.

Only what is malformed is refused here; what a model cannot do is for its backend to say.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backends.contract import Job, Message, Task
from gateway.fields import flag, mapping, refuse, said, text
from gateway.request import Request
from gateway.surfaces import openai_fields as fields
from gateway.surfaces.openai_reply import ChatEncoder, Wanted
from gateway.surfaces.roles import CHAT
from gateway.surfaces.wire import Encoder

Decoded = tuple[Request, Callable[[str], Encoder]]
"""A request, and what makes the encoder of its reply from the reply's id."""

MAX_MESSAGES = 2**14
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
# An assistant that says nothing must do or have done something.
_INSTEAD_OF_CONTENT = ("tool_calls", "function_call", "refusal", "audio", "reasoning_content", "reasoning")

_CHECKS = {
    **fields.CHECKS,
    "tools": fields.tools,
    "tool_choice": fields.choice,
    "parallel_tool_calls": flag,
    "functions": fields.functions,
    "function_call": fields.choice,
    "response_format": fields.response_format,
    "logprobs": flag,
    "top_logprobs": fields.top_logprobs,
    "reasoning_effort": said,
    "verbosity": said,
    "modalities": fields.listed,
    "audio": mapping,
    "prediction": mapping,
    "web_search_options": mapping,
}


def decode(body: Mapping[str, Any], raw: bytes) -> Decoded:
    """Read a chat request."""
    fields.check(body, _CHECKS)
    messages = read_messages(body.get("messages"))
    streamed = flag(body, "stream")
    verbatim = fields.verbatim("/chat/completions", raw, body, CHAT, streamed=streamed)
    job = Job(
        Task.CHAT,
        messages=messages,
        sampling=fields.sampling(body),
        extra=fields.others(body, CHAT),
        verbatim=verbatim,
        stream=streamed,
    )
    identity = fields.identity(body, CHAT)
    if not all(type(message["content"]) is str for message in body["messages"] if "content" in message):
        identity["messages"] = [_plain(message) for message in body["messages"]]
    request = Request(text(body, "model"), job, identity, asked_of(messages))
    wanted = Wanted(verbatim.kind, streamed, fields.include_usage(body), flag(body, "logprobs"))
    return request, functools.partial(ChatEncoder, wanted)


def asked_of(messages: Sequence[Message]) -> str | None:
    """Return the last message's text where a user wrote it and it is all that the message has."""
    last = messages[-1]
    return last.content if last.role == "user" and "content" not in last.extra else None


def read_messages(value: object) -> tuple[Message, ...]:
    """Read a conversation."""
    if not isinstance(value, list) or not 0 < len(value) <= MAX_MESSAGES:
        raise refuse("messages", value, f"a non-empty list of messages, at most {MAX_MESSAGES}")
    parts = sum(
        [len(item["content"]) for item in value if isinstance(item, dict) and type(item.get("content")) is list]
    )
    if parts > MAX_MESSAGES:
        raise refuse("messages", parts, f"messages of at most {MAX_MESSAGES} parts together")
    return tuple([_message(item, f"messages[{place}]") for place, item in enumerate(value)])


def _message(item: object, name: str) -> Message:
    if not isinstance(item, dict):
        raise refuse(name, item, "an object with 'role' and 'content'")
    role = item.get("role")
    if role not in _ROLES:
        raise refuse(f"{name}.role", role, f"one of {', '.join(_ROLES)}")
    content = item.get("content")
    if type(content) is str and len(item) == 2 and role != "tool":  # noqa: PLR2004 - nothing but role and content
        return Message(role, content)
    extra = {key: value for key, value in item.items() if key not in ("role", "content") and value is not None}
    _check_calls(role, item, name)
    if content is None and role == "assistant" and not extra.keys().isdisjoint(_INSTEAD_OF_CONTENT):
        return Message(role, "", extra)
    if isinstance(content, str):
        return Message(role, content, extra)
    if not isinstance(content, list) or not content:
        raise refuse(f"{name}.content", content, "a string or a non-empty list of parts")
    texts = [_part(part, f"{name}.content[{place}]") for place, part in enumerate(content)]
    if None in texts:
        extra["content"] = content
    return Message(role, "".join([text or "" for text in texts]), extra)


def _part(part: object, name: str) -> str | None:
    """Return the text of a part, or None for one that is more; kinds that are not known are the backend's to know."""
    if not isinstance(part, dict) or not isinstance(kind := part.get("type"), str):
        raise refuse(name, part, "an object with a 'type'")
    value = part.get(kind)
    if kind == "text":
        if not isinstance(value, str):
            raise refuse(f"{name}.text", value, "a string")
        return value
    if kind in ("image_url", "input_audio", "file") and not isinstance(value, dict):
        raise refuse(f"{name}.{kind}", value, "an object")
    return None


def _check_calls(role: str, item: Mapping[str, Any], name: str) -> None:
    if role == "tool" and not isinstance(item.get("tool_call_id"), str):
        raise refuse(f"{name}.tool_call_id", item.get("tool_call_id"), "the id of the call that is answered")
    calls = item.get("tool_calls")
    if not isinstance(calls, list | None):
        raise refuse(f"{name}.tool_calls", calls, "a list of calls")
    for place, call in enumerate(calls or ()):
        _check_call(call, f"{name}.tool_calls[{place}]")


def _check_call(call: object, name: str) -> None:
    if not isinstance(call, dict) or not isinstance(call.get("id"), str):
        raise refuse(name, call, "an object with an 'id'")
    if call.get("type", "function") != "function":
        return
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise refuse(f"{name}.function", function, "an object with 'name' and 'arguments'")
    if not isinstance(function.get("arguments"), str):
        raise refuse(f"{name}.function.arguments", function.get("arguments"), "a string of JSON")


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """Write a content of one text part as that text, since it is the same."""
    content = message.get("content")
    if isinstance(content, list) and len(content) == 1 and content[0].keys() == {"type", "text"}:
        return {**message, "content": content[0]["text"]}
    return message
