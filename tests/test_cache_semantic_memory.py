"""What the index of the semantic cache takes in memory: it is counted, bounded, and given back."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from cache.contract import Entry, Meaning
from cache.semantic import block
from cache.semantic.index import RECORD_OVERHEAD_BYTES, VectorIndex
from cache.semantic.sketch import alike
from tests.fakes import VirtualClock
from tests.test_cache_semantic_index import PARTITION, ROWS, block_of, entry_of


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have partitions be large early, and of several chunks."""
    monkeypatch.setattr(block, "EXACT_ROWS", 8)
    monkeypatch.setattr(block, "_CHUNK_ROWS", 16)


@pytest.mark.parametrize("left", [1, 3, 9, 20, 100])
def test_memory_that_rows_have_left_is_given_back(left):
    """A partition that was large and is not any more holds no more than four times what its rows take."""
    rows = block_of(ROWS)
    for number in range(400 - left):
        rows.remove(number)

    assert len(rows._sketches) <= 4 * left
    last = rows._chunks[-1]
    assert rows._reached - last.start <= 4 * (left - last.start)
    assert len(rows._chunks[0].rows) <= max(8, 4 * left)
    assert [rows.view().nearest(ROWS[number], 1)[0].number for number in range(400 - left, 400)] == [
        *range(400 - left, 400)
    ]


def test_a_partition_of_one_question_takes_one_row():
    """Every system prompt makes a partition: most stay small."""
    rows = block_of(ROWS[:1])
    assert (len(rows._chunks[0].rows), len(rows._sketches)) == (1, 1)


def test_twins_are_counted():
    """Keys that wait behind the row of their text take memory, too, and the bound holds for them."""
    index = VectorIndex(1 << 30, lambda: 0.0)

    def twin(key: int) -> Entry:
        return replace(entry_of(0), key=key.to_bytes(32), stored_at=float(key))

    counted = [0]
    for key in range(1, 8):
        index.add(twin(key))
        counted.append(index.used_bytes)
    assert [after - before for before, after in pairwise(counted[1:])] == [RECORD_OVERHEAD_BYTES] * 4 + [0] * 2
    for key in range(7, 2, -1):
        index.remove(twin(key).key)
        assert index.used_bytes == counted[key - 3]
    index.max_bytes = counted[3]
    for key in (10, 9, 8):
        index.add(twin(key))
    assert index.used_bytes <= index.max_bytes


def test_however_many_are_wanted_few_are_read(monkeypatch):
    """Behind a thousand answers that are gone there may be more, but all rows are never read for one question."""
    asked = []
    monkeypatch.setattr(block, "alike", lambda own, all_, count: asked.append(count) or alike(own, all_, count))
    view = block_of(ROWS).view()
    for count in (1, 4, 16, 64, 256, 2048):
        assert len(view.nearest(ROWS[0], count)) == min(count, 400)
    assert asked == [64, 256, 1024, 1024, 1024, 2048]


def test_vectors_of_other_dimensions_are_in_the_way_for_their_time_alone():
    """An embedder was exchanged behind its name: what it told before ends, and then what it tells now is kept."""
    clock = VirtualClock(1000.0)
    index = VectorIndex(1 << 20, clock)
    index.add(entry_of(0, expires_at=1500.0))
    wide = replace(entry_of(1), meaning=Meaning(PARTITION, "wide", np.eye(32, dtype="<f4")[0].tobytes()))
    with pytest.raises(ValueError, match="has 32 dimensions, this partition has 16"):
        index.add(wide)
    clock.now = 1500.0
    index.add(wide)
    assert wide.key in index
    assert len(index) == 1
