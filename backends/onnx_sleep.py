"""An `onnx` replica that can sleep: its worker ends, and what it read from disk stays in memory for the next one.

It is woken by another worker on the same devices. Whether that is any sooner than a start is measured by the pool,
which puts nobody to sleep for nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from backends.contract import Event, Job, WorkerDied
from backends.onnx_worker import AnsweringReplica, OnnxReplica
from backends.pages import HeldPages, hold
from backends.sleeping import SleepFailed


class SleepingOnnx:
    """A worker, or its files in memory while it sleeps; `start` brings another up, and raises StartFailed."""

    can_sleep = True

    def __init__(self, worker: OnnxReplica, start: Callable[[], Awaitable[OnnxReplica]]) -> None:
        self.worker: OnnxReplica | None = worker
        self._last = worker
        self._start = start
        self._held: HeldPages | None = None
        self._woken = asyncio.Event()

    def __repr__(self) -> str:
        return f"<SleepingOnnx {self.worker!r}>"

    @property
    def timings_s(self) -> Mapping[str, float]:
        """What took how long when its last worker came up."""
        return self._last.timings_s

    @property
    def graph(self) -> str:
        """What became of the optimised graph then."""
        return self._last.graph

    def stream(self, job: Job) -> AsyncGenerator[Event]:
        """Run a job; one that sleeps has none."""
        if self.worker is None:
            raise WorkerDied("it sleeps")
        return self.worker.stream(job)

    async def sleep(self) -> None:
        """Keep the files and end the worker. Raises SleepFailed where a file cannot be read."""
        worker = self.worker
        assert worker is not None, "it sleeps already"
        try:
            held = await hold(map(Path, worker.files))
        except OSError as error:
            raise SleepFailed(f"what it read cannot be kept in memory: {error}") from error
        self._woken.clear()
        self.worker, self._held = None, held
        await worker.close()

    async def wake(self) -> None:
        """Return when another worker has run a real inference. Raises StartFailed."""
        self.worker = self._last = await self._start()
        self._woken.set()
        await self._release()

    async def wait_exit(self) -> str:
        """Return when a worker has ended that was not put to sleep, with its status and last lines."""
        while True:
            if (worker := self.worker) is None:
                await self._woken.wait()
                continue
            said = await worker.wait_exit()
            if worker is self.worker:
                return said

    async def close(self) -> None:
        """End the worker, and let the files go."""
        try:
            if self.worker is not None:
                await self.worker.close()
        finally:
            await self._release()

    def memory_bytes(self) -> int:
        """Return what the worker holds, or the files that are kept for the next one."""
        if self.worker is not None:
            return self.worker.memory_bytes()
        return self._held.bytes if self._held is not None else 0

    def pids(self) -> Sequence[int]:
        """Return the worker's; none while it sleeps."""
        return self.worker.pids() if self.worker is not None else ()

    def peak_bytes(self) -> int:
        """Return the most that the worker held."""
        return self._last.peak_bytes()

    async def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            await held.release()


class AnsweringSleeper(SleepingOnnx):
    """One whose worker answers whatever it is asked in one piece."""

    async def answer(self, job: Job) -> Sequence[Event]:
        """Run a job and return its events; one that sleeps has none."""
        if self.worker is None:
            raise WorkerDied("it sleeps")
        assert isinstance(self.worker, AnsweringReplica)
        return await self.worker.answer(job)
