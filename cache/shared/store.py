"""The entries on the server: read at once or not at all, written behind the callers' backs. Knows no leases."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgpack

from cache.contract import Entry
from cache.disk.row import RowError, pack_row, unpack_row
from cache.shared.link import Command, Link, UnreachableError
from cache.shared.reader import Reader
from cache.write_queue import WriteQueue

_QUEUE_ENTRIES = 1024
_QUEUE_BYTES = 32 << 20
_ENTRY_BYTES = 4 << 20
_WRITE_DEADLINE_S = 2.0
_REMOVALS = 10_000


@dataclass(slots=True)
class SharedCounters:
    """What happened since the start.

    `skipped`: reads that were not tried, for the server was not up. `dropped`: writes lost. `corrupt`: rows that could
    not be used.
    """

    hits: int = 0
    misses: int = 0
    skipped: int = 0
    writes: int = 0
    dropped: int = 0
    corrupt: int = 0


class SharedStore:
    """A `Store` on the server. `put` only queues; one task writes, and `get` sees what is still queued.

    A server that is down or slow costs misses, and no wait once that is known.
    """

    def __init__(
        self,
        link: Link,
        name: Callable[[str, bytes], bytes],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counters = SharedCounters()
        self.reader = Reader(link)
        self._link = link
        self._name = name
        self._clock = clock
        self._queue = WriteQueue(_QUEUE_ENTRIES, _QUEUE_BYTES)
        self._removals: dict[bytes, None] = {}
        self._writing: set[bytes] = set()

    async def get(self, key: bytes) -> Entry | None:
        """Return the live entry, or None; a slow or broken server is None."""
        queued = self._queue.entries.get(key)
        if queued is not None:
            return queued
        if not self._link.up or key in self._removals:
            self.counters.skipped += 1
            return None
        entries = self.read([key], await self.reader.read([self._name("entry", key)]))
        if not entries:
            self.counters.misses += 1
            return None
        self.counters.hits += 1
        return entries[0]

    def read(self, keys: Sequence[bytes], values: Iterable[object]) -> Sequence[Entry]:
        """Return the live entries among these keys' values."""
        now = self._clock()
        entries = []
        for key, value in zip(keys, values, strict=False):
            if value is None or key in self._removals:
                continue
            try:
                entry = _entry_of(key, value)
            except RowError as error:
                self.counters.corrupt += 1
                self._link.refused(error)
                continue
            if not entry.is_over(now):
                entries.append(entry)
        return entries

    def keep(self, entry: Entry) -> bool:
        """Queue the entry for writing, and return whether it is; never waits."""
        fits = self._link.up and len(entry.value) <= _ENTRY_BYTES
        if not fits or not self._queue.put(entry):
            self._queue.remove(entry.key)  # what it was to replace is out of date
            self.counters.dropped += 1
            return False
        self._removals.pop(entry.key, None)
        return True

    async def put(self, entry: Entry) -> None:
        """Queue the entry for writing; see `keep`."""
        self.keep(entry)

    async def remove(self, key: bytes) -> None:
        """Forget the entry: here at once, on the server now or, where it cannot be reached, once it can."""
        self._queue.remove(key)
        if len(self._removals) >= _REMOVALS:
            del self._removals[next(iter(self._removals))]
        self._removals[key] = None
        await self.write_removals()

    def is_unwritten(self, key: bytes) -> bool:
        """Tell whether an entry of this key is on its way to the server."""
        return key in self._queue.entries or key in self._writing

    @property
    def has_pending(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._queue.entries)

    async def write_some(self) -> Sequence[bytes]:
        """Write the next of the queue; return the keys of those that were lost."""
        batch = self._queue.take()
        self._writing = {entry.key for entry in batch}
        now = self._clock()
        commands: list[Command] = [
            ("SET", self._name("entry", entry.key), pack_row(entry), "PX", max(1, int((entry.expires_at - now) * 1000)))
            for entry in batch
        ]
        try:
            replies = await self._link.run(commands, _WRITE_DEADLINE_S) if self._link.up else [None] * len(batch)
        except UnreachableError:
            replies = [None] * len(batch)
        finally:
            self._writing = set()
        lost = [entry.key for entry, reply in zip(batch, replies, strict=True) if reply is not True]
        self.counters.dropped += len(lost)
        self.counters.writes += len(batch) - len(lost)
        return lost

    async def write_removals(self) -> None:
        """Remove from the server what could not be removed before."""
        removals = list(self._removals)
        if not removals or not self._link.up:
            return
        try:
            (reply,) = await self._link.run(
                [("DEL", *[self._name("entry", key) for key in removals])], _WRITE_DEADLINE_S
            )
        except UnreachableError:
            return
        if not isinstance(reply, Exception):
            for key in removals:
                self._removals.pop(key, None)

    def drop_all(self) -> None:
        """Forget what is queued."""
        self.counters.dropped += self._queue.clear()


def _entry_of(key: bytes, value: object) -> Entry:
    """Return the entry of a row that anybody may have written. Raises `RowError`."""
    try:
        entry = unpack_row(value)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise error if isinstance(error, RowError) else RowError(f"row is of another shape: {error}") from None
    if entry.key != key:
        raise RowError("row lies under another entry's key")
    if not _is_sound(entry):
        raise RowError("row has values of other types")
    return entry


def _is_sound(entry: Entry) -> bool:
    """Tell whether an entry has what its types say: no checksum is proof of that."""
    times = (entry.stored_at, entry.expires_at, entry.stale_s)
    meaning = entry.meaning
    return (
        _are((float, int), *times)
        and all(map(math.isfinite, times))
        and _are(bytes, entry.value)
        and _are(int, entry.stamp)
        and _are(tuple, entry.groups)
        and _are(str, *entry.groups)
        and (meaning is None or _are(bytes, meaning.partition, meaning.vector, meaning.tokens))
        and (meaning is None or _are(str, meaning.text))
    )


def _are(kind: type | tuple[type, ...], *values: object) -> bool:
    return all(isinstance(value, kind) for value in values)
