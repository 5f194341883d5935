"""The tier that survives a restart: a bounded queue in front of the database. Knows nothing of the other tiers."""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cache.contract import Entry
from cache.disk.database import TROUBLES, Database
from cache.disk.known import Known
from cache.purges import Purges
from cache.write_queue import WriteQueue

_log = logging.getLogger(__name__)
_R = TypeVar("_R")

_KEYS_AT_ONCE = 4096


def _skip_none(_: bytes) -> bool:
    return False


def _take(keys: Iterator[bytes]) -> list[bytes]:
    return list(itertools.islice(keys, _KEYS_AT_ONCE))


@dataclass(slots=True)
class DiskCounters:
    """What happened since the start. `dropped`: writes lost to a full queue; `errors`: every trouble of the disk.

    `unsaved`: times that purges could not be made durable; it is tried again with the next write.
    """

    hits: int = 0
    misses: int = 0
    writes: int = 0
    dropped: int = 0
    errors: int = 0
    evictions: int = 0
    unsaved: int = 0


class DiskStore:
    """A `Store` on disk, bounded in bytes; the oldest rows go first.

    `put` only queues: one task writes the queue in batches, and `get` sees what is still queued. A row that `flush` has
    waited for survives the death of the process at any point. `open` first; `close` writes what is queued.
    """

    def __init__(
        self,
        directory: Path,
        max_bytes: int,
        clock: Callable[[], float] = time.time,
        purges: Purges | None = None,
        *,
        read_deadline_s: float = 0.25,
        queue_entries: int = 1024,
        queue_bytes: int = 32 << 20,
    ) -> None:
        self.counters = DiskCounters()
        self._purges = purges or Purges(clock)
        self._database = Database(directory, max_bytes, clock, self._purges)
        self._max_bytes = max_bytes
        self._clock = clock
        self._read_deadline_s = read_deadline_s
        self._queue = WriteQueue(queue_entries, queue_bytes)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cache-disk")
        self._writer: asyncio.Task[None] | None = None
        self._warned: set[str] = set()
        self._saving = asyncio.Lock()
        self._known: Known | None = None
        self._learnt: Known | None = None
        self._learning: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the database and start the writer. A disk that cannot be used is a warning; it is tried again later."""
        await self._attempt("open", self._database.open)
        self._writer = asyncio.create_task(self._write_queue(), name="cache-disk-writer")
        self._learning = asyncio.create_task(self._learn_keys(), name="cache-disk-keys")

    async def close(self, deadline_s: float = 5.0) -> None:
        """Write what is queued and close, each within the deadline; what is left then is counted as dropped."""
        await self.flush(deadline_s)
        for task in filter(None, (self._writer, self._learning)):
            task.cancel()
            await asyncio.wait([task])
        self._writer = self._learning = None
        self.counters.dropped += self._queue.clear()
        try:
            async with asyncio.timeout(deadline_s):
                await self._attempt("close", self._database.close)
        except TimeoutError as error:
            self._count_trouble("close", error)
        self._thread.shutdown(wait=False)

    @property
    def max_bytes(self) -> int:
        """The budget."""
        return self._max_bytes

    async def volume(self) -> tuple[int, int] | None:
        """Return how many rows there are and the bytes that the files take; None where the disk does not tell."""
        return await self._attempt("count", self._database.volume)

    async def save(self) -> bool:
        """Make all purges durable; where that fails tell so: it is tried again with the next write."""
        async with self._saving:
            marks, saved = self._purges.take_unsaved(), False
            try:
                saved = not marks or bool(await self._attempt("purge", self._database.write_marks, marks))
            finally:
                if not saved:
                    self._purges.put_back(marks)
                    self.counters.unsaved += 1
            return saved

    async def resize(self, max_bytes: int) -> None:
        """Change the bound on the disk; what is over it goes with the next write."""
        self._max_bytes = max_bytes
        await self._attempt("resize", self._database.resize, max_bytes)

    async def flush(self, deadline_s: float = 5.0) -> bool:
        """Wait until all that was put is in the database; return whether that came within the deadline."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def get(self, key: bytes) -> Entry | None:
        """Return the live entry, or None; a slow or broken disk is None."""
        entry = self._queue.entries.get(key)
        if entry is None and (self._known is None or key in self._known):
            entry = await self._read(key)
        if entry is None or entry.is_over(self._clock()):
            self.counters.misses += 1
            return None
        self.counters.hits += 1
        return entry

    def keep(self, entry: Entry) -> bool:
        """Queue the entry for writing; a full queue, or an entry beyond the whole budget, drops it and says so."""
        fits = self._writer is not None and len(entry.value) <= self._max_bytes
        if not fits or not self._queue.put(entry):
            self._queue.remove(entry.key)  # what it was to replace is out of date
            self.counters.dropped += 1
            return False
        self._note_key(entry.key)
        self._idle.clear()
        self._wake.set()
        return True

    async def put(self, entry: Entry) -> None:
        """Queue the entry for writing; see `keep`."""
        self.keep(entry)

    async def remove(self, key: bytes) -> None:
        """Forget the entry; waits for the disk, because a removal must not be lost to a full queue."""
        self._queue.remove(key)
        # A batch that holds the key may be under way; the thread takes calls in order, so this one comes after it.
        await self._attempt("remove", self._database.delete, key)

    async def clear(self) -> None:
        """Forget everything."""
        self._queue.clear()
        await self._attempt("clear", self._database.clear)

    async def meanings(self, skip: Callable[[bytes], bool] = _skip_none) -> AsyncIterator[list[Entry]]:
        """Yield the live entries that have a meaning, oldest row first, in batches; reads go on between batches.

        `skip` is asked for each key, on the disk's thread, and spares the reading of its row.
        """
        async for batch in self.entries(skip):
            yield [entry for entry in batch if entry.meaning is not None]

    async def entries(self, skip: Callable[[bytes], bool] = _skip_none) -> AsyncIterator[list[Entry]]:
        """Yield the live entries, oldest row first, in batches; reads go on between batches."""
        keys = await self._attempt("scan", self._database.keys)
        if keys is None:
            return
        while True:
            batch = await self._attempt("scan", self._database.read_next, keys, skip)
            if batch is None:
                return
            now = self._clock()
            yield [entry for entry in batch if not entry.is_over(now)]

    def is_pending(self, key: bytes) -> bool:
        """Whether an entry of the key waits to be written."""
        return key in self._queue.entries

    async def sweep(self, is_dead: Callable[[Entry], bool]) -> AsyncIterator[int]:
        """Delete the rows of dead and of expired entries and of none, batch by batch; yield how many each time."""
        keys = await self._attempt("sweep", self._database.keys)
        while keys is not None:
            removed = await self._attempt("sweep", self._database.sweep_next, keys, is_dead)
            if removed is None:
                return
            yield removed

    def _note_key(self, key: bytes) -> None:
        """Know of a key that is to be written; once there were too many learn anew which of them are still there."""
        for known in filter(None, (self._known, self._learnt)):
            known.add(key)
        is_learning = self._learning is not None and not self._learning.done()
        if self._known is not None and self._known.added > self._known.capacity and not is_learning:
            self._learning = asyncio.create_task(self._learn_keys(), name="cache-disk-keys")

    async def _learn_keys(self) -> None:
        """Find out which keys are on disk; until that is known, and where it cannot be, each is looked for there."""
        loop = asyncio.get_running_loop()
        try:
            rows, _ = await loop.run_in_executor(self._thread, self._database.volume)
            known = self._learnt = Known(2 * rows)
            # What is being written now comes before the reading of keys, in the one thread.
            for key in self._queue.entries:
                known.add(key)
            keys = await loop.run_in_executor(self._thread, self._database.keys)
            while batch := await loop.run_in_executor(self._thread, _take, keys):
                for key in batch:
                    known.add(key)
        except TROUBLES as error:
            _log.debug("cache on disk: its keys are not known: %s", error)
        else:
            self._known = known
        finally:
            self._learnt = None

    async def _read(self, key: bytes) -> Entry | None:
        try:
            async with asyncio.timeout(self._read_deadline_s):
                return await self._attempt("read", self._database.read, key)
        except TimeoutError as error:
            self._count_trouble("read", error)
            return None

    async def _write_queue(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue.entries:
                if self._purges.has_unsaved:
                    await self.save()
                batch = self._queue.take()
                evictions = await self._attempt("write", self._database.write, batch)
                if evictions is None:
                    self.counters.dropped += len(batch)
                else:
                    self.counters.writes += len(batch)
                    self.counters.evictions += evictions
            self._idle.set()

    async def _attempt(self, what: str, call: Callable[..., _R], *args: Any) -> _R | None:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, self._database.attempt, call, *args)
        except TROUBLES as error:
            self._count_trouble(what, error)
            return None

    def _count_trouble(self, what: str, error: Exception) -> None:
        self.counters.errors += 1
        kind = f"{what} {type(error).__name__}"
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning("cache on disk: %s failed: %s (%s); further ones are only counted", what, error, kind)
