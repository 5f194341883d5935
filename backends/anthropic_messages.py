"""Conversations of the canonical form in Anthropic's words: a system text, then turns that alternate. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from backends.contract import BadJob, Message

Block = Mapping[str, Any]

_SYSTEM = ("system", "developer")
_DATA_URL = "data:"


def conversation(messages: Sequence[Message]) -> dict[str, Any]:
    """Return `system`, where there is one, and `messages`. Raises `BadJob` for what Anthropic has no words for."""
    system: list[str] = []
    turns: list[tuple[str, list[Block]]] = []
    for message in messages:
        if message.role in _SYSTEM:
            system.append(message.content)
            continue
        role = "assistant" if message.role == "assistant" else "user"
        try:
            blocks = list(_blocks(message))
        except (KeyError, TypeError, AttributeError) as error:
            raise BadJob(
                f"a message of the role {message.role} lacks what its kind has: {error!r}", "messages"
            ) from error
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, blocks))
    said: dict[str, Any] = {"system": "\n\n".join(system)} if system else {}
    return {**said, "messages": [{"role": role, "content": _content(blocks)} for role, blocks in turns]}


def _blocks(message: Message) -> Iterator[Block]:
    if message.role == "function":
        raise BadJob("an upstream of Anthropic's wire has no messages of the role 'function'", "messages")
    if message.role == "tool":
        content = _content([*_said(message)])
        yield {"type": "tool_result", "tool_use_id": message.extra.get("tool_call_id"), "content": content}
        return
    if message.extra.get("name"):
        raise BadJob("an upstream of Anthropic's wire knows no names of participants", "messages")
    thoughts = message.extra.get("thinking_blocks")
    if isinstance(thoughts, list):
        if not all(isinstance(thought, dict) for thought in thoughts):
            raise BadJob("'thinking_blocks' of a message must be a list of objects", "messages")
        yield from thoughts
    yield from _said(message)
    calls = message.extra.get("tool_calls")
    if isinstance(calls, list):
        yield from (_call(call) for call in calls)


def _said(message: Message) -> Iterator[Block]:
    parts = message.extra.get("content")
    if isinstance(parts, list):
        yield from (_part(part) for part in parts)
    elif message.content:
        yield {"type": "text", "text": message.content}


def _call(call: Mapping[str, Any]) -> Block:
    function = call.get("function")
    if not isinstance(function, dict):
        raise BadJob(f"an upstream of Anthropic's wire has no calls of type {call.get('type')!r}", "messages")
    try:
        arguments = orjson.loads(function["arguments"] or "{}")
    except orjson.JSONDecodeError as error:
        raise BadJob(f"the arguments of the call of {function['name']!r} are no JSON: {error}", "messages") from error
    if not isinstance(arguments, dict):
        raise BadJob(f"the arguments of the call of {function['name']!r} must be a JSON object", "messages")
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}


def _part(part: Mapping[str, Any]) -> Block:
    """Return a part as a block; what OpenAI has no word for is in Anthropic's already."""
    match part.get("type"):
        case "image_url":
            return {"type": "image", "source": _source(str(part["image_url"].get("url")))}
        case "file":
            return _document(part["file"])
        case "refusal":
            return {"type": "text", "text": part["refusal"]}
        case "input_audio":
            raise BadJob("an upstream of Anthropic's wire does not listen to 'input_audio'", "messages")
    return part


def _document(file: Mapping[str, Any]) -> Block:
    data = file.get("file_data")
    if not isinstance(data, str) or not data.startswith(_DATA_URL):
        raise BadJob("an upstream of Anthropic's wire takes a file as 'file_data', a data: URL", "messages")
    named = {"title": file["filename"]} if file.get("filename") else {}
    return {"type": "document", "source": _source(data), **named}


def _source(url: str) -> dict[str, str]:
    if not url.startswith(_DATA_URL):
        return {"type": "url", "url": url}
    media_type, mark, data = url.removeprefix(_DATA_URL).partition(";base64,")
    if not mark:
        raise BadJob("a data: URL must be in base64: 'data:image/png;base64,…'", "messages")
    return {"type": "base64", "media_type": media_type, "data": data}


def _content(blocks: Sequence[Block]) -> str | list[Block]:
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        text: str = blocks[0]["text"]
        return text
    return list(blocks)
