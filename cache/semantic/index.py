"""Vectors in memory, by partition: who is nearest. Knows keys, not entries; runs on whichever one thread owns it."""

from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from cache.contract import Meaning

# What one vector costs beside its components, rounded up: its record, four table slots, faiss's id and reverse map.
RECORD_OVERHEAD_BYTES = 640
# What an otherwise empty partition costs: two faiss objects and their proxies.
PARTITION_OVERHEAD_BYTES = 2048
_NORM_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored key and its cosine similarity to what was looked for, as the index sees it."""

    key: bytes
    similarity: float


@dataclass(frozen=True, slots=True)
class _Record:
    key: bytes
    text_digest: bytes
    partition: bytes
    stored_at: float


@dataclass(slots=True)
class _Partition:
    """One flat index. An exact scan has nothing to train, forgets an id truly, and never returns a wrong one.

    `ids` maps a text's digest to the one vector that it may have.
    """

    dims: int
    index: Any
    ids: dict[bytes, int] = field(default_factory=dict)


class VectorIndex:
    """The nearest keys of a partition. Bounded in bytes; the vector added longest ago goes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._partitions: dict[bytes, _Partition] = {}
        self._records: OrderedDict[int, _Record] = OrderedDict()
        self._ids: dict[bytes, int] = {}
        self._next_id = 0
        self.used_bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    def add(self, key: bytes, meaning: Meaning, stored_at: float) -> int:
        """Index the meaning under the key, in place of what this key, or this text, had; return how many were evicted.

        Of two keys with one text the one stored later stays: loading from disk may bring the earlier one last. Raises
        `ValueError` where the vector is not normalised, or not of the partition's dimensions.
        """
        vector = read_vector(meaning.vector)
        self.remove(key)
        digest = blake2b(meaning.text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        partition = self._partition_of(meaning.partition, vector.shape[1])
        twin = partition.ids.get(digest)
        if twin is not None:
            if self._records[twin].stored_at > stored_at:
                return 0
            # faiss would keep both under their ids: an index has no upsert.
            self._forget(twin)
            partition = self._partition_of(meaning.partition, vector.shape[1])
        number = self._next_id
        self._next_id += 1
        partition.index.add_with_ids(vector, np.array([number], dtype=np.int64))
        partition.ids[digest] = number
        self._records[number] = _Record(key, digest, meaning.partition, stored_at)
        self._ids[key] = number
        self.used_bytes += _vector_cost_bytes(partition.dims)
        return self._evict()

    def remove(self, key: bytes) -> None:
        """Forget the key, if it is there."""
        number = self._ids.get(key)
        if number is not None:
            self._forget(number)

    def clear(self) -> None:
        """Forget everything."""
        self._partitions.clear()
        self._records.clear()
        self._ids.clear()
        self.used_bytes = 0

    def nearest(self, partition: bytes, vector: bytes, count: int) -> list[Candidate]:
        """Return up to `count` keys of the partition, the most similar first. Raises `ValueError` like `add`."""
        query = read_vector(vector)
        found = self._partitions.get(partition)
        if found is None:
            return []
        _require_dims(query, found.dims)
        scores, ids = found.index.search(query, min(count, len(found.ids)))
        return [
            Candidate(self._records[number].key, float(score))
            for score, number in zip(scores[0], ids[0].tolist(), strict=True)
            if number >= 0
        ]

    def _partition_of(self, name: bytes, dims: int) -> _Partition:
        partition = self._partitions.get(name)
        if partition is None:
            partition = _Partition(dims, faiss.IndexIDMap2(faiss.IndexFlatIP(dims)))
            self._partitions[name] = partition
            self.used_bytes += PARTITION_OVERHEAD_BYTES
        elif partition.dims != dims:
            raise ValueError(f"vector has {dims} dimensions, this partition has {partition.dims}")
        return partition

    def _forget(self, number: int) -> None:
        record = self._records.pop(number)
        del self._ids[record.key]
        partition = self._partitions[record.partition]
        del partition.ids[record.text_digest]
        self.used_bytes -= _vector_cost_bytes(partition.dims)
        if partition.ids:
            partition.index.remove_ids(np.array([number], dtype=np.int64))
        else:
            del self._partitions[record.partition]
            self.used_bytes -= PARTITION_OVERHEAD_BYTES

    def _evict(self) -> int:
        evicted = 0
        while self.used_bytes > self._max_bytes and self._records:
            self._forget(next(iter(self._records)))
            evicted += 1
        return evicted


def use_one_core() -> None:
    """Keep faiss on one core in the calling thread, where OpenMP holds this setting: inference wants the others."""
    faiss.omp_set_num_threads(1)


def read_vector(vector: bytes) -> NDArray[np.float32]:
    """Return the little-endian float32 bytes as one row; raise `ValueError` unless it is a vector of length 1."""
    row = np.frombuffer(vector, dtype="<f4").reshape(1, -1)
    norm = float(np.linalg.norm(row))
    # Written so that NaN, too, is refused.
    if not abs(norm - 1.0) <= _NORM_TOLERANCE:
        raise ValueError(f"vector has length {norm}, only normalised vectors (1 ± {_NORM_TOLERANCE}) are compared")
    return row


def similarity(a: bytes, b: bytes) -> float:
    """Return the cosine of two vectors; raise `ValueError` where they cannot be compared."""
    first, second = read_vector(a), read_vector(b)
    _require_dims(first, second.shape[1])
    return float(first[0] @ second[0])


def _require_dims(row: NDArray[np.float32], dims: int) -> None:
    if row.shape[1] != dims:
        raise ValueError(f"vector has {row.shape[1]} dimensions, this partition has {dims}")


def _vector_cost_bytes(dims: int) -> int:
    return 4 * dims + RECORD_OVERHEAD_BYTES
