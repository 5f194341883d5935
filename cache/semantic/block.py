"""The vectors of one partition: few are compared one by one, of many those whose sketches are alike. Knows no keys.

Nothing is trained and nothing is built: a row can be found from the moment that it was added, and never once it is
removed. One thread changes a block; others may search a `View` of it meanwhile. What such a search reads while its row
is exchanged is scored again by whoever uses it, so it can be overlooked for once, and never be wrong.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.semantic.sketch import BYTES, Sketches, alike, sketch
from cache.semantic.vectors import Row, inner_products

EXACT_ROWS = 4096
"""So many rows are compared one by one, in 0.2 ms; those behind them are kept in two bytes a component."""
# Behind the exact rows: their memory is taken as it is written.
_CHUNK_ROWS = 1 << 16
# Of so many times the memory that is used, what is not is given back.
_SPARSE = 4
# Of so many rows for each that is wanted the sketches are the most alike: the nearest are among these, as
# scripts/bench_index.py measures it.
_SHORTLISTED = 64
# But no more than so many, or as many as are wanted: they are read one here, one there.
_MOST_SHORTLISTED = 1024
_WHOLE = (1 << 15) - 1


class Found(NamedTuple):
    """A row that is near, by its number, and about its inner product with what was looked for."""

    score: float
    number: int


class Chunk(NamedTuple):
    """Rows side by side, and their `scales` where they are whole numbers; the first one's place is `start`."""

    start: int
    rows: NDArray[Any]
    scales: NDArray[np.float32] | None

    def put(self, place: int, row: Row) -> None:
        """Keep a row of length 1 at a place of the block."""
        at = place - self.start
        if self.scales is None:
            self.rows[at] = row
        else:
            self.scales[at] = scale = np.abs(row).max() / _WHOLE
            self.rows[at] = np.rint(row / scale)

    def copy(self, rows: int) -> "Chunk":
        """Return one with the first rows alone; behind the exact rows its room is as large, and not yet taken."""
        exact = self.scales is None
        kept = _chunk(self.start, rows if exact else _CHUNK_ROWS, self.rows.shape[1], exact=exact)
        kept.rows[:rows] = self.rows[:rows]
        if self.scales is not None and kept.scales is not None:
            kept.scales[:rows] = self.scales[:rows]
        return kept

    def scores(self, query: Row, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the inner products of a query and the rows at these places of the block."""
        at = places - self.start
        scores = inner_products(query, self.rows[at].astype(np.float32))
        return scores if self.scales is None else scores * self.scales[at]


class View(NamedTuple):
    """The rows of a block at one moment, for a search on any thread."""

    dims: int
    chunks: Sequence[Chunk]
    sketches: Sketches
    numbers: list[int]
    rows: int

    def nearest(self, query: Row, count: int) -> list[Found]:
        """Return up to `count` rows, the nearest first; where there are many, about the nearest."""
        if not self.rows:
            return []
        first = self.chunks[0].rows
        if self.rows <= len(first):
            return self._best(np.arange(self.rows), inner_products(query, first[: self.rows]), count)
        shortlisted = max(count, min(_SHORTLISTED * count, _MOST_SHORTLISTED))
        places = np.sort(alike(sketch(query), self.sketches[: self.rows], shortlisted))
        ends = np.searchsorted(places, [chunk.start + len(chunk.rows) for chunk in self.chunks])
        parts = zip(self.chunks, np.split(places, ends[:-1]), strict=True)
        return self._best(places, np.concatenate([chunk.scores(query, within) for chunk, within in parts]), count)

    def _best(self, places: NDArray[np.int64], scores: NDArray[np.float32], count: int) -> list[Found]:
        if len(scores) > count:
            chosen = np.argpartition(scores, len(scores) - count)[-count:]
            chosen = chosen[np.argsort(scores[chosen])[::-1]]
        else:
            chosen = np.argsort(scores)[::-1]
        found = zip(scores[chosen].tolist(), places[chosen].tolist(), strict=True)
        return [Found(score, number) for score, at in found for number in self.numbers[at : at + 1]]


class Block:
    """Rows under numbers of their own, side by side. Removing one moves the last into its place."""

    def __init__(self, dims: int) -> None:
        self.dims = dims
        self._chunks: list[Chunk] = []
        self._sketches = np.empty((1, BYTES), np.uint8)
        self._reached = 0
        self._numbers: list[int] = []
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def cost_bytes(self, place: int) -> int:
        """Return what the vector at this place takes."""
        return BYTES + (4 * self.dims if place < EXACT_ROWS else 2 * self.dims + 4)

    def append(self, number: int, row: Row) -> None:
        """Keep a row under a number that no row has."""
        place = len(self._numbers)
        self._room(place).put(place, row)
        if place == len(self._sketches):
            self._sketches = np.concatenate([self._sketches, np.empty_like(self._sketches)])
        self._sketches[place] = sketch(row)
        self._numbers.append(number)
        self._places[number] = place
        self._reached = max(self._reached, place + 1)

    def remove(self, number: int) -> None:
        """Forget the row of this number."""
        place = self._places.pop(number)
        last = self._numbers.pop()
        end = len(self._numbers)
        if last != number:
            self._move(end, place)
            self._numbers[place] = last
            self._places[last] = place
        if end:
            self._give_back(end)

    def view(self) -> View:
        """Return what a search on another thread may read."""
        return View(self.dims, tuple(self._chunks), self._sketches, self._numbers, len(self._numbers))

    def _give_back(self, end: int) -> None:
        """Let memory go that rows have left, by a copy of what is there still; a search keeps what it has."""
        last = self._chunks[-1]
        if last.start == end:
            self._chunks.pop()
            self._reached = end
        elif _SPARSE * (end - last.start) <= self._reached - last.start:
            self._chunks[-1] = last.copy(end - last.start)
            self._reached = end
        if _SPARSE * end <= len(self._sketches):
            self._sketches = self._sketches[:end].copy()

    def _move(self, place: int, to: int) -> None:
        source, target = self._room(place), self._room(to)
        row = source.rows[place - source.start].astype(np.float32)
        if source.scales is not None:
            row *= source.scales[place - source.start]
        target.put(to, row)
        self._sketches[to] = self._sketches[place]

    def _room(self, place: int) -> Chunk:
        """Return the chunk of a place, made where that is the first behind all others."""
        at = 0 if place < EXACT_ROWS else 1 + (place - EXACT_ROWS) // _CHUNK_ROWS
        if at < len(self._chunks) and place - self._chunks[at].start < len(self._chunks[at].rows):
            return self._chunks[at]
        if at:
            self._chunks.append(_chunk(place, _CHUNK_ROWS, self.dims, exact=False))
        else:
            grown = _chunk(0, min(EXACT_ROWS, max(1, 2 * place)), self.dims, exact=True)
            if place:
                grown.rows[:place] = self._chunks[0].rows
            self._chunks[:1] = [grown]
        return self._chunks[at]


def _chunk(start: int, rows: int, dims: int, *, exact: bool) -> Chunk:
    kept = np.empty((rows, dims), np.float32 if exact else np.int16)
    return Chunk(start, kept, None if exact else np.empty(rows, np.float32))
