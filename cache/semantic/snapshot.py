"""Generations on disk, so that a start need not build them: a copy that may be old, missing or torn.

The store is the truth: whoever loads a snapshot adds what is newer, and what the store no longer has is never served.
A file is written beside the former one and takes its place when it is whole and on the disk. Its sections are a head,
then for each partition its records and its graph; each has a checksum, since faiss trusts what it reads.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import faiss

from cache.semantic.record import RECORD_BYTES, latest

SNAPSHOT_VERSION = 1
_MAGIC = b"warmgate vectors\n"
_SECTION = struct.Struct("<QI")
_PIECE_BYTES = 1 << 20


class SnapshotError(Exception):
    """The file is no whole snapshot of this version."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a snapshot is of. `stored_until`: the latest moment at which one of its entries was stored."""

    version: int
    embedder: str
    generation: int
    count: int
    stored_until: float


@dataclass(frozen=True, slots=True)
class Saved:
    """One partition's generation: packed records in the order of the graph's rows, `STRUCK_OUT` for those."""

    name: bytes
    dims: int
    records: bytes
    graph: Any

    @property
    def count(self) -> int:
        """How many rows there are, struck-out ones included."""
        return len(self.records) // RECORD_BYTES

    @property
    def stored_until(self) -> float:
        """The latest moment at which one of its entries was stored."""
        return latest(self.records)

    def record(self, at: int) -> bytes:
        """Return the packed record of a row."""
        return self.records[at * RECORD_BYTES : (at + 1) * RECORD_BYTES]


def write(path: Path, head: Head, partitions: Sequence[Saved]) -> None:
    """Put a snapshot in the place of the former one. Raises `OSError`; then the former one is still there."""
    beside = path.with_name(f"{path.name}.new")
    try:
        with beside.open("wb") as file:
            file.write(_MAGIC)
            shapes = [{"name": saved.name.hex(), "dims": saved.dims, "count": saved.count} for saved in partitions]
            _write_section(file, json.dumps(asdict(head) | {"partitions": shapes}).encode())
            for saved in partitions:
                _write_section(file, saved.records)
                _write_graph(file, saved.graph)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def read(path: Path) -> tuple[Head, list[Saved]]:
    """Read the snapshot there. Raises `SnapshotError` and `OSError`."""
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise SnapshotError("the file does not begin as a snapshot")
        try:
            told = json.loads(_read_section(file))
            shapes = told.pop("partitions")
            head = Head(**told)
        except (ValueError, KeyError, TypeError) as error:
            raise SnapshotError(f"the head cannot be read: {error}") from None
        if head.version != SNAPSHOT_VERSION:
            raise SnapshotError(f"the file has version {head.version}, only {SNAPSHOT_VERSION} is known")
        return head, list(_read_partitions(file, shapes))


def _read_partitions(file: IO[bytes], shapes: list[dict[str, Any]]) -> Iterator[Saved]:
    for shape in shapes:
        saved = Saved(bytes.fromhex(shape["name"]), shape["dims"], _read_section(file), _read_graph(file))
        graph = saved.graph
        if (saved.count, graph.ntotal, graph.d) != (shape["count"], shape["count"], saved.dims):
            raise SnapshotError("a graph has other rows than its partition")
        yield saved


def _write_section(file: IO[bytes], payload: bytes) -> None:
    file.write(_SECTION.pack(len(payload), zlib.crc32(payload)))
    file.write(payload)


def _write_graph(file: IO[bytes], graph: Any) -> None:
    """Write a section whose length and checksum are known only afterwards; a copy in memory would double the graph."""
    at = file.tell()
    file.write(_SECTION.pack(0, 0))
    length = checksum = 0

    def take(piece: bytes) -> int:
        nonlocal length, checksum
        length += len(piece)
        checksum = zlib.crc32(piece, checksum)
        return file.write(piece)

    library: Any = faiss
    faiss.write_index(graph, library.BufferedIOWriter(library.PyCallbackIOWriter(take), _PIECE_BYTES))
    file.seek(at)
    file.write(_SECTION.pack(length, checksum))
    file.seek(0, os.SEEK_END)


def _read_section(file: IO[bytes]) -> bytes:
    length, checksum = _section_head(file)
    payload = file.read(length)
    if len(payload) != length or zlib.crc32(payload) != checksum:
        raise SnapshotError("a section is torn")
    return payload


def _read_graph(file: IO[bytes]) -> Any:
    """Read a graph after its checksum: what is not whole would be followed out of bounds."""
    length, checksum = _section_head(file)
    at, found, left = file.tell(), 0, length
    while left:
        piece = file.read(min(left, _PIECE_BYTES))
        if not piece:
            raise SnapshotError("a graph is torn")
        found = zlib.crc32(piece, found)
        left -= len(piece)
    if found != checksum:
        raise SnapshotError("a graph is torn")
    file.seek(at)
    library: Any = faiss
    reader = library.PyCallbackIOReader(file.read, _PIECE_BYTES)
    try:
        graph = faiss.read_index(reader)
    except RuntimeError as error:
        raise SnapshotError(f"faiss cannot read a graph: {error}") from None
    file.seek(at + length)
    return graph


def _section_head(file: IO[bytes]) -> tuple[int, int]:
    head = file.read(_SECTION.size)
    if len(head) != _SECTION.size:
        raise SnapshotError("the file ends early")
    length, checksum = _SECTION.unpack(head)
    if length > os.fstat(file.fileno()).st_size - file.tell():
        raise SnapshotError("a section is longer than the file")
    return length, checksum
