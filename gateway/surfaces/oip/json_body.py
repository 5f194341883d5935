"""JSON bodies of the protocol: numbers may be NaN or infinite, as the clients in Python write them."""

import json
from typing import Any

import orjson

from gateway.errors import InvalidRequest
from gateway.fields import check_counts, parse_object, refuse
from gateway.json_marks import marks_of
from gateway.names_once import check_names_once

_WORDS = (b"NaN", b"Infinity")


def parse(body: bytes) -> dict[str, Any]:
    """Parse a JSON object; an empty body is an empty one. Raises `InvalidRequest`."""
    if not body:
        return {}
    try:
        return parse_object(body)
    except InvalidRequest:
        if not any(word in body for word in _WORDS):
            raise
    marks = marks_of(body)
    check_counts(body, marks)
    try:
        value = json.loads(body)
        orjson.dumps(value)  # what cannot be written again (too deep, a number beyond 64 bits) is not taken
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    if type(value) is not dict:
        raise InvalidRequest("the body must be a JSON object")
    check_names_once(body, value, marks)
    return value


def parameters_of(body: dict[str, Any]) -> dict[str, Any]:
    """Return the optional object of parameters of a request, an input or an output. Raises `InvalidRequest`."""
    value = body.get("parameters")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise refuse("parameters", value, "an object")
    return value


def id_of(body: dict[str, Any]) -> str:
    """Return the id that the reply shall have too, empty where there is none. Raises `InvalidRequest`."""
    value = body.get("id")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise refuse("id", value, "a string")
    return value
