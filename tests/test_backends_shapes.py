"""Input shapes: which are told apart, learned, kept, and run before a worker counts as ready."""

import os
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import Job, Task
from backends.forkserver.client import ForkServer
from backends.frames import Decoder
from backends.manifest import read_manifest
from backends.onnx import OnnxEngine
from backends.shapes import MOST_REMEMBERED, MOST_WARMED, LearnedShapes
from backends.worker import main, model
from backends.worker.rows import RowRunner
from backends.worker.shapes import MOST_SHAPES, Shapes, bucket
from tests import toys

SLOW_S = 0.02


@given(st.integers(1, 5000), st.integers(0, 600))
def test_a_bucket_holds_its_size_and_is_at_most_half_as_large_again(size, most):
    """Sizes of one bucket are near each other; none is beyond what the model takes."""
    found = bucket(size, most)

    assert found == bucket(found, most)
    assert found <= 1.5 * size or found == 2 * size == 2
    assert found == most if most and most <= size else found >= size


def test_the_sizes_of_buckets():
    """There are two for each power of two."""
    assert [size for size in range(1, 65) if bucket(size) == size] == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]


def test_only_shapes_whose_first_run_costs_more_are_run_beforehand():
    """On a device where no first run costs more than the next, nothing is run; else the most frequent are."""
    shapes = LearnedShapes()
    shapes.heard([((1, 16), 100, 0.0072, 0.0070), ((8, 16), 100, 0.009, 0.006)])
    assert shapes.worth() == ()

    shapes.heard([((n, 32), n, 3.5, 0.08) for n in range(1, 13)])
    assert shapes.worth() == tuple((n, 32) for n in range(12, 12 - MOST_WARMED, -1))


def test_what_is_asked_for_no_more_gives_way():
    """Counts age, and no more than a number of shapes are remembered."""
    shapes = LearnedShapes()
    shapes.heard([((1,), 5000, 1.0, 0.1)])
    for _ in range(10):
        shapes.heard([((2,), 2000, 1.0, 0.1)])
    shapes.heard([((n,), 1, 1.0, 0.1) for n in range(3, 200)])

    assert shapes.worth()[:2] == ((2,), (1,))
    assert len(shapes.dump()) == MOST_REMEMBERED


def test_what_was_learned_outlives_a_restart():
    """What `dump` returned comes back as it was; what it cannot have returned is refused, and changes nothing."""
    shapes, fresh = LearnedShapes(), LearnedShapes()
    shapes.heard([((4, 128), 7, 2.0, 0.1)])
    fresh.load(shapes.dump())

    assert fresh.dump() == shapes.dump()
    for bad in ({}, [[[1], 1.0]], [[["a"], 1.0, 1.0, 1.0]], [[[1], "x", 1.0, 1.0]]):
        with pytest.raises(ValueError, match=r".+"):
            fresh.load(bad)
    assert fresh.worth() == ((4, 128),)


def told(shapes: Shapes) -> list[Any]:
    """Return what a worker tells now."""
    return [row for part in shapes.due() for frame in Decoder().feed(part) for row in frame.header["seen"]]


def test_a_shape_is_told_once_its_second_run_is_known_and_then_ever_more_seldom():
    """One frame at the second run, the fourth, the eighth; the runs told add up."""
    shapes, rows = Shapes(), []
    for _ in range(8):
        with shapes.run((2, 16)):
            pass
        rows += told(shapes)

    assert [(shape, count) for shape, count, _, _ in rows] == [([2, 16], 2), ([2, 16], 2), ([2, 16], 4)]
    for size in range(3 * MOST_SHAPES):
        with shapes.run((size,)):
            pass
    assert len(shapes._seen) == MOST_SHAPES


class SlowAtFirst:
    """A session whose first run of each shape is slow, as on a device that chooses its algorithms then."""

    def __init__(self) -> None:
        self.ran: list[tuple[int, ...]] = []

    def run(self, wanted: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Give zeros."""
        shape = next(iter(feed.values())).shape
        if shape not in self.ran:
            time.sleep(SLOW_S)
        self.ran.append(shape)
        return [np.zeros((shape[0], 8), np.float32) for _ in wanted]


def test_what_was_slow_once_is_run_before_the_next_worker_is_ready(tmp_path):
    """A worker tells the shapes of its jobs; the next runs those before it is ready, and no job meets a first run."""
    spec = toys.spec(toys.embedder(tmp_path))
    learned = LearnedShapes()
    job = Job(Task.EMBED, inputs=("w1 w2 w3", "w4"))

    def worker() -> tuple[RowRunner, SlowAtFirst]:
        session = SlowAtFirst()
        runner = RowRunner(model.around(spec, session))
        assert main._warm(runner, learned.worth()) == ""
        return runner, session

    runner, session = worker()
    warmed = len(session.ran)
    for number in range(2):
        runner.add(number, job)
        runner.step()
        learned.heard(told(runner.shapes))
    ((shape, *_),) = learned.dump()
    assert learned.worth() == (tuple(shape),)

    again, second = worker()
    before = second.ran.copy()
    again.add(1, job)
    again.step()
    assert session.ran[warmed] in before
    assert second.ran[-1] in before


async def test_real_workers_tell_their_shapes_and_run_them_at_their_next_start(tmp_path):
    """Over the real fork server: shapes come back to the engine; one that it is told to run does not hinder a start."""
    server = ForkServer(os.environ)
    try:
        engine = await OnnxEngine.open(toys.embedder(tmp_path), server, threads=1)
        replica = await engine.start()
        for _ in range(2):
            assert [event async for event in replica.stream(Job(Task.EMBED, inputs=("w1 w2",)))]
        while not engine.shapes.dump():
            assert [event async for event in replica.stream(Job(Task.EMBED, inputs=("w1 w2",)))]
        await replica.close()
        ((shape, *_),) = engine.shapes.dump()
        engine.shapes.heard([(shape, 9, 9.0, 0.1), ((3,), 9, 9.0, 0.1), ((9999, 9999), 9, 9.0, 0.1)])
        assert len(engine.shapes.worth()) == 3
        await (await engine.start()).close()
    finally:
        await server.close(5.0)


@pytest.mark.parametrize("make", [toys.decoder, toys.classifier, toys.simple, toys.simple_string])
def test_each_kind_of_worker_runs_the_shapes_that_it_told(tmp_path, make):
    """What a runner says of a shape it can run again."""
    spec = toys.spec(make(tmp_path))
    runner = main._runner(model.load(spec))
    runner.warm()

    for shape in list(runner.shapes._seen):
        seen = runner.shapes._seen[shape]
        seen.second_s = 0.0
        runner.warm_shape(shape)
        assert seen.second_s
    assert read_manifest(tmp_path) == spec.manifest
