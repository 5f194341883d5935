"""Vectors in memory, by partition: who is nearest. Knows keys, not entries; one thread changes it, the event loop's.

The store has the truth: whatever is found here is read there and scored again. So what is here may be late, and a
generation may be built or loaded beside it, but no answer can be wrong by it.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cache.contract import Entry
from cache.semantic.generation import Generation, struck_out
from cache.semantic.partition import EXACT_ROWS, Growth, Partition, Survey
from cache.semantic.record import KEY_BYTES, STRUCK_OUT, Record, text_digest, unpack
from cache.semantic.snapshot import Saved
from cache.semantic.vectors import read_vector, require_dims

# What one vector costs beside its components, rounded up: its record, the slots of three tables, its links in a graph.
RECORD_OVERHEAD_BYTES = 640
# What an otherwise empty partition costs: its objects, tables and the smallest block.
PARTITION_OVERHEAD_BYTES = 2048

# How many of the oldest are looked at with each addition, whether their time is over.
_SWEPT = 2
# One text may be asked in other shapes, each with a key of its own.
_MOST_TWINS = 4
# Rows of a snapshot are older than all that is added: their numbers begin here, those of the others at 0.
_FIRST = -(1 << 40)


class Candidate(NamedTuple):
    """A stored key and its cosine similarity to what was looked for, as the index sees it."""

    key: bytes
    similarity: float


@dataclass(slots=True)
class Named:
    """A partition, and the one row that each text may have in it."""

    name: bytes
    place: int
    rows: Partition
    texts: dict[int, int] = field(default_factory=dict)


class Keepable(NamedTuple):
    """A generation, and the records of its rows among all others."""

    name: bytes
    dims: int
    generation: Generation
    records: Mapping[int, bytes]

    def save(self) -> Saved:
        """Return what a snapshot keeps; on any thread, since a generation changes only in what is struck out."""
        numbers = self.generation.numbers.tolist()
        records = b"".join([self.records.get(number, STRUCK_OUT) for number in numbers])
        return Saved(self.name, self.dims, records, self.generation.graph)


class Adopted(NamedTuple):
    """A generation of a snapshot that is being taken over, by which partition, and the number of its first row."""

    of: Named
    saved: Saved
    first: int


class Due(NamedTuple):
    """A generation that is to be made, and for which partition."""

    of: Named
    growth: Growth


class VectorIndex:
    """The nearest keys of a partition. Bounded in bytes; the vector added longest ago goes first.

    Rows have numbers that rise. A record is packed, since a million objects would each be looked at by the collector.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.time, *, exact_rows: int = EXACT_ROWS) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._clock = clock
        self._exact_rows = exact_rows
        self._partitions: dict[bytes, Named] = {}
        self._by_place: dict[int, Named] = {}
        self._records: dict[int, bytes] = {}
        self._numbers: dict[bytes, int] = {}
        self._twins: dict[int, list[Record]] = {}
        self._large: dict[bytes, Named] = {}
        self._oldest = _FIRST
        self._next_adopted = _FIRST
        self._next = 0
        self._next_place = 0
        self._adopting: Named | None = None

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
        found = self._partitions.get(meaning.partition)
        if found is not None:
            require_dims(row, found.rows.dims)
        self.remove(entry.key)
        found = self._partition(meaning.partition, len(row))
        record = Record(entry.key, digest, found.place, entry.stored_at, entry.expires_at)
        twin = found.texts.get(digest)
        if twin is not None and unpack(self._records[twin]).stored_at > entry.stored_at:
            self._keep_twin(twin, record)
            return 0
        number, self._next = self._next, self._next + 1
        found.rows.add(number, row)
        former = [] if twin is None else [*self._twins.pop(twin, ()), unpack(self._records[twin])]
        self._note(number, found, record)
        if twin is not None:
            self._forget(twin)
        for each in former:
            self._keep_twin(number, each)
        if found.rows.is_large:
            self._large[found.name] = found
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
        if self._records[number].startswith(key):
            self._records[number] = twins.pop().pack()
        else:
            twins[:] = [each for each in twins if each.key != key]
        if not twins:
            del self._twins[number]

    def clear(self) -> None:
        """Forget everything."""
        for table in (self._partitions, self._by_place, self._records, self._numbers, self._twins, self._large):
            table.clear()
        self._adopting = None
        self._oldest = self._next
        self.used_bytes = 0

    def survey(self, partition: bytes) -> Survey | None:
        """Return what a search of the partition may read on any thread; `read` its findings here."""
        found = self._partitions.get(partition)
        return None if found is None else found.rows.survey()

    def key_of(self, number: int) -> bytes | None:
        """Return the key of a row; None where it has been removed."""
        record = self._records.get(number)
        return None if record is None else record[:KEY_BYTES]

    def nearest(self, partition: bytes, vector: bytes, count: int) -> list[Candidate]:
        """Return up to `count` keys of the partition, the most similar first. Raises `ValueError` like `add`."""
        row = read_vector(vector)
        survey = self.survey(partition)
        if survey is None:
            return []
        require_dims(row, survey.dims)
        found = survey.nearest(row, count)
        return [Candidate(key, each.score) for each in found if (key := self.key_of(each.number)) is not None]

    @property
    def is_due(self) -> bool:
        """Whether some partition is large enough for its next generation."""
        return bool(self._large) and self._adopting is None

    def due(self) -> Due | None:
        """Set a large block aside and return what makes a generation of it, for a thread; None where nothing is due."""
        while self.is_due:
            name, found = self._large.popitem()
            growth = found.rows.grow() if self._partitions.get(name) is found else None
            if growth is not None:
                return Due(found, growth)
        return None

    def settle(self, due: Due, generation: Generation | None) -> None:
        """Swap in what became of a `due` one; None takes back what was set aside for it."""
        if self._partitions.get(due.of.name) is not due.of:
            return
        if generation is None:
            due.of.rows.not_grown()
            return
        due.of.rows.grown(generation)
        if due.of.rows.is_large:
            self._large[due.of.name] = due.of

    def generations(self) -> list[Keepable]:
        """Return what is worth a snapshot."""
        return [
            Keepable(found.name, found.rows.dims, generation, self._records)
            for found in self._partitions.values()
            if (generation := found.rows.generation) is not None
        ]

    def adopt(self, saved: Saved) -> Adopted | None:
        """Take over a generation with all rows struck out; None where its partition has one. `revive` its rows next.

        Until `adopted` no other is taken over, nothing is evicted and nothing is due.
        """
        found = self._partition(saved.name, saved.dims)
        if found.rows.dims != saved.dims or not found.rows.is_new or self._adopting is not None:
            return None
        first, self._next_adopted = self._next_adopted, self._next_adopted + saved.count
        found.rows.adopt(struck_out(saved.graph, first))
        self._adopting = found
        return Adopted(found, saved, first)

    def revive(self, adopted: Adopted, rows: range) -> None:
        """Let rows of a generation that was taken over be found, unless something newer is in their place."""
        found, now = adopted.of, self._clock()
        for at in rows if found is self._adopting else ():
            packed = adopted.saved.record(at)
            record = unpack(packed)
            # What was to end by now may have been stored anew since: the store will tell, and for the others too.
            if packed == STRUCK_OUT or record.expires_at <= now:
                continue
            if record.key in self._numbers or record.digest in found.texts:
                continue
            found.rows.revive(at)
            self._note(adopted.first + at, found, record._replace(place=found.place, expires_at=math.inf))

    def adopted(self, adopted: Adopted) -> int:
        """End the take-over; return how many were evicted for it."""
        found = adopted.of
        if found is not self._adopting:
            return 0
        self._adopting, self._oldest = None, _FIRST
        if not found.texts:
            self._drop(found)
        elif found.rows.is_large:
            self._large[found.name] = found
        return self._evict()

    def _partition(self, name: bytes, dims: int) -> Named:
        found = self._partitions.get(name)
        if found is None:
            found = Named(name, self._next_place, Partition(dims, self._exact_rows))
            self._next_place += 1
            self._partitions[name] = self._by_place[found.place] = found
            self.used_bytes += PARTITION_OVERHEAD_BYTES
        return found

    def _note(self, number: int, found: Named, record: Record) -> None:
        self._records[number] = record.pack()
        self._numbers[record.key] = found.texts[record.digest] = number
        self.used_bytes += cost_bytes(found.rows.dims)

    def _keep_twin(self, number: int, record: Record) -> None:
        """Let a key wait behind the row of its text."""
        self._numbers[record.key] = number
        twins = sorted([*self._twins.get(number, ()), record], key=lambda each: each.stored_at)
        for each in twins[:-_MOST_TWINS]:
            del self._numbers[each.key]
        self._twins[number] = twins[-_MOST_TWINS:]

    def _forget(self, number: int) -> None:
        """Forget a row, and all keys of its text that point to it still."""
        record = unpack(self._records.pop(number))
        for each in (record, *self._twins.pop(number, ())):
            if self._numbers.get(each.key) == number:
                del self._numbers[each.key]
        found = self._by_place[record.place]
        if found.texts[record.digest] == number:
            del found.texts[record.digest]
        self.used_bytes -= cost_bytes(found.rows.dims)
        if found.texts or found is self._adopting:
            found.rows.remove(number)
        else:
            self._drop(found)

    def _drop(self, found: Named) -> None:
        del self._partitions[found.name], self._by_place[found.place]
        self.used_bytes -= PARTITION_OVERHEAD_BYTES

    def _evict(self) -> int:
        """Make room; beside that the oldest go whose time is over."""
        evicted, now, looked_at = 0, self._clock(), 0
        while self._records and self._adopting is None:
            number = self._first()
            if self.used_bytes > self.max_bytes:
                evicted += 1
                self._forget(number)
                continue
            oldest = unpack(self._records[number])
            if looked_at == _SWEPT or oldest.expires_at > now:
                break
            looked_at += 1
            self.remove(oldest.key)
        return evicted

    def _first(self) -> int:
        while self._oldest not in self._records:
            self._oldest = 0 if self._oldest == self._next_adopted else self._oldest + 1
        return self._oldest


def cost_bytes(dims: int) -> int:
    """Return what one vector costs at most, wherever it lies."""
    return 4 * dims + RECORD_OVERHEAD_BYTES
