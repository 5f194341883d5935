"""Digests that say when two requests are the same, or the same but for their last user text. Knows no store."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence

import orjson

from gateway.json_marks import has_pair
from gateway.request import Request

_SEPARATOR = b"\x00"
_ANY_TEXT = "\x00any text"
_WHOLE_FLOAT = re.compile(rb"\.0[,\]}]")
_MOST_EXACT = 2**53
# A float of 20 digits and more is written so, and was a whole number perhaps: those beyond 64 bits are read as floats.
_EXPONENT = b"e+"
_DIGITS = re.compile(rb"[0-9]{20,}+")

PARTITION_EPOCH = "2"
"""A release whose rules of what may match differ in more than strictness raises it: older entries match no more."""


def fingerprint(request: Request) -> bytes:
    """Digest all that an answer depends on: SHA-256 of JSON with sorted keys, so that their order does not matter.

    What we know of a request is no neighbour of the client's own fields, which may have any name. 1 and 1.0 are the
    same number, as in RFC 8785 §3.2.2.3; no text is changed, since a model may read it otherwise in another form. What
    goes on as it came has numbers with more digits than were read: those are told apart by their digits.
    """
    asked = [request.job.task, request.beside, request.fields]
    written = orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)
    if has_pair(written, b".0") and _WHOLE_FLOAT.search(written) is not None:
        written = orjson.dumps(_with_whole_numbers(asked), option=orjson.OPT_SORT_KEYS)
    if has_pair(written, _EXPONENT) and request.job.verbatim is not None:
        written = _SEPARATOR.join([written, *_DIGITS.findall(request.job.verbatim.body)])
    return hashlib.sha256(written).digest()


def _with_whole_numbers(value: object) -> object:
    """Return a JSON value with each number that is a whole one written so; beyond 2⁵³ floats are what they are."""
    match value:
        case float() if value.is_integer() and abs(value) < _MOST_EXACT:
            return int(value)
        case Mapping():
            return {name: _with_whole_numbers(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_with_whole_numbers(inner) for inner in value]
    return value


def compatibility(request: Request) -> bytes:
    """Digest a request with its last user text, or its only one, blanked: such as are equal may match by meaning."""
    messages = request.fields.get("messages")
    if messages is None:
        return fingerprint(dataclasses.replace(request, fields={**request.fields, "input": _ANY_TEXT}))
    assert isinstance(messages, Sequence)
    blanked = [*messages[:-1], {**messages[-1], "content": _ANY_TEXT}]
    return fingerprint(dataclasses.replace(request, fields={**request.fields, "messages": blanked}))


def scoped(digest: bytes, *parts: str) -> bytes:
    """Bind a digest to a tenant, a model version or whatever else must part two caches: a 32-byte key."""
    return hashlib.sha256(_SEPARATOR.join([digest, *[part.encode() for part in parts]])).digest()
