"""The vectors of one partition: a graph once they are many, and an exact block of what is new. Knows no entries.

A block that has grown large is set aside, and a thread makes the next generation of it, and of the last one. Until
that is swapped in all three are searched, so a row is found from the moment that it was added. One thread changes a
partition; a `Survey` of it may be searched on any.
"""

import heapq
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.semantic.block import Block, Found, View
from cache.semantic.generation import Generation, build
from cache.semantic.vectors import Row

EXACT_ROWS = 8192
"""So many rows are compared one by one in about a millisecond."""


class Survey(NamedTuple):
    """All rows of a partition at one moment, for a search on any thread."""

    dims: int
    views: Sequence[View]
    generation: Generation | None

    @property
    def cost_rows(self) -> int:
        """How many rows a search compares one by one, or as much work as that."""
        return sum(view.rows for view in self.views) + (EXACT_ROWS if self.generation is not None else 0)

    def nearest(self, query: Row, count: int) -> list[Found]:
        """Return up to `count` rows, the nearest first."""
        found = [view.nearest(query, count) for view in self.views]
        if self.generation is not None:
            found.append(self.generation.nearest(query, count))
        if len(found) == 1:
            return found[0]
        return heapq.nlargest(count, [each for part in found for each in part])


class Growth(NamedTuple):
    """What a thread needs to make the next generation; `make` takes long."""

    before: Generation | None
    numbers: NDArray[np.int64]
    rows: NDArray[np.float32]

    def make(self, stop: threading.Event | None = None) -> Generation:
        """Build the next generation. Raises `StoppedError` once `stop` is set."""
        return build(self.before, self.numbers, self.rows, stop)


class Partition:
    """Rows of one number of dimensions, under numbers that rise."""

    def __init__(self, dims: int, exact_rows: int = EXACT_ROWS) -> None:
        self.dims = dims
        self.generation: Generation | None = None
        self.count = 0
        self._exact_rows = exact_rows
        self._fresh = Block(dims)
        self._aside: Block | None = None
        self._struck_aside: list[int] = []

    @property
    def is_large(self) -> bool:
        """Whether so much is compared row by row that the next generation is due."""
        return len(self._fresh) > self._exact_rows

    def add(self, number: int, row: Row) -> None:
        """Keep a row; its number is higher than all before."""
        self._fresh.append(number, row)
        self.count += 1

    def remove(self, number: int) -> None:
        """Forget the row of this number, which is here."""
        self.count -= 1
        if number in self._fresh:
            self._fresh.remove(number)
            return
        if self._aside is not None:
            # The thread may have copied it already, so it is struck out of what comes.
            self._struck_aside.append(number)
            if number in self._aside:
                self._aside.remove(number)
                return
        if self.generation is not None:
            self.generation.strike(number)

    @property
    def is_new(self) -> bool:
        """Whether all rows are compared one by one as yet, and no generation is being made."""
        return self.generation is None and self._aside is None

    def adopt(self, generation: Generation) -> None:
        """Take over a generation whose numbers are lower than all here, with all of its rows struck out."""
        self.generation = generation

    def revive(self, at: int) -> None:
        """Let a row that was taken over be found."""
        assert self.generation is not None, "it was taken over"
        self.generation.revive(at)
        self.count += 1

    def survey(self) -> Survey:
        """Return what a search may read."""
        blocks = (self._fresh,) if self._aside is None else (self._fresh, self._aside)
        return Survey(self.dims, [block.view() for block in blocks if len(block)], self.generation)

    def grow(self) -> Growth | None:
        """Set a large block aside, and return what makes a generation of it; None where nothing is to be done."""
        if self._aside is not None or not self.is_large:
            return None
        self._aside, self._fresh = self._fresh, Block(self.dims)
        return Growth(self.generation, *self._aside.rows())

    def grown(self, generation: Generation) -> None:
        """Swap in what `grow` led to; what was removed since is struck out of it."""
        for number in self._struck_aside:
            generation.strike(number)
        self._struck_aside.clear()
        self._aside, self.generation = None, generation

    def not_grown(self) -> None:
        """Take back what was set aside: no generation came of it, and it is tried again with the next addition."""
        aside, self._aside = self._aside, None
        self._struck_aside.clear()
        if aside is not None:
            for number, row in zip(*aside.rows(), strict=True):
                self._fresh.append(int(number), row)
