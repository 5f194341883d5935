"""What a request wants its answer to be like, its tools and its format of JSON, held against what came. Pure.

Clients write the schemas, so each is bounded before it is used: in its text, in what its references expand to, and by
patterns that take time in proportion to the text. What is beyond the bounds cannot be checked, and that is said.
Source of the shapes: OpenAI's `tools`, `tool_choice` and `response_format`; other wires are put into those.
"""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jsonschema_rs
import orjson

_UNCHECKED = "schema not checked"
_MOST_SCHEMA_BYTES = 64 * 2**10
# Parts of a schema that one value may have to be held against, and that times the bytes of the text.
_MOST_PARTS = 2**12
_MOST_WORK = 2**24
_SCHEMAS_KEPT = 256

_LINEAR = jsonschema_rs.RegexOptions()


def wrong_call(name: str, arguments: str, wanted: Mapping[str, object]) -> str | None:
    """Return what is wrong with the call of a tool, or None: it was offered, and its arguments are as it says."""
    offered = _offered(wanted.get("tools"))
    if name not in offered:
        return "tool not offered"
    trouble = _mismatch(arguments, offered[name])
    return None if trouble is None else f"arguments: {trouble}"


def wrong_choice(names: Collection[str], wanted: Mapping[str, object]) -> str | None:
    """Return what is wrong with which tools were called, or None: as many, and those, that the request asked for."""
    match wanted.get("tool_choice"):
        case "none":
            return "call not wanted" if names else None
        case "required":
            return None if names else "no call"
        case {"type": "function" | "custom" as kind, **choice}:
            chosen = choice.get(kind)
            name = chosen.get("name") if isinstance(chosen, Mapping) else None
            return None if set(names) == {name} else "another tool was chosen"
    return None


def wrong_text(text: str, wanted: Mapping[str, object]) -> str | None:
    """Return what is wrong with a text that was to be JSON, or None."""
    form = wanted.get("response_format")
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind not in ("json_object", "json_schema"):
        return None
    assert isinstance(form, Mapping)
    described = form.get("json_schema") if kind == "json_schema" else None
    schema = described.get("schema") if isinstance(described, Mapping) else None
    trouble = _mismatch(text, {"type": "object"} if schema is None and kind == "json_object" else schema)
    return None if trouble is None else f"{kind}: {trouble}"


def _offered(tools: object) -> dict[str, object]:
    """Return the schema of each tool by its name; None where it has none."""
    offered: dict[str, object] = {}
    for tool in tools if isinstance(tools, list | tuple) else ():
        described = tool.get("function") or tool.get("custom") or tool if isinstance(tool, Mapping) else {}
        if isinstance(described, Mapping) and isinstance(name := described.get("name"), str):
            offered[name] = described.get("parameters")
    return offered


def _mismatch(text: str, schema: object) -> str | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return "no JSON"
    if schema is None:
        return None
    written = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
    if len(written) > _MOST_SCHEMA_BYTES:
        return _UNCHECKED
    is_valid, parts = _validator(written)
    if is_valid is None or parts * len(text) > _MOST_WORK:
        return _UNCHECKED
    return None if is_valid(value) else "not as its schema says"


@functools.lru_cache(_SCHEMAS_KEPT)
def _validator(written: bytes) -> tuple[Callable[[Any], bool] | None, int]:
    """Return what checks values against a schema, or None where it cannot be; and how many parts the schema has."""
    schema = orjson.loads(written)
    try:
        parts = _parts(schema, schema, {}, ())
        if parts > _MOST_PARTS:
            return None, parts
        return jsonschema_rs.validator_for(schema, pattern_options=_LINEAR, retriever=_retrieve_nothing).is_valid, parts
    except (ValueError, RecursionError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError):
        return None, 0


def _retrieve_nothing(uri: str) -> Any:
    """Refuse to fetch a schema from elsewhere: a client does not choose where this machine connects to."""
    raise ValueError(f"{uri} is not part of the schema")


def _parts(value: object, root: object, known: dict[str, int], within: tuple[str, ...]) -> int:
    """Count what a schema consists of, with each reference expanded. Raises `ValueError` where one has no end."""
    if isinstance(value, list):
        return sum([_parts(item, root, known, within) for item in value])
    if not isinstance(value, dict):
        return 1
    reference = value.get("$ref")
    rest = sum(
        [_parts(item, root, known, within) for name, item in value.items() if name not in ("$defs", "definitions")]
    )
    if "$dynamicRef" in value or "$recursiveRef" in value or (reference is not None and not isinstance(reference, str)):
        raise ValueError("a reference that cannot be followed here")
    if not isinstance(reference, str):
        return 1 + rest
    if reference in within:
        raise ValueError(f"{reference} refers to itself")
    if reference not in known:
        known[reference] = _parts(_at(root, reference), root, known, (*within, reference))
    return 1 + rest + known[reference]


def _at(root: object, reference: str) -> object:
    """Return what a reference within the same schema points to (RFC 6901). Raises `ValueError`."""
    if reference != "#" and not reference.startswith("#/"):
        raise ValueError(f"{reference} is not part of the schema")
    found = root
    for step in reference.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            raise ValueError(f"{reference} is not part of the schema")
        found = found[name]
    return found
