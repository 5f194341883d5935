"""What is known of one row of the index, packed: a million objects would each be looked at by the collector."""

import struct
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

KEY_BYTES = 32
_RECORD = struct.Struct(f"<{KEY_BYTES}sQQdd")
RECORD_BYTES = _RECORD.size
_STORED_AT = RECORD_BYTES - 16
STRUCK_OUT = bytes(RECORD_BYTES)
"""Stands in a file for a row that is no more."""


class Record(NamedTuple):
    """A row's key, a digest of its text, its partition's number, and its times."""

    key: bytes
    digest: int
    place: int
    stored_at: float
    expires_at: float

    def pack(self) -> bytes:
        """Return it as bytes, which begin with the key."""
        return _RECORD.pack(*self)


def unpack(packed: bytes) -> Record:
    """Return the record of these bytes."""
    return Record(*_RECORD.unpack(packed))


def latest(packed: bytes) -> float:
    """Return the latest moment at which one of many records was stored."""
    shape = np.dtype([("known", f"V{_STORED_AT}"), ("stored_at", "<f8"), ("expires_at", "<f8")])
    return float(np.frombuffer(packed, shape)["stored_at"].max(initial=0.0))


def text_digest(text: str) -> int:
    """Return what two texts have in common only where they are the same, as a number of 64 bits."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
