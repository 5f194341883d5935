"""Puts another model's name into a request that goes on as its client wrote it; every other byte stays. Pure."""

import re
from collections.abc import Iterator
from email.parser import BytesHeaderParser
from functools import lru_cache

import numpy as np
import orjson
from numpy.typing import NDArray

from backends.contract import BadJob

_FIELD = "model"
_KEY = b'"model"'
# How each of the letters of the key begins where it is escaped; no other escape stands for one of them.
_ESCAPE, _BACKSLASH = b"\\u006", b"\\"
_VALUE = re.compile(rb'\s*+:\s*+("(?:[^"\\]++|\\.)*+")', re.DOTALL)
_MEMBER = re.compile(
    rb'"(?:m|\\u006[dD])(?:o|\\u006[fF])(?:d|\\u0064)(?:e|\\u0065)(?:l|\\u006[cC])"' + _VALUE.pattern, re.DOTALL
)
# Bodies are looked through in pieces that stay in the processor's cache.
_PIECE_BYTES = 2**18
_FEW_BYTES = 2**14
# Names and texts of the object itself, not of what lies within: no request has so many.
_MOST_STRINGS = 2**14
# A part of a form has a few short headers; one with more is none of ours.
_MOST_HEAD_BYTES = 4096
_QUOTE, _OPENING_BRACKET, _CLOSING_BRACKET = b'"[]'
# `{` and `[`, and `}` and `]`, differ in this bit alone.
_BRACE_BIT = 0x20


def renamed(body: bytes, content_type: str, model: str) -> bytes:
    """Return the body with `model` as its model: the field of a form, or the top-level key of a JSON object.

    A body that names it already is returned as it is. JSON must be a well-formed object that has the key. Raises
    `BadJob` where the key must be looked for among more strings than a request has.
    """
    if content_type.lower().startswith("multipart/"):
        return _in_form(body, content_type, model)
    return _in_json(body, _encoded(model))


@lru_cache(maxsize=64)
def _encoded(model: str) -> bytes:
    return orjson.dumps(model)


def _in_json(body: bytes, name: bytes) -> bytes:
    """Put `name` in the place of every string that is the value of a top-level key `model`."""
    # A slice of bytes is a copy; of few bytes one costs less than looking at them does.
    view = memoryview(body) if len(body) > _FEW_BYTES else body
    # One byte is found many times as fast as six are.
    if (_BACKSLASH not in body or _ESCAPE not in body) and body.count(_KEY) == 1:
        # The key is there once, and cannot be there in other letters: no need to look where everything is.
        found = _VALUE.match(body, body.index(_KEY) + len(_KEY))
        if found is not None:
            start, end = found.span(1)
            return body if view[start:end] == name else b"".join((view[:start], name, view[end:]))
    begun = 0
    parts: list[bytes | memoryview] = []
    for start, end in _places(body):
        if view[start:end] != name:
            parts += (view[begun:start], name)
            begun = end
    return b"".join([*parts, view[begun:]]) if parts else body


def _places(body: bytes) -> Iterator[tuple[int, int]]:
    """Find where the values of top-level keys `model` are, as far as they are strings; JSON allows a key twice."""
    for start in _outermost_strings(body):
        if found := _MEMBER.match(body, start):
            yield found.span(1)


def _outermost_strings(body: bytes) -> list[int]:
    """Find where the strings begin that lie in the object and in nothing within it: its keys, and some values.

    It goes through tens of megabytes while everybody waits, so that it takes no step of Python's for each string.
    """
    bare = np.frombuffer(body.replace(rb"\\", b"__").replace(rb"\"", b"__"), np.uint8)
    starts: list[int] = []
    depth, within = 0, False
    for begun in range(0, len(bare), _PIECE_BYTES):
        piece = bare[begun : begun + _PIECE_BYTES]
        quotes = piece == _QUOTE
        inside = np.logical_xor.accumulate(quotes) ^ within
        within = bool(inside[-1])
        steps = _steps(piece) * ~inside
        openings = quotes & inside
        if steps.any():
            depths = np.cumsum(steps, dtype=np.int32)
            openings &= depths == 1 - depth
            depth += int(depths[-1])
        elif depth != 1:
            continue
        starts += (np.flatnonzero(openings) + begun).tolist()
        if len(starts) > _MOST_STRINGS:
            raise BadJob(f"the body has more than {_MOST_STRINGS} fields and texts beside its model", _FIELD)
    return starts


def _steps(piece: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Return how much deeper each byte leads: 1 for what opens, -1 for what closes."""
    brackets = piece & ~np.uint8(_BRACE_BIT)
    opens, closes = (brackets == _OPENING_BRACKET).view(np.int8), (brackets == _CLOSING_BRACKET).view(np.int8)
    steps: NDArray[np.int8] = opens - closes
    return steps


def _in_form(body: bytes, content_type: str, model: str) -> bytes:
    """Put the name in the place of the content of each part that is the form's field `model`."""
    boundary = BytesHeaderParser().parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode()).get_boundary()
    if boundary is None:
        return body
    delimiter = b"\r\n--" + boundary.encode()
    # The first delimiter may stand at the very beginning, without the line's end that parts it from what is before.
    pieces = (b"\r\n" + body).split(delimiter)
    return delimiter.join([pieces[0], *[_part(piece, model) for piece in pieces[1:]]])[2:]


def _part(piece: bytes, model: str) -> bytes:
    head, gap, _ = piece[:_MOST_HEAD_BYTES].partition(b"\r\n\r\n")
    if not gap:
        return piece
    headers = BytesHeaderParser().parsebytes(head.lstrip(b" \t\r\n") + gap)
    named = headers.get_param("name", header="content-disposition")
    is_field = named == _FIELD and headers.get_filename() is None
    return head + gap + model.encode() if is_field else piece
