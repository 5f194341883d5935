"""Conversations of Anthropic's wire in the canonical form, which is OpenAI's. Knows no other field and no reply.

A block that has no counterpart goes on as it came, for the backend to know or to refuse. What a model thought in
earlier turns, and hints for prompt caches, mean nothing to another model and are left out of the job.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from backends.contract import Message
from gateway.fields import refuse

_ROLES = ("user", "assistant", "system")
_MAX_MESSAGES = 2**14
_THOUGHTS = ("thinking", "redacted_thinking")
_TEXTS = "a string or a non-empty list of text blocks"
_HINT = "cache_control"

Canonical = dict[str, Any]
"""A message as OpenAI's clients write it."""


class Conversation(NamedTuple):
    """The messages for the job, and what identifies them: the same in JSON, with the thoughts of earlier turns."""

    messages: tuple[Message, ...]
    identity: list[Canonical]


def read(body: Mapping[str, Any]) -> Conversation:
    """Read `system` and `messages`. Raises `InvalidRequest`."""
    items = body.get("messages")
    if not isinstance(items, list) or not 0 < len(items) <= _MAX_MESSAGES:
        raise refuse("messages", items, f"a list of 1 to {_MAX_MESSAGES} messages")
    canonical: list[Canonical] = []
    if body.get("system"):
        canonical.append({"role": "system", "content": _system(body["system"], "system")})
    for place, item in enumerate(items):
        canonical += _turn(item, f"messages[{place}]")
    return Conversation(tuple([_message(each) for each in canonical]), canonical)


def _turn(item: object, name: str) -> list[Canonical]:
    """Return the messages that one turn is: OpenAI has the results of tools in messages of their own."""
    if not isinstance(item, dict):
        raise refuse(name, item, "an object with 'role' and 'content'")
    role, content = item.get("role"), item.get("content")
    if role not in _ROLES:
        raise refuse(f"{name}.role", role, f"one of {', '.join(_ROLES)}")
    if role == "system":
        return [{"role": role, "content": _system(content, f"{name}.content")}]
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    blocks = _blocks(content, f"{name}.content")
    return [_assistant(blocks, name)] if role == "assistant" else _user(blocks, name)


def _system(value: object, name: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise refuse(name, value, _TEXTS)
    return "\n\n".join([_text(block, f"{name}[{place}]") for place, block in enumerate(value)])


def _blocks(value: object, name: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        raise refuse(name, value, "a string or a list of blocks")
    for place, block in enumerate(value):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise refuse(f"{name}[{place}]", block, "an object with a 'type'")
    return value


def _assistant(blocks: Sequence[Mapping[str, Any]], name: str) -> Canonical:
    parts: list[Mapping[str, Any]] = []
    calls: list[Canonical] = []
    thoughts: list[Mapping[str, Any]] = []
    for place, block in enumerate(blocks):
        where = f"{name}.content[{place}]"
        if block["type"] == "tool_use":
            calls.append(_call(block, where))
        elif block["type"] in _THOUGHTS:
            thoughts.append(block)
        else:
            parts.append(_part(block, where))
    message: Canonical = {"role": "assistant", "content": _content(parts) if parts or not calls else None}
    if calls:
        message["tool_calls"] = calls
    if thoughts:
        message["thinking_blocks"] = thoughts
    return message


def _user(blocks: Sequence[Mapping[str, Any]], name: str) -> list[Canonical]:
    messages: list[Canonical] = []
    parts: list[Mapping[str, Any]] = []
    for place, block in enumerate(blocks):
        where = f"{name}.content[{place}]"
        if block["type"] != "tool_result":
            parts.append(_part(block, where))
            continue
        if parts:
            messages.append({"role": "user", "content": _content(parts)})
            parts = []
        messages.append(_result(block, where))
    if parts or not messages:
        messages.append({"role": "user", "content": _content(parts)})
    return messages


def _call(block: Mapping[str, Any], name: str) -> Canonical:
    for field in ("id", "name"):
        if not isinstance(block.get(field), str):
            raise refuse(f"{name}.{field}", block.get(field), "a string")
    if not isinstance(block.get("input"), dict):
        raise refuse(f"{name}.input", block.get("input"), "an object")
    function = {"name": block["name"], "arguments": orjson.dumps(block["input"]).decode()}
    return {"id": block["id"], "type": "function", "function": function}


def _result(block: Mapping[str, Any], name: str) -> Canonical:
    """Return the message of a tool's result; that it is an error has no other place there than the text."""
    if not isinstance(block.get("tool_use_id"), str):
        raise refuse(f"{name}.tool_use_id", block.get("tool_use_id"), "a string")
    value = block.get("content")
    if value is None or isinstance(value, str):
        content: str | list[Any] = value or ""
    else:
        blocks = _blocks(value, f"{name}.content")
        content = _content([_part(each, f"{name}.content[{place}]") for place, each in enumerate(blocks)])
    if block.get("is_error"):
        content = f"Error: {content}" if isinstance(content, str) else [_text_part("Error:"), *content]
    return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": content}


def _part(block: Mapping[str, Any], name: str) -> Canonical:
    match block["type"]:
        case "text":
            return _text_part(_text(block, name))
        case "image":
            return _image(block, name)
        case "document":
            return _document(block, name)
    return {key: value for key, value in block.items() if key != _HINT}


def _text(block: object, name: str) -> str:
    if not isinstance(block, dict) or block.get("type") != "text" or not isinstance(block.get("text"), str):
        raise refuse(name, block, '{"type": "text", "text": "…"}')
    text: str = block["text"]
    return text


def _text_part(text: str) -> Canonical:
    return {"type": "text", "text": text}


def _image(block: Mapping[str, Any], name: str) -> Canonical:
    source = _source(block, name)
    if source["type"] == "base64":
        return {"type": "image_url", "image_url": {"url": _data_url(source, name)}}
    if source["type"] == "url" and isinstance(source.get("url"), str):
        return {"type": "image_url", "image_url": {"url": source["url"]}}
    return {"type": "image", "source": source}


def _document(block: Mapping[str, Any], name: str) -> Canonical:
    source = _source(block, name)
    said = {key: block[key] for key in ("title", "context") if isinstance(block.get(key), str)}
    cited = isinstance(block.get("citations"), dict) and block["citations"].get("enabled")
    if not cited and source["type"] == "text" and isinstance(source.get("data"), str):
        return _text_part("\n\n".join([*said.values(), source["data"]]))
    if not cited and source["type"] == "base64" and "context" not in said:
        file = {"filename": said.get("title", "document.pdf"), "file_data": _data_url(source, name)}
        return {"type": "file", "file": file}
    return {key: value for key, value in block.items() if key != _HINT}


def _source(block: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    source = block.get("source")
    if not isinstance(source, dict) or not isinstance(source.get("type"), str):
        raise refuse(f"{name}.source", source, "an object with a 'type'")
    return source


def _data_url(source: Mapping[str, Any], name: str) -> str:
    for field in ("media_type", "data"):
        if not isinstance(source.get(field), str):
            raise refuse(f"{name}.source.{field}", source.get(field), "a string")
    return f"data:{source['media_type']};base64,{source['data']}"


def _content(parts: Sequence[Mapping[str, Any]]) -> str | list[Any]:
    """Write a content of one text as that text, as Anthropic's API reads it the other way round."""
    if not parts:
        return ""
    if len(parts) == 1 and parts[0]["type"] == "text":
        text: str = parts[0]["text"]
        return text
    return list(parts)


def _message(canonical: Canonical) -> Message:
    content = canonical["content"]
    extra: dict[str, object] = {name: canonical[name] for name in ("tool_calls", "tool_call_id") if name in canonical}
    if isinstance(content, str):
        return Message(canonical["role"], content, extra)
    texts = [part["text"] if part["type"] == "text" else None for part in content or ()]
    if None in texts:
        extra["content"] = content
    return Message(canonical["role"], "".join([text or "" for text in texts]), extra)
