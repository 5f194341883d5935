"""The life of one replica: brought up, watched, closed. Knows nothing of queues or of why it should live."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from backends.contract import AnsweringBackend, Backend, Engine, Job, Made, StartFailed
from backends.sending import SendingBackend
from backends.snapshot import ReplicaSnapshot, ReplicaState

MEMORY_SAMPLE_S = 5.0


class Replica:
    """One replica's state; its pool reads and changes it between awaits, `run` of the pool carries it along.

    `since` is when the state was entered, `ready_at` when it first took jobs, `idle_since` when its last job left.
    `answer` is the backend's, where it has one; `sending` is the backend where it can be sent a job without waiting.
    """

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.state = ReplicaState.STARTING
        self.since = now
        self.started_at = now
        self.ready_at = now
        self.idle_since: float | None = None
        self.in_flight = 0
        self.memory_bytes = 0
        self.backend: Backend | None = None
        self.answer: Callable[[Job], Awaitable[Sequence[Made]]] | None = None
        self.sending: SendingBackend | None = None
        self.stopping = asyncio.Event()

    @property
    def alive(self) -> bool:
        """Whether it takes jobs, or will."""
        return self.state in (ReplicaState.STARTING, ReplicaState.READY)

    def become(self, state: ReplicaState, now: float) -> None:
        """Enter a state."""
        self.state = state
        self.since = now

    def up(self, backend: Backend, now: float) -> None:
        """Note that `backend` answers."""
        self.backend = backend
        self.answer = backend.answer if isinstance(backend, AnsweringBackend) else None
        self.sending = backend if isinstance(backend, SendingBackend) else None
        self.ready_at = self.idle_since = now
        self.become(ReplicaState.READY, now)

    def drain(self, now: float) -> None:
        """Take no more jobs, and stop when the last one has left."""
        self.become(ReplicaState.DRAINING, now)
        if self.in_flight == 0:
            self.stopping.set()

    def release(self, now: float) -> None:
        """Give one slot back."""
        self.in_flight -= 1
        if self.in_flight == 0:
            self.idle_since = now
            if self.state is ReplicaState.DRAINING:
                self.stopping.set()

    def snapshot(self, remaining_start_s: float, learned_bytes: int) -> ReplicaSnapshot:
        """Return what it looks like now; before it was measured it holds what was learned of others."""
        return ReplicaSnapshot(
            name=self.name,
            state=self.state,
            in_flight=self.in_flight,
            since=self.since,
            idle_since=self.idle_since if self.in_flight == 0 else None,
            remaining_start_s=remaining_start_s,
            memory_bytes=self.memory_bytes or learned_bytes,
        )


async def bring_up(engine: Engine, stopping: asyncio.Event, timeout_s: float) -> Backend | None:
    """Start a backend; return `None` when told to stop meanwhile.

    Raises `StartFailed`, also when `timeout_s` has passed. Nothing of the start is left behind in either case.
    """
    start = asyncio.ensure_future(engine.start())
    stop = asyncio.ensure_future(stopping.wait())
    backend: Backend | None = None
    try:
        await asyncio.wait({start, stop}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            return None
        if not start.done():
            raise StartFailed(f"not ready after {timeout_s:g} s, the limit for a start")
        backend = start.result()
        return backend
    finally:
        await _end(stop)
        if backend is None:
            await _undo(start)


async def watch(backend: Backend, stopping: asyncio.Event, sample: Callable[[int], None]) -> str | None:
    """Watch a backend until it ends (return why) or it is told to stop (return `None`); `sample` gets its memory."""
    ended = asyncio.ensure_future(backend.wait_exit())
    stop = asyncio.ensure_future(stopping.wait())
    try:
        while True:
            await asyncio.wait({ended, stop}, timeout=MEMORY_SAMPLE_S, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return ended.result()
            if stop.done():
                return None
            sample(backend.memory_bytes())
    finally:
        await _end(ended)
        await _end(stop)


async def _end(task: "asyncio.Future[Any]") -> None:
    task.cancel()
    await asyncio.wait({task})


async def _undo(start: "asyncio.Future[Backend]") -> None:
    """Cancel a start; where it had come through after all, close what it made."""
    await _end(start)
    if not start.cancelled() and start.exception() is None:
        with suppress(asyncio.CancelledError):
            await start.result().close()
