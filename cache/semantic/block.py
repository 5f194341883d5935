"""Vectors that are compared one by one: exact, with nothing to train. Knows numbers of rows, not keys.

One thread changes a block; others may scan a `View` of it meanwhile. What such a scan reads while its row is
exchanged is scored again by whoever uses it, so it can be overlooked for once, and never be wrong.
"""

from collections.abc import Sequence
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from cache.semantic.vectors import Row

_SMALLEST_ROWS = 4
# Doubling copies what is there; past this size another chunk is begun instead.
_CHUNK_ROWS = 1024


class Found(NamedTuple):
    """A row that is near, by its number, and its inner product with what was looked for."""

    score: float
    number: int


class View(NamedTuple):
    """The rows of a block at one moment, for a scan on any thread."""

    chunks: Sequence[NDArray[np.float32]]
    numbers: list[int]
    rows: int

    def nearest(self, query: Row, count: int) -> list[Found]:
        """Return up to `count` rows, the nearest first."""
        scores = np.empty(self.rows, np.float32)
        for place, chunk in enumerate(self.chunks):
            start = place * _CHUNK_ROWS
            rows = min(len(chunk), self.rows - start)
            if rows <= 0:
                break
            # On one core without a copy; a matrix product of numpy would take all cores.
            faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]
                faiss.swig_ptr(scores[start:]), faiss.swig_ptr(query), faiss.swig_ptr(chunk), len(query), rows
            )
        return self._best(scores, count)

    def _best(self, scores: NDArray[np.float32], count: int) -> list[Found]:
        if len(scores) > count:
            chosen = np.argpartition(scores, len(scores) - count)[-count:]
            chosen = chosen[np.argsort(scores[chosen])[::-1]]
        else:
            chosen = np.argsort(scores)[::-1]
        numbers = self.numbers
        return [Found(float(scores[at]), numbers[at]) for at in chosen.tolist() if at < len(numbers)]


class Block:
    """Rows under numbers of their own, side by side. Removing one moves the last into its place."""

    def __init__(self, dims: int) -> None:
        self.dims = dims
        self._chunks: list[NDArray[np.float32]] = []
        self._numbers: list[int] = []
        self._slots: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, number: int) -> bool:
        return number in self._slots

    def append(self, number: int, row: Row) -> None:
        """Keep a row under a number that no row has."""
        slot = len(self._numbers)
        self._make_room(slot)
        self._chunks[slot // _CHUNK_ROWS][slot % _CHUNK_ROWS] = row
        self._numbers.append(number)
        self._slots[number] = slot

    def remove(self, number: int) -> None:
        """Forget the row of this number."""
        slot = self._slots.pop(number)
        last = self._numbers.pop()
        if last == number:
            return
        end = len(self._numbers)
        self._chunks[slot // _CHUNK_ROWS][slot % _CHUNK_ROWS] = self._chunks[end // _CHUNK_ROWS][end % _CHUNK_ROWS]
        self._numbers[slot] = last
        self._slots[last] = slot

    def view(self) -> View:
        """Return what a scan on another thread may read."""
        return View(tuple(self._chunks), self._numbers, len(self._numbers))

    def rows(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Copy out all numbers, ascending, and their rows; for a block that nobody changes any more."""
        numbers = np.array(self._numbers, np.int64)
        order = np.argsort(numbers)
        rows = np.concatenate(self._chunks)[: len(numbers)] if self._chunks else np.empty((0, self.dims), np.float32)
        return numbers[order], rows[order]

    def _make_room(self, slot: int) -> None:
        chunk = slot // _CHUNK_ROWS
        if chunk < len(self._chunks) and slot % _CHUNK_ROWS < len(self._chunks[chunk]):
            return
        if chunk == 0:
            grown = np.empty((max(_SMALLEST_ROWS, 2 * slot), self.dims), np.float32)
            if slot:
                grown[:slot] = self._chunks[0]
            self._chunks[:1] = [grown]
        else:
            self._chunks.append(np.empty((_CHUNK_ROWS, self.dims), np.float32))
