"""Frees what purged answers still take, piece by piece, while others are served. Knows no value.

A purge is in force without it: nothing dead is served. It is so that memory, disk, and who finds answers there, have
done with them.
"""

import asyncio
from collections.abc import Callable

from cache.contract import Entry
from cache.disk import DiskStore
from cache.memory import MemoryStore
from cache.purges import Purges

# Between two pieces of work on the disk its thread is free for those who read.
_PAUSE_S = 0.01


class Sweeper:
    """At most one task, that goes once through memory and disk, and again where a purge came meanwhile."""

    def __init__(self, memory: MemoryStore, disk: DiskStore | None, purges: Purges) -> None:
        self.removed = 0
        self.forget: Callable[[bytes], None] | None = None
        """Called with the key of each answer that is gone from here, and has no other in its place."""
        self._memory = memory
        self._disk = disk
        self._purges = purges
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin, unless that is under way."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._sweep(), name="cache-sweeper")

    async def wait(self) -> None:
        """Wait until what was begun is done."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """End at once; what is left goes when it is met, or when its time is over."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _sweep(self) -> None:
        swept = -1
        while swept != self._purges.newest:
            swept = self._purges.newest
            for batch in self._memory.entries():
                for entry in batch:
                    if self._purges.is_dead(entry):
                        self.removed += self._memory.discard_only(entry)
                        self._tell(entry.key)
                await asyncio.sleep(0)
            if self._disk is not None:
                await self._sweep_disk(self._disk)

    async def _sweep_disk(self, disk: DiskStore) -> None:
        met: list[bytes] = []

        def is_dead(entry: Entry) -> bool:
            dead = self._purges.is_dead(entry)
            if dead:
                met.append(entry.key)
            return dead

        async for removed in disk.sweep(is_dead):
            self.removed += removed
            while met:
                self._tell(met.pop())
            await asyncio.sleep(_PAUSE_S)

    def _tell(self, key: bytes) -> None:
        """Have a key forgotten, unless an answer was kept under it since."""
        pending = self._disk is not None and self._disk.is_pending(key)
        if self.forget is not None and not pending and self._memory.peek(key) is None:
            self.forget(key)
