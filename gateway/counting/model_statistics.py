"""What each model has done since the start, in the counts and nanoseconds of the Open Inference Protocol.

Knows neither pipeline nor wire: it is told of each request once, when it has ended.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from backends.contract import Job, Task

_NS = 1_000_000_000
_MS = 1000


@dataclass(slots=True)
class Duration:
    """How often something happened, and for how many seconds in all."""

    count: int = 0
    seconds: float = 0.0

    @property
    def ns(self) -> int:
        """The time in whole nanoseconds."""
        return round(self.seconds * _NS)

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        if seconds > 0.0:
            self.seconds += seconds


@dataclass(slots=True)
class Executions:
    """The executions with one number of rows."""

    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class OfModel:
    """One model's sums. `last_inference` is in milliseconds since the epoch; rows from the cache are no inferences."""

    last_inference: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    cache_hit: Duration = field(default_factory=Duration)
    cache_miss: Duration = field(default_factory=Duration)
    batches: dict[int, Executions] = field(default_factory=dict)

    def passed(self, total_s: float, lookup_s: float, infer_s: float) -> None:
        """Count an answer that a model began at once, `infer_s` after it was asked, to a request of one row."""
        self.last_inference = round(time.time() * _MS)
        self.inference_count += 1
        self.execution_count += 1
        self.queue.count += 1
        self.success.add(total_s)
        self.cache_miss.add(lookup_s)
        self.compute_infer.add(infer_s)
        self.compute_output.add(total_s - lookup_s - infer_s)

    def hit(self, seconds: float, now_s: float) -> None:
        """Count an answer from the cache, which took so long in all, at `now_s` since the epoch."""
        self.last_inference = round(now_s * _MS)
        self.queue.count += 1
        success, cache_hit = self.success, self.cache_hit
        success.count += 1
        success.seconds += seconds
        cache_hit.count += 1
        cache_hit.seconds += seconds


class ModelStatistics:
    """The sums of all models. `max_batch` tells how many rows a job of a model may have; 0: it has none to count."""

    def __init__(self, max_batch: Callable[[str], int], *, wall_clock: Callable[[], float] = time.time) -> None:
        self._max_batch = max_batch
        self._wall_clock = wall_clock
        self._models: dict[str, OfModel] = {}

    def of(self, model: str) -> OfModel:
        """Return one model's sums; zeros where nobody has asked it yet."""
        return self._models.get(model) or OfModel()

    def sums(self, model: str) -> OfModel:
        """Return one model's sums, for who counts its requests itself."""
        sums = self._models.get(model)
        if sums is None:
            sums = self._models[model] = OfModel()
        return sums

    def record(
        self,
        model: str,
        job: Job,
        *,
        total_s: float,
        hit: bool = False,
        failed: bool = False,
        lookup_s: float = 0.0,
        wait_s: float = 0.0,
        infer_s: float = 0.0,
    ) -> None:
        """Count a request that has ended, `total_s` after it came.

        `lookup_s` is what the caches took, `wait_s` the time until a replica took the job (a cold start is in it),
        `infer_s` the time from then to its first event. What is left of the total went into the rest of the answer.
        """
        sums = self.sums(model)
        if failed:
            sums.fail.add(total_s)
            return
        sums.success.add(total_s)
        sums.last_inference = round(self._wall_clock() * _MS)
        sums.queue.add(wait_s)  # clients take a model without such an entry for one that nobody asked
        if hit:
            sums.cache_hit.add(lookup_s)
            return
        rows = self._rows(model, job)
        output_s = total_s - lookup_s - wait_s - infer_s
        sums.inference_count += rows
        sums.execution_count += 1
        sums.cache_miss.add(lookup_s)
        sums.compute_infer.add(infer_s)
        sums.compute_output.add(output_s)
        if job.task is Task.INFER:  # as many different numbers of rows as the model takes at most
            batch = sums.batches.setdefault(rows, Executions())
            batch.compute_infer.add(infer_s)
            batch.compute_output.add(output_s)

    def _rows(self, model: str, job: Job) -> int:
        if job.task is Task.INFER:
            return job.tensors[0].shape[0] if self._max_batch(model) and job.tensors else 1
        return len(job.inputs) or 1
