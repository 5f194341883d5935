"""Runs infer jobs: those that wait and have the same sizes go into one batch. Knows nothing of sockets.

Zero-delay dynamic batching along the first dimension: a batch is never waited for; while one runs, the next gathers.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backends import messages
from backends.contract import BackendError, BadJob, Job, Task
from backends.frames import Buffer, FrameError
from backends.tensors import fits, shown
from backends.worker.arrays import Values, decode, encode, made_up, run
from backends.worker.declared import check_declaration
from backends.worker.model import RUN_ERRORS, Model
from backends.worker.shapes import Shape, Shapes, bucket


class OutputError(Exception):
    """The model gave something that it is not declared to give."""


# The last are what the runtime's binding raises of itself: for an output that is no text, or beyond all memory.
_FAILURES = (*RUN_ERRORS, OutputError, RuntimeError, ValueError, MemoryError)


@dataclass(frozen=True, slots=True)
class _Work:
    """A job that waits; `rows` is 0 where its first dimension is no batch. Jobs of one `key` can share a run."""

    number: int
    feed: dict[str, Values]
    wanted: Sequence[str]
    rows: int
    key: Hashable


def gather(waiting: Sequence[tuple[Hashable, int]], max_batch: int) -> list[int]:
    """Say which jobs share the next run, given key and rows of each, oldest first.

    The oldest is always among them, so that none waits for ever; one without rows runs alone.
    """
    (oldest, rows), *_ = waiting
    chosen, room = [0], max_batch - rows
    if rows:
        for place, (key, more) in enumerate(waiting[1:], 1):
            if key == oldest and more <= room:
                chosen.append(place)
                room -= more
    return chosen


class TensorRunner:
    """The jobs of an infer model; the gateway has checked names, datatypes and shapes."""

    def __init__(self, model: Model) -> None:
        """Raise ManifestError where the graph's tensors are not those that the manifest declares."""
        check_declaration(model.session, model.manifest)
        self._session = model.session
        self._takes = model.manifest.takes
        self._gives = {spec.name: spec for spec in model.manifest.gives}
        self._max_batch = model.manifest.max_batch
        self._works: dict[int, _Work] = {}
        self.shapes = Shapes()

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._works)

    def warm(self) -> str:
        """Run one inference on zeros and empty texts; return why it failed, which may be for just those values."""
        try:
            self._run_made_up({spec.name: spec.shape for spec in self._takes})
        except _FAILURES as error:
            return f"the first inference, on zeros and empty texts, failed: {error}"
        return ""

    def warm_shape(self, shape: Shape) -> None:
        """Run zeros and empty texts with these open sizes. Raises what a run raises, and ValueError for no shape."""
        sizes = iter(shape)
        open_sizes = {
            spec.name: [next(sizes, 1) if size == -1 else size for size in spec.shape] for spec in self._takes
        }
        self._run_made_up(open_sizes)

    def _run_made_up(self, shapes: Mapping[str, Sequence[int]]) -> None:
        feed = {spec.name: made_up(replace(spec, shape=tuple(shapes[spec.name]))) for spec in self._takes}
        rows = next(iter(feed.values())).shape[0] if self._max_batch else 0
        self._run(feed, list(self._gives), rows)

    def _shape(self, feed: Mapping[str, Values]) -> Shape:
        """Return the sizes that the manifest leaves open, in buckets, those of the batch no more than it takes."""
        return tuple(
            bucket(size, self._max_batch if place == 0 else 0)
            for spec in self._takes
            for place, (declared, size) in enumerate(zip(spec.shape, feed[spec.name].shape, strict=True))
            if declared == -1
        )

    def add(self, number: int, job: Job) -> None:
        """Take a job. Raises BadJob."""
        if job.task is not Task.INFER:
            raise BadJob(f"a model of the task {Task.INFER} was asked for {job.task}", "model")
        feed = {tensor.name: decode(tensor) for tensor in job.tensors}
        rows = job.tensors[0].shape[0] if self._max_batch else 0
        key = tuple(sorted((name, array.shape[1:]) for name, array in feed.items())) if self._max_batch else number
        self._works[number] = _Work(number, feed, job.outputs or tuple(self._gives), rows, key)

    def cancel(self, number: int) -> None:
        """Drop a job; one that is over is no error."""
        self._works.pop(number, None)

    def step(self) -> list[Buffer]:
        """Run one batch and return the frames of its jobs."""
        works = list(self._works.values())
        chosen = [works[place] for place in gather([(work.key, work.rows) for work in works], self._max_batch)]
        for work in chosen:
            del self._works[work.number]
        return self._answer(chosen)

    def _answer(self, works: Sequence[_Work]) -> list[Buffer]:
        """Run jobs together; where that fails each alone, so that none fails for its neighbour."""
        feeds = [work.feed for work in works]
        feed = (
            feeds[0] if len(works) == 1 else {name: np.concatenate([each[name] for each in feeds]) for name in feeds[0]}
        )
        wanted = [name for name in self._gives if any(name in work.wanted for work in works)]
        try:
            found = self._run(feed, wanted, sum(work.rows for work in works))
        except _FAILURES as error:
            if len(works) > 1:
                return [part for work in works for part in self._answer([work])]
            return [messages.error_frame(works[0].number, BackendError(f"the model failed: {error}"))]
        answers: list[Buffer] = []
        start = 0
        for work in works:
            answers += self._told(work, found, start, shared=len(works) > 1)
            start += work.rows
        return answers

    def _told(self, work: _Work, found: dict[str, Values], start: int, *, shared: bool) -> list[Buffer]:
        outputs = []
        for name in work.wanted:
            values = found[name][start : start + work.rows] if shared else found[name]
            outputs.append((name, self._gives[name].datatype, values.shape, encode(values)))
        try:
            return messages.tensors_frame(work.number, outputs)
        except FrameError as error:
            return [messages.error_frame(work.number, BackendError(f"the answer is too large: {error}"))]

    def _run(self, feed: dict[str, Values], wanted: Sequence[str], rows: int) -> dict[str, Values]:
        """Run the graph on `rows` rows (0: there is no batch) and check what it gives against what is declared."""
        gives = [self._gives[name] for name in wanted]
        with self.shapes.run(self._shape(feed)):
            found = dict(zip(wanted, run(self._session, self._takes, gives, feed), strict=True))
        for spec in gives:
            shape = found[spec.name].shape
            if not fits(shape, spec.shape):
                raise OutputError(f"it gave '{spec.name}' of shape {shown(shape)}; {shown(spec.shape)} is declared")
            if rows and shape[0] != rows:
                raise OutputError(f"it gave {shape[0]} rows of '{spec.name}' for {rows} rows of input")
        return found
