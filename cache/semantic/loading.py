"""Brings the index back after a start, from its last snapshot and the store, and keeps the snapshot. Knows no search.

The store is the truth. A snapshot spares the reading of rows and the building of graphs; what it knows nothing of is
read from the store, and what the store has no longer is noticed when it is found.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Protocol

from cache.contract import Entry
from cache.semantic import snapshot
from cache.semantic.index import Keepable, VectorIndex
from cache.semantic.snapshot import SNAPSHOT_VERSION, Head, Saved, SnapshotError

_log = logging.getLogger(__name__)

# So many rows are taken over before others have their turn: about five milliseconds.
_ROWS_AT_ONCE = 2000
# A snapshot is written anew once it lacks this share of what is in generations.
_LACKING_SHARE = 0.1


class Readable(Protocol):
    """A store that remembers over a restart."""

    def meanings(self, skip: Callable[[bytes], bool]) -> AsyncIterator[list[Entry]]:
        """Yield the live entries that have a meaning, but those to skip, in batches; `skip` is asked on any thread."""
        ...


class Keeper:
    """The snapshot's file: what it was written of, and whether it is worth to write it anew."""

    def __init__(self, index: VectorIndex, path: Path | None, embedder: str) -> None:
        self._index = index
        self._path = path
        self._embedder = embedder
        self._generation = 0
        self._written = 0

    async def keep(self, thread: Executor) -> None:
        """Write a snapshot on the thread, where the last one lacks too much."""
        keepable = self._index.generations()
        count = sum(len(each.generation) for each in keepable)
        if self._path is None or not count or abs(count - self._written) <= _LACKING_SHARE * count:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(thread, self._write, self._path, keepable)
        except OSError as error:
            _log.warning("the snapshot of vectors cannot be written: %s", error)
        else:
            self._written = count

    def read(self) -> list[Saved]:
        """Return what the snapshot holds; nothing where it is of no use. On any thread."""
        if self._path is None:
            return []
        try:
            head, saved = snapshot.read(self._path)
        except FileNotFoundError:
            return []
        except (SnapshotError, OSError) as error:
            _log.warning("the snapshot of vectors is of no use, and is built anew: %s", error)
            return []
        if head.embedder != self._embedder:
            _log.info("the snapshot of vectors is another embedder's, and is built anew")
            return []
        self._generation, self._written = head.generation, head.count
        return saved

    def _write(self, path: Path, keepable: Sequence[Keepable]) -> None:
        saved = [each.save() for each in keepable]
        self._generation += 1
        count, until = sum(each.count for each in saved), max(each.stored_until for each in saved)
        head = Head(SNAPSHOT_VERSION, self._embedder, self._generation, count, until)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        snapshot.write(path, head, saved)


class Loader:
    """One start's work, a little at a time."""

    def __init__(self, index: VectorIndex, keeper: Keeper, disk: Readable, add: Callable[[Entry], None]) -> None:
        self._index = index
        self._keeper = keeper
        self._disk = disk
        self._add = add

    async def load(self) -> None:
        """Take over the snapshot, then read from the store what is not in it."""
        try:
            for saved in await asyncio.to_thread(self._keeper.read):
                await self._adopt(saved)
            async for batch in self._disk.meanings(self._index.__contains__):
                for entry in batch:
                    self._add(entry)
                await asyncio.sleep(0)
        except Exception:  # noqa: BLE001 - the store may have any trouble, and the log has it
            _log.exception("not all answers on disk can be found by meaning")
        _log.info("%d answers can be found by meaning", len(self._index))

    async def _adopt(self, saved: Saved) -> None:
        adopted = self._index.adopt(saved)
        if adopted is None:
            return
        for start in range(0, saved.count, _ROWS_AT_ONCE):
            self._index.revive(adopted, range(start, min(saved.count, start + _ROWS_AT_ONCE)))
            await asyncio.sleep(0)
        self._index.adopted(adopted)
