"""The bytes of one entry on disk: a version, a checksum and msgpack. Knows nothing of where rows are kept."""

import struct
import zlib

import msgpack

from cache.contract import Entry, Meaning

ROW_VERSION = 2
_HEADER = struct.Struct(">BI")


class RowError(ValueError):
    """These bytes are no row of this version: torn, foreign, or written by another release."""


class OtherVersionError(RowError):
    """This may be a row, of another version."""


def pack_row(entry: Entry) -> bytes:
    """Return the entry as a row of `ROW_VERSION`."""
    meaning = entry.meaning
    fields = (
        entry.key,
        entry.value,
        entry.stored_at,
        entry.expires_at,
        None if meaning is None else (meaning.partition, meaning.text, meaning.vector, meaning.tokens),
        entry.stale_s,
        entry.groups,
        entry.stamp,
    )
    # A client's text may hold lone surrogates; they must survive rather than fail the write.
    body: bytes = msgpack.packb(fields, unicode_errors="surrogatepass")
    return _HEADER.pack(ROW_VERSION, zlib.crc32(body)) + body


def unpack_row(row: object) -> Entry:
    """Return the row's entry; raise `RowError` where the bytes are not a whole row of this version."""
    if not isinstance(row, bytes) or len(row) < _HEADER.size:
        raise RowError("row is shorter than its header")
    version, checksum = _HEADER.unpack_from(row)
    if version != ROW_VERSION:
        raise OtherVersionError(f"row has version {version}, only {ROW_VERSION} is known")
    body = memoryview(row)[_HEADER.size :]
    if zlib.crc32(body) != checksum:
        raise RowError("row does not match its checksum")
    key, value, stored_at, expires_at, meaning, stale_s, groups, stamp = msgpack.unpackb(
        body, unicode_errors="surrogatepass", use_list=False
    )
    return Entry(
        key, value, stored_at, expires_at, None if meaning is None else Meaning(*meaning), stale_s, groups, stamp
    )
