"""Vectors as 256 bits: whose are alike are near, and a million are compared in two milliseconds. Knows no rows.

A bit says on which side of a plane through the origin a vector lies; the planes are random, and the same for all
vectors of so many dimensions. Of two vectors, the share of planes that part them is the angle between them over pi
(Charikar, Similarity estimation techniques from rounding algorithms, 2002).
"""

from functools import lru_cache

import faiss
import numpy as np
from numpy.typing import NDArray

from cache.semantic.vectors import Row, inner_products

Sketches = NDArray[np.uint8]

_BITS = 256
BYTES = _BITS // 8


def sketch(row: Row) -> Sketches:
    """Return the sketch [32] of a vector."""
    sides = inner_products(row, _planes(len(row)))
    return np.packbits(sides > 0)


def alike(own: Sketches, sketches: Sketches, count: int) -> NDArray[np.int64]:
    """Return the places of up to `count` of the sketches [rows, 32], those that differ in the fewest bits from one."""
    # One question is no work for two cores; the setting holds for the thread that calls.
    faiss.omp_set_num_threads(1)
    found = faiss.knn_hamming(own.reshape(1, BYTES), sketches, min(count, len(sketches)), variant="mc")
    places: NDArray[np.int64] = found[1][0]
    return places


@lru_cache(maxsize=8)
def _planes(dims: int) -> NDArray[np.float32]:
    return np.random.default_rng(dims).standard_normal((_BITS, dims), np.float32)
