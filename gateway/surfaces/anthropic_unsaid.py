"""What blocks of Anthropic's wire say that the canonical form has no place for.

It reaches an upstream of the same wire, which may answer otherwise for it. Knows what has been checked before.
"""

from collections.abc import Iterator, Mapping
from typing import Any

_HINT = "cache_control"
# What the canonical form says of each type of block; a type that is not here goes on as it came.
_BLOCKS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"type", "text", _HINT}),
    "image": frozenset({"type", "source", _HINT}),
    "document": frozenset({"type", "source", "title", "context", "citations", _HINT}),
    "tool_use": frozenset({"type", "id", "name", "input", _HINT}),
    "tool_result": frozenset({"type", "tool_use_id", "content", "is_error", _HINT}),
}
_SOURCES: Mapping[str, frozenset[str]] = {
    "base64": frozenset({"type", "media_type", "data"}),
    "url": frozenset({"type", "url"}),
    "text": frozenset({"type", "media_type", "data"}),
}
_MESSAGE = frozenset({"role", "content"})
_CHOICE = frozenset({"type", "name", "disable_parallel_tool_use"})
_FORMAT = frozenset({"type", "schema"})

Unsaid = list[tuple[str, Mapping[str, Any]]]
"""Fields with the places where they are."""


def unsaid(body: Mapping[str, Any]) -> Unsaid:
    """Return what is left unsaid of a request that has been read."""
    found = [
        ("tool_choice", _more(body.get("tool_choice"), _CHOICE)),
        ("format", _more((body.get("output_config") or {}).get("format"), _FORMAT)),
        *[
            (f"tools.{place}", {"parameters": tool["parameters"]})
            for place, tool in enumerate(body.get("tools") or ())
            if "parameters" in tool
        ],
        *_of_content(body.get("system"), "system"),
    ]
    for place, message in enumerate(body["messages"]):
        found.append((str(place), _more(message, _MESSAGE)))
        found += _of_content(message.get("content"), str(place))
    return [(where, more) for where, more in found if more]


def _of_content(content: object, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(content, list):
        return
    for place, block in enumerate(content):
        here = f"{where}.{place}"
        if block["type"] in _BLOCKS:
            yield here, _more(block, _BLOCKS[block["type"]])
        if block["type"] in ("image", "document") and block["source"]["type"] in _SOURCES:
            yield f"{here}.source", _more(block["source"], _SOURCES[block["source"]["type"]])
        if block["type"] == "tool_result":
            yield from _of_content(block.get("content"), here)


def _more(value: object, known: frozenset[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {}
    return {name: more for name, more in value.items() if name not in known and more is not None}
