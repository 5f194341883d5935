"""The exact cache: memory first, then disk, then what gateways share, and nothing that was purged.

Knows nothing of what a key stands for.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cache.contract import Entry, Store
from cache.disk import DiskStore
from cache.memory import MemoryStore
from cache.purges import Purges, of_key
from cache.sweeping import Sweeper

# What is evicted at once takes some milliseconds.
_STEP_BYTES = 4 << 20


@dataclass(slots=True)
class ExactCounters:
    """What happened since the start. `purged`: dead entries that were met; `late`: answers begun before a purge."""

    purged: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class Census:
    """How many answers there are, each counted once whatever tiers it is in, and the bytes of what they say."""

    entries: int
    value_bytes: int


class Shared(Store, Protocol):
    """A tier that other gateways use as well."""

    def keep(self, entry: Entry) -> None:
        """Queue the entry; never waits."""
        ...

    async def tell(self) -> bool:
        """Tell the other gateways of purges; return whether the server has taken them."""
        ...

    def stats(self) -> Mapping[str, int]:
        """Return its counters by name; `up` is 1 where its server answers."""
        ...


class ExactCache:
    """A `Store` of tiers. An entry found in a slower one is promoted, with the time to live that it has left.

    Whoever keeps an answer stamps its entry with `purges.stamp()` from before the answer was asked for: what a purge
    overtook on its way is then dead when it arrives.
    """

    def __init__(
        self, memory: MemoryStore, disk: DiskStore | None, purges: Purges | None = None, shared: Shared | None = None
    ) -> None:
        self.memory = memory
        self.disk = disk
        self.shared = shared
        self.learn: Callable[[Entry], None] | None = None
        """Called with what another gateway made, when it is taken over."""
        self.purges = purges or Purges()
        self.counters = ExactCounters()
        self.sweeper = Sweeper(memory, disk, self.purges)
        self._reading: Counter[bytes] = Counter()
        self._changed: set[bytes] = set()

    def peek(self, key: bytes) -> Entry | None:
        """Return the live entry if it is in memory; never waits."""
        entry = self.memory.peek(key)
        if entry is not None and entry.stamp <= self.purges.newest and self.purges.is_dead(entry):
            self._bury(entry)
            return None
        return entry

    async def get(self, key: bytes) -> Entry | None:
        """Return the live entry, or None."""
        entry = self.peek(key)
        if entry is not None:
            return entry
        self.memory.counters.misses += 1
        if self.disk is None and self.shared is None:
            return None
        self._reading[key] += 1
        try:
            entry = await self._get_further(key)
            # The key was put or removed while the tiers were read: the old row must not be served, nor shadow the new.
            if key in self._changed:
                return self.peek(key)
        finally:
            self._end_read(key)
        if entry is not None:
            self.memory.keep(entry)
        return entry

    def keep(self, entry: Entry) -> bool:
        """Keep the entry in memory at once, and queue it for the disk; never waits.

        One that a purge has overtaken is let go; tell whether it is kept in this gateway's own tiers.
        """
        if self.purges.is_dead(entry):
            self.counters.late += 1
            return False
        self._note_change(entry.key)
        kept = self.memory.keep(entry)
        if self.disk is not None:
            kept = self.disk.keep(entry) or kept
        if self.shared is not None:
            self.shared.keep(entry)
        return kept

    def adopt(self, entry: Entry) -> bool:
        """Keep what another gateway made in this one's own tiers, unless it is purged; return whether it is alive."""
        if not self._take(entry):
            return False
        self._note_change(entry.key)
        self.memory.keep(entry)
        return True

    async def put(self, entry: Entry) -> None:
        """Keep the entry, replacing one of the same key; see `keep`."""
        self.keep(entry)

    async def remove(self, key: bytes) -> None:
        """Forget the entry in all tiers."""
        self._note_change(key)
        self.memory.discard(key)
        if self.disk is not None:
            await self.disk.remove(key)
        if self.shared is not None:
            await self.shared.remove(key)

    async def clear(self) -> None:
        """Forget everything in this gateway's own tiers."""
        self._changed.update(self._reading)
        self.memory.clear()
        if self.disk is not None:
            await self.disk.clear()

    async def purge(self, group: str) -> bool:
        """End all of a group, in constant time; return whether that would outlast the death of this process."""
        self.purges.purge(group)
        return await self._save()

    async def purge_key(self, key: bytes) -> bool:
        """End what is kept, or on its way, under this key; else as `purge`."""
        self.purges.purge(of_key(key))
        await self.remove(key)
        return await self._save()

    async def purge_stored_by(self, moment: float) -> bool:
        """End what was stored by this moment, in seconds since the epoch; else as `purge`."""
        self.purges.purge_stored_by(moment)
        return await self._save()

    async def entries(self) -> AsyncIterator[list[Entry]]:
        """Yield what is alive, in batches; who is in both tiers comes twice."""
        for batch in self.memory.entries():
            yield [entry for entry in batch if not self.purges.is_dead(entry)]
            await asyncio.sleep(0)
        if self.disk is not None:
            async for batch in self.disk.entries():
                yield [entry for entry in batch if not self.purges.is_dead(entry)]

    async def census(self, counts: Callable[[Entry], bool]) -> Census:
        """Count the living answers that `counts` says yes to. It reads them all: for who has the time."""
        found: dict[bytes, int] = {}
        async for batch in self.entries():
            found.update((entry.key, len(entry.value)) for entry in batch if counts(entry))
        return Census(len(found), sum(found.values()))

    async def resize(self, memory_bytes: int) -> None:
        """Change the budget of memory; a much smaller one is reached in steps, between which others are served."""
        while self.memory.used_bytes > memory_bytes + _STEP_BYTES:
            self.memory.resize(self.memory.used_bytes - _STEP_BYTES)
            await asyncio.sleep(0)
        self.memory.resize(memory_bytes)

    async def close(self) -> None:
        """End the work in the background; the tiers are closed by who opened them."""
        await self.sweeper.close()

    async def _save(self) -> bool:
        """Make purges durable, wherever answers are; then have what they ended cleared away."""
        durable = self.disk is None or await self.disk.save()
        if self.shared is not None:
            # Those on this disk are told to the others after a restart too.
            durable = (await self.shared.tell() or self.disk is not None) and durable
        self.sweeper.begin()
        return durable

    async def _get_further(self, key: bytes) -> Entry | None:
        """Look on disk, then in what is shared."""
        entry = None if self.disk is None else await self.disk.get(key)
        if entry is not None and self.purges.is_dead(entry):
            self._bury(entry)
            entry = None
        if entry is not None or self.shared is None:
            return entry
        entry = await self.shared.get(key)
        if entry is None or key in self._changed:
            return None
        return entry if self._take(entry) else None

    def _take(self, entry: Entry) -> bool:
        """Keep what another gateway made on disk, unless it is purged."""
        # Purges to come end it, even where the clock here is behind the one that stamped it.
        self.purges.observe(entry.stamp)
        if self.purges.is_dead(entry):
            self.counters.purged += 1
            return False
        if self.disk is not None:
            self.disk.keep(entry)
        if self.learn is not None:
            self.learn(entry)
        return True

    def _bury(self, entry: Entry) -> None:
        self.counters.purged += 1
        self.memory.discard_only(entry)

    def _note_change(self, key: bytes) -> None:
        if key in self._reading:
            self._changed.add(key)

    def _end_read(self, key: bytes) -> None:
        self._reading[key] -= 1
        if not self._reading[key]:
            del self._reading[key]
            self._changed.discard(key)
