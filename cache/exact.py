"""The exact cache: memory first, then disk. Knows nothing of what a key stands for."""

from collections import Counter

from cache.contract import Entry
from cache.disk import DiskStore
from cache.memory import MemoryStore


class ExactCache:
    """A `Store` of two tiers. An entry found on disk is promoted to memory, with the time to live that it has left."""

    def __init__(self, memory: MemoryStore, disk: DiskStore | None) -> None:
        self.memory = memory
        self.disk = disk
        self._reading: Counter[bytes] = Counter()
        self._changed: set[bytes] = set()

    def peek(self, key: bytes) -> Entry | None:
        """Return the live entry if it is in memory; never waits."""
        return self.memory.peek(key)

    async def get(self, key: bytes) -> Entry | None:
        """Return the live entry, or None."""
        entry = self.memory.peek(key)
        if entry is not None or self.disk is None:
            return entry
        self._reading[key] += 1
        try:
            entry = await self.disk.get(key)
            # The key was put or removed while the disk was read: the old row must not be served, nor shadow the new.
            if key in self._changed:
                return self.memory.peek(key)
        finally:
            self._end_read(key)
        if entry is not None:
            self.memory.keep(entry)
        return entry

    def keep(self, entry: Entry) -> None:
        """Keep the entry in memory at once, and queue it for the disk; never waits."""
        self._note_change(entry.key)
        self.memory.keep(entry)
        if self.disk is not None:
            self.disk.keep(entry)

    async def put(self, entry: Entry) -> None:
        """Keep the entry, replacing one of the same key; see `keep`."""
        self.keep(entry)

    async def remove(self, key: bytes) -> None:
        """Forget the entry in both tiers."""
        self._note_change(key)
        self.memory.discard(key)
        if self.disk is not None:
            await self.disk.remove(key)

    async def clear(self) -> None:
        """Forget everything in both tiers."""
        self._changed.update(self._reading)
        self.memory.clear()
        if self.disk is not None:
            await self.disk.clear()

    def _note_change(self, key: bytes) -> None:
        if key in self._reading:
            self._changed.add(key)

    def _end_read(self, key: bytes) -> None:
        self._reading[key] -= 1
        if not self._reading[key]:
            del self._reading[key]
            self._changed.discard(key)
