"""Typed access to the fields of a JSON body; each refusal names the field, its value and what is allowed.

Knows no wire.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from gateway.errors import InvalidRequest
from gateway.json_marks import Marks, marks_of
from gateway.names_once import check_names_once

_SHOWN_CHARS = 80
# orjson reads about a thousand levels of nesting and writes about 250: what cannot be written again is not taken.
_WRITABLE_LEVELS = 250
# Each object, string or number costs far more to make than its few bytes to send, and everybody waits meanwhile.
_MOST_CONTAINERS = 2**17
_MOST_STRINGS = 2**20
_MOST_VALUES = 2**22
_PIECE_BYTES = 2**18


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object. Raises `InvalidRequest` with the place of the first error."""
    marks = marks_of(body)
    check_counts(body, marks)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    if marks.brackets + marks.braces > _WRITABLE_LEVELS:
        _check_nesting(value)
    if type(value) is not dict:
        raise InvalidRequest(f"the body must be a JSON object, got {shown(value)}")
    check_names_once(body, value, marks)
    return value


def check_counts(body: bytes, marks: Marks) -> None:
    """Raise `InvalidRequest` for more objects and lists, strings or values than are read; what is text is none."""
    if (
        marks.brackets + marks.braces <= _MOST_CONTAINERS
        and marks.quotes <= 2 * _MOST_STRINGS
        and marks.commas < _MOST_VALUES
    ):
        return
    bare = np.frombuffer(body.replace(rb"\\", b"__").replace(rb"\"", b"__"), np.uint8)
    containers, quotes, commas, within = 0, 0, 0, False
    for start in range(0, len(bare), _PIECE_BYTES):
        piece = bare[start : start + _PIECE_BYTES]
        is_quote = piece == ord('"')
        inside = np.logical_xor.accumulate(is_quote) ^ within
        within = bool(inside[-1])
        quotes += int(np.count_nonzero(is_quote))
        containers += int(np.count_nonzero(((piece == ord("[")) | (piece == ord("{"))) & ~inside))
        commas += int(np.count_nonzero((piece == ord(",")) & ~inside))
        _refuse_more(containers, _MOST_CONTAINERS, "objects and lists")
        _refuse_more(quotes // 2, _MOST_STRINGS, "strings")
        _refuse_more(commas + 1, _MOST_VALUES, "values")


def _refuse_more(found: int, most: int, what: str) -> None:
    if found > most:
        raise InvalidRequest(f"the body's JSON has more than {most} {what}, which are not read")


def _check_nesting(value: object) -> None:
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(f"the body's JSON is nested deeper than {_WRITABLE_LEVELS} levels") from error


def cut(text: str) -> str:
    """Shorten a client's own words for a message."""
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def shown(value: object) -> str:
    """Write a value into an error message, cut short; no JSON that orjson reads has a whole number beyond 64 bits."""
    try:
        return cut(orjson.dumps(value).decode())
    except orjson.JSONEncodeError:
        return cut(str(value))


def refuse(name: str, value: object, allowed: str) -> InvalidRequest:
    """Make the error that says what was given and what is allowed; a field that is null is one that is left out."""
    if value is None and not name.endswith("]"):  # an entry of a list is never left out
        return InvalidRequest(f"'{name}' is missing: it must be {allowed}", name)
    return InvalidRequest(f"'{name}' must be {allowed}, got {shown(value)}", name)


def text(body: Mapping[str, Any], name: str) -> str:
    """Return a required string that is not empty."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise refuse(name, value, "a non-empty string")
    return value


def flag(body: Mapping[str, Any], name: str) -> bool:
    """Return an optional boolean; absent or null is False."""
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise refuse(name, value, "true or false")
    return value


def number(body: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    """Return an optional number within [low, high]; absent or null is None."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise refuse(name, value, f"a number from {low:g} to {high:g}")
    return float(value)


def whole(body: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    """Return an optional whole number within [low, high]; absent or null is None."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise refuse(name, value, f"a whole number from {low} to {high}")
    return value


def mapping(body: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Return an optional object; absent or null is None."""
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise refuse(name, value, "an object")
    return value


def said(body: Mapping[str, Any], name: str) -> str | None:
    """Return an optional string; absent or null is None."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise refuse(name, value, "a string")
    return value
