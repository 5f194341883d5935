"""The fastest tier: entries in this process, least recently used first out. Knows nothing of disks or of meaning."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from cache.contract import Entry

# What the interpreter spends beside the payload, measured with tracemalloc and rounded up: the entry, its two floats,
# the headers of two byte strings and the slot in the table; then the meaning, its text and two more byte strings.
ENTRY_OVERHEAD_BYTES = 384
MEANING_OVERHEAD_BYTES = 224


@dataclass(slots=True)
class MemoryCounters:
    """What happened since the start. `refused` counts entries that alone exceed the budget."""

    hits: int = 0
    evictions: int = 0
    expired: int = 0
    refused: int = 0


def footprint_bytes(entry: Entry) -> int:
    """Return what keeping this entry costs, interpreter overhead included."""
    size = len(entry.key) + len(entry.value) + ENTRY_OVERHEAD_BYTES
    meaning = entry.meaning
    if meaning is None:
        return size
    # Four bytes per character is the widest a text can be stored.
    text_bytes = len(meaning.text) * (1 if meaning.text.isascii() else 4)
    return size + len(meaning.partition) + len(meaning.vector) + text_bytes + MEANING_OVERHEAD_BYTES


class MemoryStore:
    """A `Store` bounded in bytes. Reading refreshes an entry's place in the queue, never its time to live."""

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self.counters = MemoryCounters()
        self.used_bytes = 0
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def resize(self, max_bytes: int) -> None:
        """Change the budget; what is over it goes at once."""
        self._max_bytes = max_bytes
        self._evict()

    def peek(self, key: bytes) -> Entry | None:
        """Return the live entry at once, or None; this is the hot path of every exact hit."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at <= self._clock():
            self.discard(key)
            self.counters.expired += 1
            return None
        self._entries.move_to_end(key)
        self.counters.hits += 1
        return entry

    def keep(self, entry: Entry) -> None:
        """Keep the entry, replacing one of the same key, and evict the least recently used beyond the budget."""
        self.discard(entry.key)
        size = footprint_bytes(entry)
        if size > self._max_bytes:
            self.counters.refused += 1
            return
        self._entries[entry.key] = entry
        self.used_bytes += size
        self._evict()

    def discard(self, key: bytes) -> None:
        """Forget the entry, if it is there."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.used_bytes -= footprint_bytes(entry)

    def _evict(self) -> None:
        while self.used_bytes > self._max_bytes:
            _, evicted = self._entries.popitem(last=False)
            self.used_bytes -= footprint_bytes(evicted)
            self.counters.evictions += 1

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.used_bytes = 0

    async def get(self, key: bytes) -> Entry | None:
        """Return the live entry, or None."""
        return self.peek(key)

    async def put(self, entry: Entry) -> None:
        """Keep the entry, replacing one of the same key."""
        self.keep(entry)

    async def remove(self, key: bytes) -> None:
        """Forget the entry, if it is there."""
        self.discard(key)
