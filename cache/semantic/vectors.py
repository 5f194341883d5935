"""Vectors as bytes and as rows: what can be compared, and how near two are. Knows no index."""

import faiss
import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]
_NORM_TOLERANCE = 0.01


def read_vector(vector: bytes) -> Row:
    """Return the little-endian float32 bytes as a row; raise `ValueError` unless it is a vector of length 1."""
    row: Row = np.frombuffer(vector, dtype="<f4")
    norm = float(row @ row) ** 0.5
    # Written so that NaN, too, is refused.
    if not abs(norm - 1.0) <= _NORM_TOLERANCE:
        raise ValueError(f"vector has length {norm}, only normalised vectors (1 ± {_NORM_TOLERANCE}) are compared")
    return row


def similarity(a: bytes, b: bytes) -> float:
    """Return the cosine of two vectors; raise `ValueError` where they cannot be compared."""
    return nearness(read_vector(a), b)


def nearness(row: Row, vector: bytes) -> float:
    """Return the cosine of a vector that was read and another; raise `ValueError` where they cannot be compared."""
    other = read_vector(vector)
    require_dims(other, len(row))
    return float(row @ other)


def inner_products(row: Row, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the inner products of a row and each of many, side by side in memory.

    On the core of the caller: a matrix product of numpy would take all cores.
    """
    products = np.empty(len(rows), np.float32)
    faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]
        faiss.swig_ptr(products), faiss.swig_ptr(row), faiss.swig_ptr(rows), len(row), len(rows)
    )
    return products


def require_dims(row: Row, dims: int) -> None:
    """Raise `ValueError` unless the row has as many components."""
    if len(row) != dims:
        raise ValueError(f"vector has {len(row)} dimensions, this partition has {dims}")
