"""The fastest tier: entries in this process, those asked for once first out. Knows nothing of disks or of meaning."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cache.contract import Entry
from cache.ghosts import Ghosts

# What the interpreter spends beside the payload, measured with tracemalloc and rounded up: the entry, its numbers, the
# headers of its byte strings, its slot and the place in the queue; then the meaning, its text and three byte strings.
ENTRY_OVERHEAD_BYTES = 464
MEANING_OVERHEAD_BYTES = 272
GROUP_OVERHEAD_BYTES = 64

# The share of the budget in which newcomers prove themselves, as in S3-FIFO.
_SMALL_SHARE = 0.1
# The most of it that may be spent on remembering who has left.
_GHOST_SHARE = 0.05
# Being asked for more often than this says nothing more.
_MOST_USES = 3
# Entries in use that one eviction may pass over; each step is paid for by an earlier hit, but not all at once.
_MOST_PASSED_OVER = 64
_BATCH = 256


@dataclass(slots=True)
class MemoryCounters:
    """What happened since the start. `refused`: entries that the budget has no room for, or none before they return.

    Of the entries `kept`, those that are not there any more were `refused`, `replaced`, `evictions`, `expired` or
    `removed`. A miss is counted by who looks further than memory, so that a hit ratio counts each look-up once.
    """

    hits: int = 0
    misses: int = 0
    kept: int = 0
    refused: int = 0
    replaced: int = 0
    evictions: int = 0
    expired: int = 0
    removed: int = 0


def footprint_bytes(entry: Entry) -> int:
    """Return what keeping this entry costs, interpreter overhead included."""
    size = len(entry.key) + len(entry.value) + ENTRY_OVERHEAD_BYTES
    for group in entry.groups:
        size += len(group) + GROUP_OVERHEAD_BYTES
    meaning = entry.meaning
    if meaning is None:
        return size
    # Four bytes per character is the widest a text can be stored.
    text_bytes = len(meaning.text) * (1 if meaning.text.isascii() else 4)
    payload = len(meaning.partition) + len(meaning.vector) + len(meaning.tokens) + text_bytes
    return size + payload + MEANING_OVERHEAD_BYTES


class _Slot:
    """An entry, what it costs, and how often it was asked for since it was last considered."""

    __slots__ = ("entry", "size", "uses")

    def __init__(self, entry: Entry, size: int) -> None:
        self.entry = entry
        self.size = size
        self.uses = 0


class MemoryStore:
    """A `Store` bounded in bytes, whose order of eviction is S3-FIFO (Yang et al., SOSP 2023), counted in bytes.

    A newcomer waits in a small queue: asked for again it moves to the main one, else it leaves and only its key is
    remembered for a while, so that a scan of things asked for once passes by what is in use. Who comes back while its
    key is remembered goes to the main queue at once. A read counts a use and moves nothing; it never extends a life.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self.counters = MemoryCounters()
        self._max_bytes = max_bytes
        self._clock = clock
        self._main: OrderedDict[bytes, _Slot] = OrderedDict()
        self._small: OrderedDict[bytes, _Slot] = OrderedDict()
        self._bytes = self._small_bytes = 0
        self._ghosts = Ghosts()

    def __len__(self) -> int:
        return len(self._main) + len(self._small)

    @property
    def used_bytes(self) -> int:
        """What is spent of the budget."""
        return self._bytes + self._ghosts.used_bytes

    @property
    def max_bytes(self) -> int:
        """The budget."""
        return self._max_bytes

    def resize(self, max_bytes: int) -> None:
        """Change the budget; what is over it goes at once."""
        self._max_bytes = max_bytes
        self._evict()

    def peek(self, key: bytes) -> Entry | None:
        """Return the live entry at once, or None; this is the hot path of every exact hit."""
        slot = self._main.get(key) or self._small.get(key)
        if slot is None:
            return None
        entry = slot.entry
        if entry.is_over(self._clock()):
            self._drop(key)
            self.counters.expired += 1
            return None
        if slot.uses < _MOST_USES:
            slot.uses += 1
        self.counters.hits += 1
        return entry

    def keep(self, entry: Entry) -> bool:
        """Keep the entry, replacing one of the same key, and evict what is over the budget; tell whether it is here."""
        counters, key, size = self.counters, entry.key, footprint_bytes(entry)
        counters.kept += 1
        former = self._main.get(key) or self._small.get(key)
        if former is not None:
            counters.replaced += 1
        if size > self._max_bytes:
            self._drop(key)
            counters.refused += 1
            return False
        if former is not None:
            self._replace(former, entry, size)
        elif self._ghosts.take(key, len(self)):
            self._main[key] = _Slot(entry, size)
            self._bytes += size
        elif size > self._max_bytes * _SMALL_SHARE and self.used_bytes + size > self._max_bytes:
            # It would push out all other newcomers and then itself.
            self._remember(key)
            counters.refused += 1
        else:
            self._small[key] = _Slot(entry, size)
            self._small_bytes += size
            self._bytes += size
        self._evict()
        return key in self._main or key in self._small

    def discard(self, key: bytes) -> None:
        """Forget the entry, if it is there."""
        if self._drop(key):
            self.counters.removed += 1

    def discard_only(self, entry: Entry) -> bool:
        """Forget this very entry, and no later one of its key; return whether it was there."""
        slot = self._main.get(entry.key) or self._small.get(entry.key)
        if slot is None or slot.entry is not entry:
            return False
        self.discard(entry.key)
        return True

    def clear(self) -> None:
        """Forget everything."""
        self.counters.removed += len(self)
        self._main.clear()
        self._small.clear()
        self._ghosts.clear()
        self._bytes = self._small_bytes = 0

    def entries(self) -> Iterator[list[Entry]]:
        """Yield what is here and alive, in batches, as it was when it was asked for first."""
        # Out of order, which takes a tenth of the time: nobody is served meanwhile.
        slots = [*dict.values(self._main), *dict.values(self._small)]
        now = self._clock()
        for start in range(0, len(slots), _BATCH):
            yield [slot.entry for slot in slots[start : start + _BATCH] if not slot.entry.is_over(now)]

    async def get(self, key: bytes) -> Entry | None:
        """Return the live entry, or None."""
        entry = self.peek(key)
        if entry is None:
            self.counters.misses += 1
        return entry

    async def put(self, entry: Entry) -> None:
        """Keep the entry, replacing one of the same key."""
        self.keep(entry)

    async def remove(self, key: bytes) -> None:
        """Forget the entry, if it is there."""
        self.discard(key)

    def _replace(self, slot: _Slot, entry: Entry, size: int) -> None:
        self._bytes += size - slot.size
        if entry.key in self._small:
            self._small_bytes += size - slot.size
        slot.entry, slot.size = entry, size

    def _drop(self, key: bytes) -> bool:
        slot = self._main.pop(key, None)
        if slot is None:
            slot = self._small.pop(key, None)
            if slot is None:
                return False
            self._small_bytes -= slot.size
        self._bytes -= slot.size
        return True

    def _evict(self) -> None:
        if self.used_bytes <= self._max_bytes:
            return
        now = self._clock()
        while self.used_bytes > self._max_bytes and (self._small or self._main):
            if self._small_bytes > self._max_bytes * _SMALL_SHARE or not self._main:
                self._evict_newcomer(now)
            else:
                self._evict_from_main(now)
        if self.used_bytes > self._max_bytes:
            self._ghosts.clear()

    def _evict_newcomer(self, now: float) -> None:
        key, slot = self._small.popitem(last=False)
        self._small_bytes -= slot.size
        if slot.entry.is_over(now):
            self._bytes -= slot.size
            self.counters.expired += 1
        elif slot.uses:
            slot.uses = 0
            self._main[key] = slot
        else:
            self._bytes -= slot.size
            self.counters.evictions += 1
            self._remember(key)

    def _evict_from_main(self, now: float) -> None:
        for _ in range(_MOST_PASSED_OVER):
            slot = next(iter(self._main.values()))
            if not slot.uses or slot.entry.is_over(now):
                break
            slot.uses -= 1
            self._main.move_to_end(slot.entry.key)
        _, slot = self._main.popitem(last=False)
        self._bytes -= slot.size
        if slot.entry.is_over(now):
            self.counters.expired += 1
        else:
            self.counters.evictions += 1

    def _remember(self, key: bytes) -> None:
        self._ghosts.put(key, len(self), int(self._max_bytes * _GHOST_SHARE))
