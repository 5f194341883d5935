"""Frees what purged answers still take, piece by piece, while others are served. Knows no key and no value.

A purge is in force without it: nothing dead is served. It is so that memory, disk, and who reads the disk later, have
done with them.
"""

import asyncio

from cache.disk import DiskStore
from cache.memory import MemoryStore
from cache.purges import Purges

# Between two pieces of work on the disk its thread is free for those who read.
_PAUSE_S = 0.01


class Sweeper:
    """At most one task, that goes once through memory and disk, and again where a purge came meanwhile."""

    def __init__(self, memory: MemoryStore, disk: DiskStore | None, purges: Purges) -> None:
        self.removed = 0
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
                await asyncio.sleep(0)
            if self._disk is not None:
                async for removed in self._disk.sweep(self._purges.is_dead):
                    self.removed += removed
                    await asyncio.sleep(_PAUSE_S)
