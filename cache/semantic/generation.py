"""Very many vectors as a graph: near ones are found without comparing all. Knows numbers of rows, not keys.

A generation never changes but for the rows that are struck out; the next one is made of it on another thread. HNSW
cannot delete, so a row that is struck out stays a step on the way and is no result; a selector sees to that. Nearness
is the distance of vectors of length 1: links chosen by inner products leave most of a tight cluster out of reach.
"""

import threading
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from cache.semantic.block import Found
from cache.semantic.vectors import Row

# Measured with scripts/bench_index.py: of two-byte components none is off by more than 5e-5, and that is not what is
# served by; with fewer links or a shorter search more of the nearest are overlooked.
_LINKS = 16
_BUILD_WIDTH = 64
_SEARCH_WIDTH = 192
# From this share of struck-out rows on, the next generation is built without them instead of on top of them.
_DEAD_SHARE = 0.25
_PORTION = 1024


@dataclass(frozen=True, slots=True)
class Generation:
    """A graph over rows in the order of their `numbers`, which ascend; a set bit in `dead` strikes a row out."""

    graph: Any
    numbers: NDArray[np.int64]
    dead: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def dead_count(self) -> int:
        """How many rows are struck out."""
        return int(np.bitwise_count(self.dead).sum())

    def strike(self, number: int) -> bool:
        """Strike the row of this number out; return whether it was here."""
        at = int(np.searchsorted(self.numbers, number))
        if at == len(self.numbers) or self.numbers[at] != number:
            return False
        self.dead[at >> 3] |= 1 << (at & 7)
        return True

    def revive(self, at: int) -> None:
        """Let the row at this place be found again."""
        self.dead[at >> 3] &= ~(1 << (at & 7)) & 0xFF

    def nearest(self, query: Row, count: int) -> list[Found]:
        """Return about the nearest rows that are not struck out, the nearest first; on any thread."""
        # The selector holds a bare pointer: what it points to must live as long as the search.
        dead = self.dead
        struck = faiss.IDSelectorBitmap(len(self.numbers), faiss.swig_ptr(dead))
        alive = faiss.IDSelectorNot(struck)
        options = faiss.SearchParametersHNSW(  # type: ignore[attr-defined]
            sel=alive, efSearch=max(_SEARCH_WIDTH, count)
        )
        distances, places = self.graph.search(query.reshape(1, -1), count, params=options)
        return [
            Found(1.0 - distance / 2, int(self.numbers[at]))
            for distance, at in zip(distances[0].tolist(), places[0].tolist(), strict=True)
            if at >= 0
        ]


def struck_out(graph: Any, first: int) -> Generation:
    """Return a generation of a graph that was read from a file: its numbers begin at `first`, all rows struck out."""
    rows = graph.ntotal
    return Generation(graph, np.arange(first, first + rows), np.packbits(np.ones(rows, bool), bitorder="little"))


class StoppedError(Exception):
    """The generation is not wanted any more."""


def build(
    before: Generation | None,
    numbers: NDArray[np.int64],
    rows: NDArray[np.float32],
    stop: threading.Event | None = None,
) -> Generation:
    """Make the next generation of the last one and more rows, whose numbers ascend and are higher than all before.

    Takes long; faiss lets go of the interpreter meanwhile. Who swaps it in strikes out what has died since. Once `stop`
    is set it raises `StoppedError` within a second or so: a process waits for its threads before it ends.
    """
    if before is None:
        graph, old, dead = _empty(rows.shape[1]), np.empty(0, np.int64), np.empty(0, np.uint8)
    elif before.dead_count <= _DEAD_SHARE * len(before):
        # The dead before the graph: who dies in between is struck out once more, and nobody is missed.
        dead, old, graph = before.dead.copy(), before.numbers, faiss.clone_index(before.graph)
    else:
        graph, old, dead = _without_dead(before, stop)
    _add(graph, rows, stop)
    count = len(old) + len(numbers)
    bits = np.zeros((count + 7) // 8, np.uint8)
    bits[: len(dead)] = dead
    return Generation(graph, np.concatenate([old, numbers]), bits)


def _without_dead(before: Generation, stop: threading.Event | None) -> tuple[Any, NDArray[np.int64], NDArray[np.uint8]]:
    """Build the graph of the rows that are left anew: with them, their numbers, and that none is struck out."""
    alive = np.flatnonzero(~np.unpackbits(before.dead, count=len(before), bitorder="little").astype(bool))
    graph = _empty(before.graph.d)
    for start in range(0, len(alive), _PORTION):
        _add(graph, before.graph.storage.reconstruct_batch(alive[start : start + _PORTION]), stop)
    return graph, before.numbers[alive], np.zeros((len(alive) + 7) // 8, np.uint8)


def _empty(dims: int) -> Any:
    halves: Any = faiss.ScalarQuantizer.QT_fp16
    graph: Any = faiss.IndexHNSWSQ(dims, halves, _LINKS, faiss.METRIC_L2)
    graph.hnsw.efConstruction = _BUILD_WIDTH
    graph.is_trained = True  # halves of floats have nothing to learn
    return graph


def _add(graph: Any, rows: NDArray[np.float32], stop: threading.Event | None) -> None:
    for start in range(0, len(rows), _PORTION):
        if stop is not None and stop.is_set():
            raise StoppedError
        graph.add(rows[start : start + _PORTION])
