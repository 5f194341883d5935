"""What the memory tier's admission is worth, on traces that are made from a seed."""

import pytest

from scripts.admission import Lru, Ours, replay, traces

# Measured at this size: 8 to 10 points over LRU on each trace; less than half of that is no chance.
MARGIN = 0.04
TRACES = {trace.name: trace for trace in traces(30_000, seed=7)}


@pytest.mark.parametrize("name", ["zipf", "zipf+scan", "zipf+single"])
def test_more_is_found_than_by_recency_alone(name):
    """On favourites, with scans, and among questions that never return the tier beats LRU, by hits and by bytes."""
    trace = TRACES[name]
    budget = trace.footprint_bytes() // 20

    ours, lru = replay(Ours(budget), trace), replay(Lru(budget), trace)

    assert ours.hit_ratio > lru.hit_ratio + MARGIN
    assert ours.byte_hit_ratio > lru.byte_hit_ratio + MARGIN
