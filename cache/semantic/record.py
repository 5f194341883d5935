"""What is known of one row of the index, packed: a million objects would each be looked at by the collector."""

import struct
from hashlib import blake2b
from typing import NamedTuple

KEY_BYTES = 32
_RECORD = struct.Struct(f"<{KEY_BYTES}sQQdd")


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


def text_digest(text: str) -> int:
    """Return what two texts have in common only where they are the same, as a number of 64 bits."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
