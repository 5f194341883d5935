"""Embed and predict jobs: whatever shares a batch, each gets its own rows, and no failure spreads."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.contract import BadJob, Job, Task
from backends.frames import Decoder
from backends.worker import model
from backends.worker.rows import RowRunner, share
from tests import toys

_waiting = st.lists(st.integers(1, 50), min_size=1, max_size=12)


def load(directory) -> RowRunner:
    """Make a runner of a toy model."""
    runner = RowRunner(model.load(toys.spec(directory)))
    runner.warm()
    return runner


@pytest.fixture(scope="module", name="runner")
def _runner(tmp_path_factory) -> RowRunner:
    return load(toys.embedder(tmp_path_factory.mktemp("embedder")))


def finish(runner, *jobs: tuple[Any, ...]) -> dict[int, object]:
    """Run jobs, numbered from 0, to their end; return arrays, or messages of failures."""
    for number, inputs in enumerate(jobs):
        runner.add(number, Job(Task.EMBED, inputs=inputs))
    found = {}
    while runner.busy:
        for frame in Decoder().feed(b"".join(runner.step())):
            if frame.header["kind"] == "error":
                found[frame.header["id"]] = frame.header["message"]
            else:
                [array] = frame.arrays
                found[frame.header["id"]] = np.frombuffer(array.data, np.float32).reshape(array.shape)
    return found


@given(_waiting, st.integers(1, 40))
def test_a_batch_is_full_and_shared(waiting, max_batch):
    """A batch takes as many rows as wait, up to its size; no job gets less than an equal part that it could use."""
    taken = share(waiting, max_batch)

    assert sum(taken) == min(sum(waiting), max_batch)
    assert all(0 <= part <= left for part, left in zip(taken, waiting, strict=True))
    fair = max_batch // len(waiting)
    assert all(part >= min(left, fair) for part, left in zip(taken, waiting, strict=True))


@settings(max_examples=25)
@given(st.lists(st.lists(st.lists(st.integers(4, 60), min_size=1, max_size=6), min_size=1, max_size=9), max_size=5))
def test_rows_are_the_same_in_any_company(runner, jobs):
    """Jobs of any sizes that run together get the vectors that each input has alone, in their order."""
    found = finish(runner, *(tuple(map(tuple, inputs)) for inputs in jobs))

    for number, inputs in enumerate(jobs):
        for vector, row in zip(found[number], inputs, strict=True):
            [alone] = finish(runner, (tuple(row),))[0]
            assert np.allclose(vector, alone, atol=1e-6)


def test_a_large_job_does_not_hold_up_a_small_one(runner):
    """A job of one input, behind one of many batches, is answered by the first step."""
    runner.add(1, Job(Task.EMBED, inputs=("w1",) * 40))
    runner.add(2, Job(Task.EMBED, inputs=("w2",)))
    frames = Decoder().feed(b"".join(runner.step()))
    runner.cancel(1)

    assert [frame.header["id"] for frame in frames] == [2]
    assert not runner.busy


def test_one_that_fails_fails_alone(tmp_path):
    """When a run fails for one job's token, its batch mates are answered, and the runner goes on."""
    runner = load(toys.embedder(tmp_path, known=20))
    found = finish(runner, ("w1",), ("w2", "w60"), ("w3",))

    assert "the model failed" in found[1]
    assert [found[0].shape, found[2].shape] == [(1, 8), (1, 8)]
    assert list(finish(runner, ("w1",))) == [0]


def test_another_task_is_refused(runner):
    """An embedder that is asked to predict raises BadJob."""
    with pytest.raises(BadJob, match="task embed was asked for predict"):
        runner.add(1, Job(Task.PREDICT, inputs=("w1",)))
