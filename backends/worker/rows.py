"""Runs embed and predict jobs: everything that waits goes into one batch. Knows nothing of sockets.

Zero-delay dynamic batching: a batch is never waited for; while one runs, the next gathers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backends import messages
from backends.contract import BackendError, BadJob, Job
from backends.frames import Buffer
from backends.worker.encode import Ids, RowEncoder, pad
from backends.worker.model import RUN_ERRORS, Model
from backends.worker.shapes import Shape, Shapes, bucket


@dataclass(slots=True)
class _Work:
    """A job under way: the first `done` of its rows have their results, in pieces of one batch each."""

    number: int
    rows: Sequence[Ids]
    done: int = 0
    results: list[NDArray[np.float32]] = field(default_factory=list)
    with_tokens: bool = False
    tokens: list[bytes] = field(default_factory=list)


# A longer text hides its difference in a crowd of equal words: none of its tokens are told.
_MOST_TOKENS = 64
_NO_TOKENS = np.zeros((0, 0, 0), np.int8)


def pack_tokens(ids: Ids, vectors: NDArray[np.int8], unknown: int | None) -> bytes:
    """Return a row's token ids (uint16) and then their vectors (int8), without its two special tokens.

    Empty where they do not tell the text from others: where it is long, or has a word that is `unknown`.
    """
    count = len(ids) - 2
    if not 0 < count <= _MOST_TOKENS or max(ids) > np.iinfo(np.uint16).max or unknown in ids:
        return b""
    return np.array(ids[1 : 1 + count], np.uint16).tobytes() + vectors[1 : 1 + count].tobytes()


def share(waiting: Sequence[int], max_batch: int) -> list[int]:
    """Say how many rows of each job go into the next batch, given how many each has left, oldest first.

    Every job gets an equal part, and the oldest what is over, so that one of a thousand rows does not hold up the rest.
    """
    taken = [0] * len(waiting)
    room = max_batch
    while room > 0 and (hungry := [place for place, left in enumerate(waiting) if taken[place] < left]):
        part = max(1, room // len(hungry))
        for place in hungry:
            more = min(part, waiting[place] - taken[place], room)
            taken[place] += more
            room -= more
    return taken


class RowRunner:
    """The jobs of an embed or predict model."""

    def __init__(self, model: Model) -> None:
        self._manifest = model.manifest
        self._session = model.session
        assert model.tokenizer is not None
        self._encoder = RowEncoder(model.tokenizer, model.manifest.max_tokens)
        self._works: dict[int, _Work] = {}
        self.shapes = Shapes()

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._works)

    def warm(self) -> str:
        """Run one real inference; nothing of it is in doubt."""
        self._run([self._word()])
        return ""

    def warm_shape(self, shape: Shape) -> None:
        """Run a batch of so many rows of so many tokens. Raises what a run raises, and ValueError for no such shape."""
        rows, width = shape
        if width > self._manifest.max_tokens:
            raise ValueError(f"{width} tokens are more than the model reads")
        self._run([(self._word() * width)[:width]] * min(rows, self._manifest.max_batch))

    def _word(self) -> list[int]:
        return list(self._encoder.rows(Job(self._manifest.task, inputs=("warm",)))[0])

    def add(self, number: int, job: Job) -> None:
        """Take a job. Raises BadJob."""
        if job.task is not self._manifest.task:
            raise BadJob(f"a model of the task {self._manifest.task} was asked for {job.task}", "model")
        wanted = job.token_vectors and bool(self._manifest.tokens)
        self._works[number] = _Work(number, self._encoder.rows(job), with_tokens=wanted)

    def cancel(self, number: int) -> None:
        """Drop a job; one that is over is no error."""
        self._works.pop(number, None)

    def step(self) -> list[Buffer]:
        """Run one batch and return the frames of the jobs that it completes."""
        works = list(self._works.values())
        counts = share([len(work.rows) - work.done for work in works], self._manifest.max_batch)
        chosen = [(work, count) for work, count in zip(works, counts, strict=True) if count]
        rows = [row for work, count in chosen for row in work.rows[work.done : work.done + count]]
        try:
            matrix, tokens = self._run(rows, with_tokens=any(work.with_tokens for work, _ in chosen))
        except RUN_ERRORS as error:
            return self._isolate(chosen, error)
        answers: list[Buffer] = []
        start = 0
        for work, count in chosen:
            work.results.append(matrix[start : start + count])
            if work.with_tokens:
                work.tokens += [
                    pack_tokens(rows[at], tokens[at], self._encoder.unknown) for at in range(start, start + count)
                ]
            work.done += count
            start += count
            if work.done == len(work.rows):
                answers.append(self._complete(work))
        return answers

    def _isolate(self, chosen: Sequence[tuple[_Work, int]], error: Exception) -> list[Buffer]:
        """Fail the one job of a failed batch, or try its jobs one at a time, so that none fails for its neighbour."""
        if len(chosen) == 1:
            work, _ = chosen[0]
            del self._works[work.number]
            return [messages.error_frame(work.number, BackendError(f"the model failed: {error}"))]
        answers: list[Buffer] = []
        everything, self._works = self._works, {}
        for work, _ in chosen:
            self._works = {work.number: work}
            while self._works:
                answers += self.step()
            del everything[work.number]
        self._works = everything
        return answers

    def _complete(self, work: _Work) -> bytes:
        del self._works[work.number]
        matrix = np.concatenate(work.results) if len(work.results) > 1 else work.results[0]
        tokens = sum(map(len, work.rows))
        data = matrix.data.cast("B")
        return messages.matrix_frame(work.number, self._manifest.task, data, matrix.shape, tokens, tokens=work.tokens)

    def _run(self, rows: Sequence[Ids], *, with_tokens: bool = False) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """Return the rows' vectors, and of each row those of its tokens where they are wanted."""
        ids, mask = pad(rows)
        names = self._manifest.inputs
        wanted = [self._manifest.output, *([self._manifest.tokens] if with_tokens else [])]
        with self.shapes.run(
            (bucket(len(rows), self._manifest.max_batch), bucket(ids.shape[1], self._manifest.max_tokens))
        ):
            matrix, *tokens = self._session.run(wanted, {names["ids"]: ids, names["mask"]: mask})
        return np.ascontiguousarray(matrix, np.float32), tokens[0] if tokens else _NO_TOKENS
