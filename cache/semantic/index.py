"""Vectors in memory, by partition: who is nearest. Knows keys, not entries; one thread changes it, the event loop's.

The store has the truth: whatever is found here is read there and scored again. So what is here may be late, but no
answer can be wrong by it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cache.contract import Entry
from cache.semantic.block import Block, View
from cache.semantic.record import KEY_BYTES, Record, text_digest, unpack
from cache.semantic.vectors import read_vector, require_dims

# What one vector costs beside its components, rounded up: its record, and the slots of four tables. So does a twin.
RECORD_OVERHEAD_BYTES = 640
# What an otherwise empty partition costs: its objects and tables.
PARTITION_OVERHEAD_BYTES = 2048

# How many of the oldest are looked at with each addition, whether their time is over.
_SWEPT = 2
# One text may be asked in other shapes, each with a key of its own.
_MOST_TWINS = 4


@dataclass(slots=True)
class Named:
    """A partition, and the one row that each text may have in it."""

    name: bytes
    place: int
    rows: Block
    texts: dict[int, int] = field(default_factory=dict)


class VectorIndex:
    """The nearest keys of a partition. Bounded in bytes; the vector added longest ago goes first.

    Rows have numbers that rise. A record is packed, since a million objects would each be looked at by the collector.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._clock = clock
        self._partitions: dict[bytes, Named] = {}
        self._by_place: dict[int, Named] = {}
        self._records: dict[int, bytes] = {}
        self._numbers: dict[bytes, int] = {}
        self._twins: dict[int, list[Record]] = {}
        self._oldest = 0
        self._next = 0
        self._next_place = 0

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: bytes) -> bool:
        return key in self._numbers

    def add(self, entry: Entry) -> int:
        """Index the entry's meaning, in place of what its key, or its text, had; return how many were evicted.

        Of several keys with one text that which was stored last is found; the others wait for its removal. Raises
        `ValueError` where the vector is not normalised, or not of the partition's dimensions.
        """
        meaning = entry.meaning
        assert meaning is not None, "an entry without a meaning is not indexed"
        row, digest = read_vector(meaning.vector), text_digest(meaning.text)
        # First, so that vectors of other dimensions are in the way for no longer than their time.
        self._sweep()
        found = self._partitions.get(meaning.partition)
        if found is not None:
            require_dims(row, found.rows.dims)
        self.remove(entry.key)
        found = self._partition(meaning.partition, len(row))
        record = Record(entry.key, digest, found.place, entry.stored_at, entry.expires_at)
        twin = found.texts.get(digest)
        if twin is not None and unpack(self._records[twin]).stored_at > entry.stored_at:
            self._keep_twin(twin, record)
            return self._evict()
        number, self._next = self._next, self._next + 1
        found.rows.append(number, row)
        former = [] if twin is None else [*self._leave_twins(twin), unpack(self._records[twin])]
        self._note(number, found, record)
        if twin is not None:
            self._forget(twin)
        for each in former:
            self._keep_twin(number, each)
        return self._evict()

    def remove(self, key: bytes) -> None:
        """Forget the key, if it is there; another one of the same text takes its place."""
        number = self._numbers.get(key)
        if number is None:
            return
        twins = self._twins.get(number)
        if not twins:
            self._forget(number)
            return
        del self._numbers[key]
        self.used_bytes -= RECORD_OVERHEAD_BYTES
        if self._records[number].startswith(key):
            self._records[number] = twins.pop().pack()
        else:
            twins[:] = [each for each in twins if each.key != key]
        if not twins:
            del self._twins[number]

    def resize(self, max_bytes: int) -> int:
        """Change the bound; return how many were evicted."""
        self.max_bytes = max_bytes
        return self._evict()

    def view(self, partition: bytes) -> View | None:
        """Return what a search of the partition may read on any thread; ask for the keys of its findings here."""
        found = self._partitions.get(partition)
        return None if found is None else found.rows.view()

    def key_of(self, number: int) -> bytes | None:
        """Return the key of a row; None where it has been removed."""
        record = self._records.get(number)
        return None if record is None else record[:KEY_BYTES]

    def _partition(self, name: bytes, dims: int) -> Named:
        found = self._partitions.get(name)
        if found is None:
            found = Named(name, self._next_place, Block(dims))
            self._next_place += 1
            self._partitions[name] = self._by_place[found.place] = found
            self.used_bytes += PARTITION_OVERHEAD_BYTES
        return found

    def _note(self, number: int, found: Named, record: Record) -> None:
        self._records[number] = record.pack()
        self._numbers[record.key] = found.texts[record.digest] = number
        self.used_bytes += RECORD_OVERHEAD_BYTES + found.rows.cost_bytes(len(found.rows) - 1)

    def _keep_twin(self, number: int, record: Record) -> None:
        """Let a key wait behind the row of its text."""
        self._numbers[record.key] = number
        twins = sorted([*self._leave_twins(number), record], key=lambda each: each.stored_at)
        for each in twins[:-_MOST_TWINS]:
            del self._numbers[each.key]
        self._twins[number] = twins[-_MOST_TWINS:]
        self.used_bytes += RECORD_OVERHEAD_BYTES * len(self._twins[number])

    def _leave_twins(self, number: int) -> list[Record]:
        """Have no keys wait behind a row any more, and return them."""
        twins = self._twins.pop(number, [])
        self.used_bytes -= RECORD_OVERHEAD_BYTES * len(twins)
        return twins

    def _forget(self, number: int) -> None:
        """Forget a row, and all keys of its text that point to it still."""
        record = unpack(self._records.pop(number))
        for each in (record, *self._leave_twins(number)):
            if self._numbers.get(each.key) == number:
                del self._numbers[each.key]
        found = self._by_place[record.place]
        if found.texts[record.digest] == number:
            del found.texts[record.digest]
        self.used_bytes -= RECORD_OVERHEAD_BYTES + found.rows.cost_bytes(len(found.rows) - 1)
        found.rows.remove(number)
        if not found.texts:
            del self._partitions[found.name], self._by_place[found.place]
            self.used_bytes -= PARTITION_OVERHEAD_BYTES

    def _evict(self) -> int:
        """Make room; return how many went for it, the oldest first."""
        evicted = 0
        while self.used_bytes > self.max_bytes and self._records:
            self._forget(self._first())
            evicted += 1
        return evicted

    def _sweep(self) -> None:
        """Forget the oldest whose time is over, a few at a time."""
        now = self._clock()
        for _ in range(min(_SWEPT, len(self._records))):
            oldest = unpack(self._records[self._first()])
            if oldest.expires_at > now:
                break
            self.remove(oldest.key)

    def _first(self) -> int:
        while self._oldest not in self._records:
            self._oldest += 1
        return self._oldest
