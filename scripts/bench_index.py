#!/usr/bin/env python
"""Measures the index of the semantic cache with many vectors in one partition: look-ups, recall, memory.

Half of the vectors are random, half lie in clusters of about twenty. A question is a stored vector with noise, its
cosine about 0.9, as a paraphrase's. Every look-up is one of a single thread, beside what the embedder takes.
"""

import argparse
import gc
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import faiss
import numpy as np
import psutil
from numpy.typing import NDArray

from cache.contract import Entry, Meaning
from cache.semantic.index import VectorIndex

DIMS = 384
PARTITION = b"one partition of many entries"
_SPREAD = 0.6
_NOISE = 0.5
_BATCH = 50_000
_QUESTIONS = 2000
_CANDIDATES = 4

Rows = NDArray[np.float32]


class Look(NamedTuple):
    """One look-up: what it took by the clock and of the core, and what was nearest."""

    wall_ms: float
    core_ms: float
    key: bytes | None


def normalised(rows: NDArray[np.floating]) -> Rows:
    """Return the rows with length 1."""
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def make_vectors(count: int, rng: np.random.Generator) -> Rows:
    """Return half random, half clustered vectors, mixed."""
    centres = normalised(rng.standard_normal((max(1, count // 40), DIMS), np.float32))
    rows = np.empty((count, DIMS), np.float32)
    for start in range(0, count, _BATCH):
        size = min(_BATCH, count - start)
        part = rng.standard_normal((size, DIMS), np.float32)
        near = rng.random(size) < 0.5
        chosen = centres[rng.integers(0, len(centres), int(near.sum()))]
        part[near] = chosen + _SPREAD / np.sqrt(DIMS) * part[near]
        rows[start : start + size] = normalised(part)
    return rows


def make_entry(number: int, row: Rows) -> Entry:
    """Return the entry of a vector."""
    meaning = Meaning(PARTITION, f"question {number}", row.tobytes())
    return Entry(number.to_bytes(32), b"", 0.0, float("inf"), meaning)


def ask(index: VectorIndex, questions: Rows) -> Iterator[Look]:
    """Yield what each look-up took, in milliseconds of the clock and of the core, and the nearest key."""
    for row in questions:
        began, spent = time.perf_counter(), time.thread_time()
        view = index.view(PARTITION)
        found = [] if view is None else [index.key_of(each.number) for each in view.nearest(row, _CANDIDATES)]
        times = (time.perf_counter() - began) * 1e3, (time.thread_time() - spent) * 1e3
        yield Look(*times, found[0] if found else None)


def percentiles(looks: list[Look]) -> dict[str, float]:
    """Return the median and the tail, by the clock and by the core's time: others work on this machine too."""
    told = {f"p{p}_ms": float(np.percentile([look.wall_ms for look in looks], p)) for p in (50, 99, 99.9)}
    told |= {f"core_p{p}_ms": float(np.percentile([look.core_ms for look in looks], p)) for p in (50, 99, 99.9)}
    return {name: round(ms, 3) for name, ms in told.items()}


def nearest_exactly(rows: Rows, questions: Rows) -> NDArray[np.int64]:
    """Return the place of the nearest row of each question."""
    flat = faiss.IndexFlatIP(DIMS)
    flat.add(rows)
    return flat.search(questions, 1)[1][:, 0]  # type: ignore[no-any-return]


def main() -> None:
    """Fill, ask, remove, and print what was measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    rng, count = np.random.default_rng(options.seed), options.entries
    rows = make_vectors(count, rng)
    asked = rng.integers(0, count, _QUESTIONS)
    questions = normalised(rows[asked] + _NOISE / np.sqrt(DIMS) * rng.standard_normal((_QUESTIONS, DIMS)))
    print(json.dumps(measure(rows, questions, nearest_exactly(rows, questions)), indent=2))


def measure(rows: Rows, questions: Rows, truth: NDArray[np.int64]) -> dict[str, Any]:
    """Fill an index and ask it; remove a third of the rows, and ask for the others."""
    process, count = psutil.Process(), len(rows)
    before = process.memory_info().rss
    index = VectorIndex(1 << 50, lambda: 0.0)
    adding = 0.0
    for at, row in enumerate(rows):
        entry = make_entry(at, row)
        began = time.perf_counter()
        index.add(entry)
        adding += time.perf_counter() - began
    gc.collect()
    told: dict[str, Any] = {
        "entries": count,
        "add_us": round(adding / count * 1e6, 1),
        "bytes_per_entry": round((process.memory_info().rss - before) / count),
        "counted_bytes_per_entry": round(index.used_bytes / count),
    }
    looks = list(ask(index, questions))
    told |= {"look_up": percentiles(looks), "recall_at_1": share_found(looks, truth)}
    for at in range(0, count, 3):
        index.remove(at.to_bytes(32))
    alive = truth % 3 != 0
    looks = list(ask(index, questions[alive]))
    told["a_third_removed"] = {**percentiles(looks), "recall_at_1": share_found(looks, truth[alive])}
    return told


def share_found(looks: list[Look], truth: NDArray[np.int64]) -> float:
    """Return of how many questions the nearest was found."""
    return float(np.mean([look.key == int(at).to_bytes(32) for look, at in zip(looks, truth, strict=True)]))


if __name__ == "__main__":
    main()
