"""Doubles that the tests share: clocks and loops of virtual time, engines and backends that follow a script."""

import asyncio
import selectors
from collections.abc import AsyncGenerator, Coroutine, Iterable
from typing import Any, TypeVar

from backends.contract import Event, Finish, Job, StartFailed, Text, Usage, WorkerDied

T = TypeVar("T")


class VirtualClock:
    """A clock that stands still until it is told to advance."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class _SkippingSelector(selectors.DefaultSelector):
    """Instead of sleeping until the next timer, it moves the loop's clock there."""

    clock: VirtualClock

    def select(self, timeout: float | None = None) -> list[Any]:
        """Move the clock by `timeout` and return what is ready now."""
        if timeout:
            self.clock.advance(timeout)
        elif timeout is None:
            raise RuntimeError("every task waits for something that cannot come")
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers take no time. For code without threads, sockets and processes."""

    def __init__(self) -> None:
        selector = _SkippingSelector()
        self.clock = selector.clock = VirtualClock()
        super().__init__(selector)

    def time(self) -> float:
        """Return virtual seconds."""
        return self.clock()

    def settle(self, rounds: int = 50) -> None:
        """Run what is ready, and nothing that waits for time to pass; few `rounds` stop in the midst of it."""
        for _ in range(rounds):
            self.call_soon(self.stop)
            self.run_forever()


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time; tasks that it leaves behind fail the test."""
    loop = VirtualLoop()
    try:
        result = loop.run_until_complete(main)
        loop.run_until_complete(loop.shutdown_asyncgens())
        left = asyncio.all_tasks(loop)
        assert not left, f"left behind: {left}"
        return result
    finally:
        loop.close()


class FakeBackend:
    """Follows `script` for every job: it yields events, raises exceptions, waits for seconds or an `asyncio.Event`.

    A string in the script names the event in the job's `extra` to wait for.
    """

    def __init__(self, script: Iterable[object], memory_bytes: int = 0) -> None:
        self.script = tuple(script)
        self.jobs: list[Job] = []
        self.running = 0
        self.most_running = 0
        self.closed = False
        self._memory_bytes = memory_bytes
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def stream(self, job: Job) -> AsyncGenerator[Event, None]:
        """Follow the script; once the backend died, raise `WorkerDied`."""
        self.jobs.append(job)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            for step in self.script:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, asyncio.Event):
                    await self._or_death(step.wait())
                elif isinstance(step, str):
                    await self._or_death(job.extra[step].wait())  # type: ignore[attr-defined]
                elif isinstance(step, int | float):
                    await self._or_death(asyncio.sleep(step))
                else:
                    yield step  # type: ignore[misc]
                if self._ended.done():
                    raise WorkerDied("the fake died")
        finally:
            self.running -= 1

    async def wait_exit(self) -> str:
        """Return when `die` was called."""
        return await asyncio.shield(self._ended)

    def die(self, reason: str = "killed by the test") -> None:
        """End as a process does that was killed: jobs fail, the watcher is told."""
        if not self._ended.done():
            self._ended.set_result(reason)

    async def close(self) -> None:
        """Note it, and fail what still runs."""
        self.closed = True
        self.die("closed")

    def memory_bytes(self) -> int:
        """Return what the test said."""
        return self._memory_bytes

    async def _or_death(self, wait: Coroutine[Any, Any, Any]) -> None:
        step = asyncio.ensure_future(wait)
        try:
            await asyncio.wait({step, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            step.cancel()


ANSWER = (Text("yes"), Usage(3, 1), Finish("stop"))


class FakeEngine:
    """Makes fake backends: each start takes `start_s`; `failures` of them fail first; all follow `script`."""

    def __init__(
        self,
        script: Iterable[object] = ANSWER,
        *,
        start_s: float = 0.0,
        concurrency: int = 1,
        failures: int = 0,
        memory_bytes: int = 0,
    ) -> None:
        self.script = tuple(script)
        self.start_s = start_s
        self.version = "fake-1"
        self.concurrency = concurrency
        self.failures = failures
        self.memory = memory_bytes
        self.starts = 0
        self.cancelled_starts = 0
        self.backends: list[FakeBackend] = []

    async def start(self) -> FakeBackend:
        """Return a backend after `start_s`, or fail."""
        self.starts += 1
        try:
            await asyncio.sleep(self.start_s)
        except asyncio.CancelledError:
            self.cancelled_starts += 1
            raise
        if self.starts <= self.failures:
            raise StartFailed(f"start {self.starts} was told to fail")
        backend = FakeBackend(self.script, self.memory)
        self.backends.append(backend)
        return backend
