"""What is counted of each model."""

import pytest

from backends.contract import Job, Task, Tensor
from gateway.counting.model_statistics import Duration, ModelStatistics

ROWS = Job(Task.INFER, tensors=(Tensor("x", "INT8", (3, 1), b"abc"),))


def statistics(max_batch: int = 8) -> ModelStatistics:
    """Make statistics at a fixed time."""
    return ModelStatistics(lambda _: max_batch, wall_clock=lambda: 1700000000.5)


def told_of(duration: Duration) -> tuple[int, int]:
    """Return the count and the nanoseconds."""
    return duration.count, duration.ns


def test_a_run_is_taken_apart():
    """The time of a run is look-up, wait, inference, and the rest of the answer."""
    told = statistics()
    told.record("m", ROWS, total_s=1.0, lookup_s=0.1, wait_s=0.2, infer_s=0.3)
    sums = told.of("m")

    assert (told_of(sums.success), told_of(sums.queue)) == ((1, 10**9), (1, 200_000_000))
    assert (told_of(sums.compute_infer), told_of(sums.cache_miss)) == ((1, 300_000_000), (1, 100_000_000))
    assert told_of(sums.compute_output) == (1, 400_000_000)
    assert (sums.inference_count, sums.execution_count, sums.last_inference) == (3, 1, 1700000000500)
    assert told_of(sums.batches[3].compute_infer) == (1, 300_000_000)


def test_a_hit_is_a_success_and_no_inference():
    """What a cache answers is no execution."""
    told = statistics()
    told.record("m", ROWS, total_s=0.5, hit=True, lookup_s=0.25)

    assert told_of(told.of("m").cache_hit) == (1, 250_000_000)
    assert told_of(told.of("m").queue) == (1, 0)
    assert told.of("m").success.count == 1
    assert told.of("m").inference_count == told.of("m").execution_count == 0


def test_a_failure_is_only_that():
    """What failed is no success and no inference."""
    told = statistics()
    told.record("m", ROWS, total_s=0.5, failed=True)

    assert (told.of("m").fail.count, told.of("m").success.count, told.of("m").last_inference) == (1, 0, 0)


@pytest.mark.parametrize(
    ("job", "max_batch", "rows"),
    [
        (ROWS, 8, 3),
        (ROWS, 0, 1),
        (Job(Task.EMBED, inputs=("a", "b")), 0, 2),
        (Job(Task.CHAT), 0, 1),
    ],
)
def test_rows(job, max_batch, rows):
    """Rows are those of a batch, or texts; a model without a batch has one."""
    told = statistics(max_batch)
    told.record("m", job, total_s=0.0)

    assert told.of("m").inference_count == rows


def test_a_model_that_nobody_asked_has_done_nothing():
    """Zeros stand for a model without requests, and asking for them makes no entry."""
    told = statistics()
    assert told.of("m").success == Duration(0, 0)
    assert told.of("m") is not told.of("m")
