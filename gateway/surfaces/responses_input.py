"""Reads the input of OpenAI's Responses as the messages of a chat. Knows no reply.

Earlier thoughts (`reasoning` items) are left out: a chat has no place for them, and models do without. What else has no
counterpart in a chat is refused by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.errors import InvalidRequest
from gateway.fields import cut, refuse

_NAME = "input"
_MAX_ITEMS = 2**14
_ROLES = ("user", "assistant", "system", "developer")
_KINDS = ("message", "function_call", "function_call_output", "reasoning")


def messages_of(value: object, instructions: str | None) -> list[dict[str, Any]]:
    """Return the messages of OpenAI's chat that an input stands for; the instructions come first."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(value, str):
        return [*messages, {"role": "user", "content": value}]
    if not isinstance(value, list) or not 0 < len(value) <= _MAX_ITEMS:
        raise refuse(_NAME, value, f"a string or a non-empty list of items, at most {_MAX_ITEMS}")
    for place, item in enumerate(value):
        _add(item, f"{_NAME}[{place}]", messages)
    if not messages:
        raise refuse(_NAME, value, "a list with a message")
    return messages


def _add(item: object, name: str, messages: list[dict[str, Any]]) -> None:
    if not isinstance(item, dict):
        raise refuse(name, item, "an object")
    kind = item.get("type", "message")
    match kind:
        case "message":
            if (role := item.get("role")) not in _ROLES:
                raise refuse(f"{name}.role", role, f"one of {', '.join(_ROLES)}")
            messages.append({"role": role, "content": _content(item.get("content"), f"{name}.content")})
        case "function_call":
            _add_call(item, name, messages)
        case "function_call_output":
            content = _content(item.get("output"), f"{name}.output")
            messages.append({"role": "tool", "tool_call_id": _string(item, "call_id", name), "content": content})
        case "reasoning":
            return
        case "item_reference":
            raise InvalidRequest("nothing is stored here: give the item itself instead of a reference", f"{name}.type")
        case _:
            raise refuse(f"{name}.type", kind, f"one of {', '.join(_KINDS)}")


def _add_call(item: Mapping[str, Any], name: str, messages: list[dict[str, Any]]) -> None:
    """Add a call to the assistant's turn that it belongs to: calls in a row are one turn's."""
    function = {"name": _string(item, "name", name), "arguments": _string(item, "arguments", name)}
    call = {"id": _string(item, "call_id", name), "type": "function", "function": function}
    if messages and messages[-1]["role"] == "assistant":
        messages[-1].setdefault("tool_calls", []).append(call)
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _string(item: Mapping[str, Any], key: str, name: str) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise refuse(f"{name}.{key}", value, "a string")
    return value


def _content(value: object, name: str) -> str | list[dict[str, Any]]:
    """Return a content in chat's shape: a text where all of it is."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise refuse(name, value, "a string or a non-empty list of parts")
    parts = [_part(part, f"{name}[{place}]") for place, part in enumerate(value)]
    return _joined(parts) if all(part["type"] == "text" for part in parts) else parts


def _joined(parts: Sequence[Mapping[str, Any]]) -> str:
    return "".join([part["text"] for part in parts])


def _part(part: object, name: str) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise refuse(name, part, "an object with a 'type'")
    kind = part.get("type")
    match kind:
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": _string(part, "text", name)}
        case "refusal":
            return {"type": "text", "text": _string(part, "refusal", name)}
        case "input_image" if isinstance(part.get("image_url"), str):
            detail = {"detail": part["detail"]} if part.get("detail") else {}
            return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
        case "input_file" if isinstance(part.get("file_data"), str):
            file = {key: part[key] for key in ("file_data", "filename") if part.get(key)}
            return {"type": "file", "file": file}
        case "input_audio" if isinstance(part.get("input_audio"), dict):
            return {"type": "input_audio", "input_audio": part["input_audio"]}
        case "input_image" | "input_file" | "input_audio":
            raise InvalidRequest(f"'{name}' must hold its data itself: nothing is stored here", name)
    raise refuse(f"{name}.type", kind if kind is None else cut(str(kind)), "input_text, input_image or input_file")
