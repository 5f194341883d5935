"""Counts the marks of JSON in a body, whether they stand in a text or not. Pure: knows no value.

All who ask are served from one look, and a long body is looked at many bytes at a time: `bytes.count` and expressions
take several times as long as the parse itself, and everybody waits meanwhile.
"""

from typing import NamedTuple

import numpy as np

_LONG_BYTES = 2**13  # below, what calls of numpy cost by themselves is more
_PIECE_BYTES = 2**17  # what is looked at several times stays near the processor
_BRACKET, _BRACE, _QUOTE, _COMMA, _COLON, _SPACE = b'[{",: '


class Marks(NamedTuple):
    """How often each is there. `named` counts quotes with a colon behind; None: not known, or space may part some."""

    brackets: int
    braces: int
    quotes: int
    commas: int
    named: int | None


def marks_of(body: bytes) -> Marks:
    """Count the marks of a body."""
    if len(body) < _LONG_BYTES:
        return Marks(body.count(b"["), body.count(b"{"), body.count(b'"'), body.count(b","), None)
    data = np.frombuffer(body, np.uint8)
    brackets, braces, quotes, commas, named, parted = 0, 0, 0, 0, 0, False
    for start in range(0, len(data), _PIECE_BYTES):
        piece, behind = data[start : start + _PIECE_BYTES], data[start + 1 : start + _PIECE_BYTES + 1]
        is_quote = piece == _QUOTE
        brackets += int(np.count_nonzero(piece == _BRACKET))
        braces += int(np.count_nonzero(piece == _BRACE))
        quotes += int(np.count_nonzero(is_quote))
        commas += int(np.count_nonzero(piece == _COMMA))
        is_colon = behind == _COLON
        named += int(np.count_nonzero(is_quote[: len(behind)] & is_colon))
        parted = parted or bool(((piece[: len(behind)] <= _SPACE) & is_colon).any())
    return Marks(brackets, braces, quotes, commas, None if parted else named)


def has_pair(data: bytes, pair: bytes) -> bool:
    """Tell whether two bytes stand one behind the other."""
    if len(data) < _LONG_BYTES:
        return pair in data
    first, second = pair
    values = np.frombuffer(data, np.uint8)
    for start in range(0, len(values), _PIECE_BYTES):
        piece, behind = values[start : start + _PIECE_BYTES], values[start + 1 : start + _PIECE_BYTES + 1]
        if ((piece[: len(behind)] == first) & (behind == second)).any():
            return True
    return False
