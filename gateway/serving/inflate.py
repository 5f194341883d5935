"""Undoes the compression of a request's body, within a bound and in steps that hold the loop only for a moment."""

import asyncio
import zlib
from collections.abc import Iterator

from gateway.errors import BodyTooLarge, InvalidRequest

ALLOWED = "gzip, deflate"
CODINGS = frozenset({"gzip", "x-gzip", "deflate"})
_PIECE_BYTES = 16 * 2**10
_STEP_BYTES = 2**20
_GZIP = 16 + zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


async def inflate(body: bytes, coding: str, limit_bytes: int) -> bytes:
    """Return what a body of one of `CODINGS` holds. Raises `BodyTooLarge` and `InvalidRequest`.

    However much it would become, never more than the limit and one step are held.
    """
    whole = bytearray()
    for piece in _pieces(body, coding):
        whole += piece
        if len(whole) > limit_bytes:
            raise BodyTooLarge(
                f"the body has more than {limit_bytes} bytes once its {coding} is undone; "
                f"at most {limit_bytes} bytes are read (server.max_body)"
            )
        await asyncio.sleep(0)
    return bytes(whole)


def _pieces(body: bytes, coding: str) -> Iterator[bytes]:
    """Yield what comes out, at most a step at a time."""
    stream = zlib.decompressobj(_window(body, coding))
    try:
        for start in range(0, len(body), _PIECE_BYTES):
            data = body[start : start + _PIECE_BYTES]
            full = True
            while (data or full) and not stream.eof:  # a full step may have left some of it inside
                out = stream.decompress(data, _STEP_BYTES)
                yield out
                data, full = stream.unconsumed_tail, len(out) == _STEP_BYTES
            if stream.unused_data or (stream.eof and start + _PIECE_BYTES < len(body)):
                raise InvalidRequest(f"the body goes on behind the end of its {coding}")
    except zlib.error as error:
        raise InvalidRequest(f"the body is not {coding}: {error}") from error
    if not stream.eof:
        raise InvalidRequest(f"the body ends in the middle of its {coding}")


def _window(body: bytes, coding: str) -> int:
    """Return how zlib is to read a body: `deflate` should have zlib's own head, and many clients leave it out."""
    if coding != "deflate":
        return _GZIP
    has_head = len(body) > 1 and body[0] & 15 == zlib.DEFLATED and int.from_bytes(body[:2], "big") % 31 == 0
    return zlib.MAX_WBITS if has_head else _RAW
