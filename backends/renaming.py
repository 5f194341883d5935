"""Puts another model's name into a request that goes on as its client wrote it; every other byte stays. Pure."""

import re
from email.parser import BytesHeaderParser
from functools import lru_cache

import orjson

_FIELD = "model"
# Strings whole, so that what is in them is passed over, and whatever changes the depth or parts keys from values.
_PIECES = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]:,]', re.DOTALL)
_OPENING, _CLOSING = b"{[", b"}]"
_KEY, _ESCAPE = b'"model"', b"\\u"
_VALUE = re.compile(rb'\s*:\s*("(?:[^"\\]++|\\.)*+")', re.DOTALL)


def renamed(body: bytes, content_type: str, model: str) -> bytes:
    """Return the body with `model` as its model: the field of a form, or the top-level key of a JSON object.

    A body that names it already is returned as it is. JSON must be a well-formed object that has the key.
    """
    if content_type.lower().startswith("multipart/"):
        return _in_form(body, content_type, model)
    return _in_json(body, _encoded(model))


@lru_cache(maxsize=64)
def _encoded(model: str) -> bytes:
    return orjson.dumps(model)


def _in_json(body: bytes, name: bytes) -> bytes:
    """Put `name` in the place of every string that is the value of a top-level key `model`."""
    if body.count(_KEY) == 1 and _ESCAPE not in body:
        # The key is there once, and cannot be there in other letters: no need to look where everything is.
        found = _VALUE.match(body, body.index(_KEY) + len(_KEY))
        if found is not None:
            start, end = found.span(1)
            return body if body[start:end] == name else body[:start] + name + body[end:]
    begun = 0
    parts: list[bytes] = []
    for start, end in _places(body):
        if body[start:end] != name:
            parts += (body[begun:start], name)
            begun = end
    return b"".join([*parts, body[begun:]]) if parts else body


def _places(body: bytes) -> list[tuple[int, int]]:
    """Find where the values of top-level keys `model` are, as far as they are strings; JSON allows a key twice."""
    places: list[tuple[int, int]] = []
    depth = 0
    key: bytes | None = None
    is_value = False
    for piece in _PIECES.finditer(body):
        text = piece[0]
        if text in _OPENING:
            depth += 1
        elif text in _CLOSING:
            depth -= 1
        elif depth != 1:
            continue
        elif text == b":":
            is_value = True
        elif text == b",":
            is_value = False
        elif not is_value:
            key = text
        elif key is not None and _is_field(key):
            places.append(piece.span())
    return places


def _is_field(key: bytes) -> bool:
    return key == _KEY or (b"\\" in key and orjson.loads(key) == _FIELD)


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
    head, gap, _ = piece.partition(b"\r\n\r\n")
    if not gap:
        return piece
    headers = BytesHeaderParser().parsebytes(head.lstrip(b" \t\r\n") + gap)
    named = headers.get_param("name", header="content-disposition")
    is_field = named == _FIELD and headers.get_filename() is None
    return head + gap + model.encode() if is_field else piece
