"""A model behind a server that we start: its port, its process, its sleep, its end; it is asked as an upstream is.

Knows nothing of what the command runs, as long as it speaks OpenAI's HTTP on the port that it was given.
"""

import asyncio
import hashlib
import os
import shlex
import socket
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import psutil

from backends.contract import Job, Made, StartFailed, Task, UpstreamFailed, WorkerDied
from backends.devices.gpus import environment_for
from backends.forkserver.client import Child, ForkServer
from backends.probing import inference_passes, is_stolen, path_answers, probe_of
from backends.server_sleep import ServerSleep
from backends.sleeping import StartNote
from backends.tail import OutputTail
from backends.upstream import HttpBackend, HttpEngine

HOST = "127.0.0.1"
API = "/v1"

# Between choosing a port and the command listening on it somebody else may take it.
PORT_TRIES = 3
_PORT_TAKEN = ("address already in use", "eaddrinuse", "errno 98")

LINES_SHOWN = 40
OUTPUT_DRAIN_S = 0.5
GRACE_S = 5.0

# A broken connection may be the process ending: so long we wait to hear of it before we blame the connection.
DEATH_NEWS_S = 0.5

# Walking a process's descendants reads all of /proc, so it is done seldom and off the event loop.
MEMORY_EVERY_S = 5.0


class CommandEngine:
    """Runs `run` (split as a shell would, without one; `{port}` becomes the port) and speaks to it as an upstream.

    The server counts as up when the path `ready` answers 200 and a real inference of `task` has passed (where a task is
    given that has one). `env` is added to the gateway's own environment, which goes to the command without PYTHON*.
    `model` is its model's name. It sleeps at vLLM's `sleep_level` where it offers that; 0: never. Raises `ValueError`
    for an unclosed quote.
    """

    def __init__(
        self,
        run: str,
        *,
        fork_server: ForkServer,
        ready: str = "/health",
        model: str,
        env: Mapping[str, str],
        concurrency: int = 16,
        task: Task = Task.RELAY,
        sleep_level: int = 0,
    ) -> None:
        self._task = task
        self._sleep_level = sleep_level
        self._argv = shlex.split(run)
        self._fork_server = fork_server
        self._ready = ready
        self._model = model
        self._env = dict(env)
        self._concurrency = concurrency

    def on(self, devices: tuple[int, ...]) -> "CommandEngine":
        """Return the engine whose commands see these GPUs and no others, unless their own environment says which."""
        engine = copy(self)
        engine._env = environment_for(devices) | self._env  # noqa: SLF001 - its own
        return engine

    @property
    def version(self) -> str:
        """A digest of the command, of its own environment and of the model's name."""
        parts = [*self._argv, self._model, *[f"{name}={value}" for name, value in sorted(self._env.items())]]
        return "command:" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    @property
    def concurrency(self) -> int:
        """Jobs that one server takes at a time."""
        return self._concurrency

    async def start(self) -> "CommandBackend":
        """Start the command and wait until it is ready; raises `StartFailed`, which ends with its last lines."""
        return await self.climb(StartNote())

    async def climb(self, note: StartNote) -> "CommandBackend":
        """Do as `start` does, and tell how far it has come."""
        for _ in range(PORT_TRIES - 1):
            try:
                return await self._start_on(free_port(), note)
            except StartFailed as error:
                if not any(words in str(error).lower() for words in _PORT_TAKEN):
                    raise
        return await self._start_on(free_port(), note)

    async def _start_on(self, port: int, note: StartNote) -> "CommandBackend":
        argv = [word.replace("{port}", str(port)) for word in self._argv]
        tail = await OutputTail.open()
        note.phase, note.said = "its process starts", lambda: tail.text(LINES_SHOWN)
        child: Child | None = None
        upstream: HttpBackend | None = None
        sleep: ServerSleep | None = None
        ready = False
        try:
            child = await self._fork_server.spawn_command(
                argv, env=_environment() | self._env, cwd=Path.cwd(), output_fd=tail.fd
            )
            tail.release()
            url = f"http://{HOST}:{port}"
            upstream = await HttpEngine(f"{url}{API}", self._model, concurrency=self._concurrency).start()
            await _unless_it_ends(child, self._until_ready(child, port, upstream, note), argv[0], tail)
            sleep = await ServerSleep.offered(url, self._sleep_level) if self._sleep_level else None
            ready = True
            return CommandBackend(child, tail, upstream, argv[0], sleep=sleep, probe=probe_of(self._task))
        finally:
            if not ready:
                if upstream is not None:
                    await upstream.close()
                if child is not None:
                    await child.kill()
                tail.close()

    async def _until_ready(self, child: Child, port: int, upstream: HttpBackend, note: StartNote) -> None:
        await path_answers(f"http://{HOST}:{port}", self._ready, note)
        if await asyncio.to_thread(is_stolen, port, child.pid):
            raise StartFailed(f"port {port}: address already in use, by another server")
        if (probe := probe_of(self._task)) is not None:
            await inference_passes(upstream, probe, note)


class CommandBackend:
    """A running server of ours; `upstream` carries the jobs."""

    def __init__(
        self,
        child: Child,
        tail: OutputTail,
        upstream: HttpBackend,
        name: str,
        *,
        sleep: ServerSleep | None,
        probe: Job | None,
    ) -> None:
        self._sleep = sleep
        self._probe = probe
        self._child = child
        self._tail = tail
        self._upstream = upstream
        self._name = name
        self._memory_bytes = 0
        self._pids: tuple[int, ...] = ()
        self._measuring = asyncio.create_task(self._measure(), name=f"memory of {name}")

    async def stream(self, job: Job) -> AsyncGenerator[Made, None]:
        """Run a job. Raises `WorkerDied` where the process ended under it, else what an upstream raises."""
        events = self._upstream.stream(job)
        try:
            async for event in events:
                yield event
        except UpstreamFailed as error:
            await self._ask_after_the_process(error)
            raise
        finally:
            await events.aclose()

    async def answer(self, job: Job) -> Sequence[Made]:
        """Run a job; raises as `stream` does."""
        try:
            return await self._upstream.answer(job)
        except UpstreamFailed as error:
            await self._ask_after_the_process(error)
            raise

    @property
    def can_sleep(self) -> bool:
        """Whether the server offers to sleep."""
        return self._sleep is not None

    async def sleep(self) -> None:
        """Put the server to sleep. Raises `SleepFailed`."""
        assert self._sleep is not None
        await self._sleep.sleep()

    async def wake(self) -> None:
        """Wake the server, and wait until a real inference has passed. Raises `StartFailed`."""
        assert self._sleep is not None
        await self._sleep.wake()
        if self._probe is not None:
            await inference_passes(self._upstream, self._probe, StartNote())

    async def wait_exit(self) -> str:
        """Return when the process ended, with its exit status and its last lines."""
        await self._child.wait()
        return await _end_of(self._child, self._name, self._tail)

    async def close(self) -> None:
        """End the whole process group: told first, killed after a grace."""
        self._measuring.cancel()
        await asyncio.wait({self._measuring})
        if self._sleep is not None:
            self._sleep.close()
        try:
            await self._upstream.close()
        finally:
            await self._child.terminate(GRACE_S)
            self._tail.close()

    def memory_bytes(self) -> int:
        """Return the resident bytes of the process and its descendants, as measured a few seconds ago at most."""
        return self._memory_bytes

    def pids(self) -> Sequence[int]:
        """Return the process and its descendants, as they were a few seconds ago at most."""
        return self._pids

    async def _ask_after_the_process(self, error: UpstreamFailed) -> None:
        """Raise `WorkerDied` where a connection that broke is the process ending."""
        if error.status is None and await self._died():
            raise WorkerDied(_how(await self._child.wait(), self._name)) from error

    async def _died(self) -> bool:
        try:
            async with asyncio.timeout(DEATH_NEWS_S):
                await self._child.wait()
        except TimeoutError:
            return False
        return True

    async def _measure(self) -> None:
        while self._child.returncode is None:
            self._memory_bytes, self._pids = await asyncio.to_thread(resident_of, self._child.pid)
            await asyncio.sleep(MEMORY_EVERY_S)


async def _unless_it_ends(child: Child, work: Coroutine[Any, Any, None], name: str, tail: OutputTail) -> None:
    """Do the work. Raises `StartFailed` as soon as the process has ended."""
    ended = asyncio.ensure_future(child.wait())
    doing = asyncio.ensure_future(work)
    try:
        await asyncio.wait({ended, doing}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise StartFailed(await _end_of(child, name, tail))
        doing.result()
    finally:
        for task in (ended, doing):
            task.cancel()
        await asyncio.wait({ended, doing})
        if not doing.cancelled():
            doing.exception()


async def _end_of(child: Child, name: str, tail: OutputTail) -> str:
    """Say how a process ended in one line, then its last lines, which are for the operator alone once it has served."""
    status = await child.wait()
    await tail.drain(OUTPUT_DRAIN_S)
    return f"{_how(status, name)}\nits last lines:\n{tail.text(LINES_SHOWN)}"


def _how(status: int, name: str) -> str:
    return f"{name} exited with {status}" if status >= 0 else f"{name} was ended by signal {-status}"


def free_port() -> int:
    """Return a loopback port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def resident_of(pid: int) -> tuple[int, tuple[int, ...]]:
    """Return the resident bytes of a process and all its descendants, 0 once it is gone, and who these are."""
    try:
        family = psutil.Process(pid)
        members = [family, *family.children(recursive=True)]
    except psutil.Error:
        return 0, ()
    total = 0
    for member in members:
        try:
            total += member.memory_info().rss
        except psutil.Error:
            continue
    return total, tuple(member.pid for member in members)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
