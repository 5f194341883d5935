"""The frame between a gateway and its children: a msgpack map, then raw arrays. Knows no message's meaning.

On the wire, little-endian: u32 bytes of the header, u32 bytes of all arrays together, the header, the arrays one
after the other. The header's key `arrays` lists `[dtype, shape]` for each; it is absent where there are none.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

import msgpack
import numpy as np

HEADER_LIMIT_BYTES = 64 << 20
ARRAYS_LIMIT_BYTES = 256 << 20
READ_BYTES = 256 << 10
ALIGNMENT = 64
ITEM_BYTES = {"float32": 4, "uint8": 1}
MAX_RANK = 8
MAX_ARRAYS = 64

_LENGTHS = struct.Struct("<II")

Buffer = bytes | bytearray | memoryview


class FrameError(ValueError):
    """The other side sent bytes that are no frame; nothing after them can be trusted."""


@dataclass(frozen=True, slots=True)
class Array:
    """Row-major little-endian numbers: `data` holds product(`shape`) items of `dtype`."""

    data: Buffer
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: a header of plain msgpack values, and the arrays that belong to it."""

    header: Mapping[str, object]
    arrays: tuple[Array, ...] = field(default=())


def encode(header: Mapping[str, object], arrays: Sequence[Array] = ()) -> bytes:
    """Return the frame's bytes. Raises FrameError where it would break a limit that the reader holds it to."""
    return b"".join(parts(header, arrays))


def parts(header: Mapping[str, object], arrays: Sequence[Array] = ()) -> list[Buffer]:
    """Return the frame's bytes in parts, of which the arrays' are their own memory. Raises FrameError like `encode`."""
    described = {**header, "arrays": [(each.dtype, each.shape) for each in arrays]} if arrays else header
    try:
        packed = msgpack.packb(described)
    except (TypeError, ValueError, OverflowError) as error:
        raise FrameError(f"a header that msgpack cannot hold: {error}") from error
    if len(arrays) > MAX_ARRAYS:
        raise FrameError(f"{len(arrays)} arrays; at most {MAX_ARRAYS} are allowed")
    total = 0
    for each in arrays:
        size = memoryview(each.data).nbytes
        _spans([[each.dtype, [*each.shape]]], size)
        total += size
    _check_limits(len(packed), total)
    return [_LENGTHS.pack(len(packed), total) + packed, *(each.data for each in arrays)]


class Decoder:
    """Cuts a byte stream into frames: `room` is where the next bytes belong, `took` says how many came.

    A frame that is larger than READ_BYTES is received into memory of its own, which its arrays then are: they are not
    copied. At most one unfinished frame is held, so at most the two limits' sum.
    """

    def __init__(self) -> None:
        self._memory = memoryview(bytearray(READ_BYTES))
        self._filled = 0

    def room(self) -> memoryview:
        """Return memory for the next bytes, at least one."""
        return self._memory[self._filled :]

    def took(self, count: int) -> list[Frame]:
        """Return the frames that `count` new bytes complete. Raises FrameError; the decoder is useless after that."""
        self._filled += count
        frames: list[Frame] = []
        start, end = 0, _frame_end(self._memory[: self._filled], 0)
        if end == len(self._memory) == self._filled > READ_BYTES:
            frames.append(_decode(self._memory, copied=False))
            self._memory, self._filled = memoryview(bytearray(READ_BYTES)), 0
            return frames
        while end is not None and end <= self._filled:
            frames.append(_decode(self._memory[start:end], copied=True))
            start, end = end, _frame_end(self._memory[: self._filled], end)
        self._keep(start, (end or 0) - start)
        return frames

    def feed(self, data: Buffer) -> list[Frame]:
        """Return the frames that `data` completes, for a reader that has its bytes already. Raises FrameError."""
        frames: list[Frame] = []
        with memoryview(data) as view:
            place = 0
            while place < len(view):
                room = self.room()
                count = min(len(room), len(view) - place)
                room[:count] = view[place : place + count]
                place += count
                frames += self.took(count)
        return frames

    def _keep(self, start: int, size: int) -> None:
        """Keep the bytes from `start` on, which begin a frame of `size` (not above 0: it is not known yet)."""
        left = self._filled - start
        if size > len(self._memory):
            header_bytes, _ = _LENGTHS.unpack_from(self._memory, start)
            memory = _memory(size, _LENGTHS.size + header_bytes)
            memory[:left] = self._memory[start : self._filled]
            self._memory = memory
        elif start:
            self._memory[:left] = self._memory[start : self._filled]
        self._filled = left


def _memory(size: int, body: int) -> memoryview:
    """Return memory that is not filled with zeros first, its place `body` where a runtime likes numbers to begin.

    It comes in large pages: for 16 MiB it takes half the time of a bytearray.
    """
    array = np.empty(size + ALIGNMENT, np.uint8)
    start = -(array.ctypes.data + body) % ALIGNMENT
    return array[start : start + size].data


def _check_limits(header_bytes: int, arrays_bytes: int) -> None:
    if header_bytes > HEADER_LIMIT_BYTES:
        raise FrameError(f"a header of {header_bytes} bytes; at most {HEADER_LIMIT_BYTES} are allowed")
    if arrays_bytes > ARRAYS_LIMIT_BYTES:
        raise FrameError(f"arrays of {arrays_bytes} bytes; at most {ARRAYS_LIMIT_BYTES} are allowed")


def _frame_end(view: memoryview, offset: int) -> int | None:
    """Return where the frame at `offset` will end, or None while not even that has come."""
    if len(view) - offset < _LENGTHS.size:
        return None
    lengths: tuple[int, int] = _LENGTHS.unpack_from(view, offset)
    header_bytes, arrays_bytes = lengths
    _check_limits(header_bytes, arrays_bytes)
    return offset + _LENGTHS.size + header_bytes + arrays_bytes


def _decode(view: memoryview, *, copied: bool) -> Frame:
    header_bytes, _ = _LENGTHS.unpack_from(view)
    body = _LENGTHS.size + header_bytes
    try:
        header = msgpack.unpackb(view[_LENGTHS.size : body])
    except (ValueError, msgpack.UnpackException) as error:
        raise FrameError(f"a header that is not msgpack: {error}") from error
    if not isinstance(header, dict):
        raise FrameError(f"a header of type {type(header).__name__}; a map is needed")
    content = view[body:]
    return Frame(
        header,
        tuple(
            Array(bytes(content[start:end]) if copied else content[start:end], shape, dtype)
            for dtype, shape, start, end in _spans(header.pop("arrays", []), len(content))
        ),
    )


def _spans(described: object, total_bytes: int) -> list[tuple[str, tuple[int, ...], int, int]]:
    """Return dtype, shape, start and end of each array; together they must fill `total_bytes` exactly."""
    if not isinstance(described, list) or len(described) > MAX_ARRAYS:
        raise FrameError(f"arrays must be a list of at most {MAX_ARRAYS} descriptions")
    spans = []
    start = 0
    for description in described:
        dtype, shape = _checked(description)
        end = start + math.prod(shape) * ITEM_BYTES[dtype]
        spans.append((dtype, shape, start, end))
        start = end
    if start != total_bytes:
        raise FrameError(f"arrays of {total_bytes} bytes, where the header describes {start}")
    return spans


def _checked(description: object) -> tuple[str, tuple[int, ...]]:
    match description:
        case [str(dtype), [*shape]] if dtype in ITEM_BYTES and len(shape) <= MAX_RANK:
            sizes = tuple(size for size in shape if _is_size(size))
            if len(sizes) == len(shape):
                return dtype, sizes
    raise FrameError(f"{description!r} describes no array; [dtype, shape] is needed, dtype one of {[*ITEM_BYTES]}")


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
