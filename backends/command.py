"""A model behind a server that we start: its port, its process, its readiness, its end; it is asked as an upstream is.

Knows nothing of what the command runs, as long as it speaks OpenAI's HTTP on the port that it was given.
"""

import asyncio
import hashlib
import os
import shlex
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

import psutil

from backends.contract import Job, Made, StartFailed, UpstreamFailed, WorkerDied
from backends.forkserver.client import Child, ForkServer
from backends.http_client import BadUrl, HttpClient
from backends.http_connection import ExchangeFailed
from backends.tail import OutputTail
from backends.upstream import HttpBackend, HttpEngine

HOST = "127.0.0.1"
API = "/v1"

# Between choosing a port and the command listening on it somebody else may take it.
PORT_TRIES = 3
_PORT_TAKEN = ("address already in use", "eaddrinuse", "errno 98")

POLL_FIRST_S, POLL_LAST_S = 0.02, 0.5
POLL_TIMEOUT_S = 5.0
LINES_SHOWN = 40
OUTPUT_DRAIN_S = 0.5
GRACE_S = 5.0

# A broken connection may be the process ending: so long we wait to hear of it before we blame the connection.
DEATH_NEWS_S = 0.5

# Walking a process's descendants reads all of /proc, so it is done seldom and off the event loop.
MEMORY_EVERY_S = 5.0


class CommandEngine:
    """Runs `run` (split as a shell would, without one; `{port}` becomes the port) and speaks to it as an upstream.

    The server counts as up when the path `ready` answers 200. `env` is added to the gateway's own environment, which
    goes to the command without PYTHON*. `model` is its model's name. Raises `ValueError` for an unclosed quote.
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
    ) -> None:
        self._argv = shlex.split(run)
        self._fork_server = fork_server
        self._ready = ready
        self._model = model
        self._env = dict(env)
        self._concurrency = concurrency

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
        for _ in range(PORT_TRIES - 1):
            try:
                return await self._start_on(free_port())
            except StartFailed as error:
                if not any(words in str(error).lower() for words in _PORT_TAKEN):
                    raise
        return await self._start_on(free_port())

    async def _start_on(self, port: int) -> "CommandBackend":
        argv = [word.replace("{port}", str(port)) for word in self._argv]
        tail = await OutputTail.open()
        child: Child | None = None
        ready = False
        try:
            child = await self._fork_server.spawn_command(
                argv, env=_environment() | self._env, cwd=Path.cwd(), output_fd=tail.fd
            )
            tail.release()
            await _until_ready(child, f"http://{HOST}:{port}", self._ready, argv[0], tail)
            upstream = await HttpEngine(
                f"http://{HOST}:{port}{API}", self._model, concurrency=self._concurrency
            ).start()
            ready = True
            return CommandBackend(child, tail, upstream, argv[0])
        finally:
            if not ready:
                if child is not None:
                    await child.kill()
                tail.close()


class CommandBackend:
    """A running server of ours; `upstream` carries the jobs."""

    def __init__(self, child: Child, tail: OutputTail, upstream: HttpBackend, name: str) -> None:
        self._child = child
        self._tail = tail
        self._upstream = upstream
        self._name = name
        self._memory_bytes = 0
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

    async def wait_exit(self) -> str:
        """Return when the process ended, with its exit status and its last lines."""
        await self._child.wait()
        return await _end_of(self._child, self._name, self._tail)

    async def close(self) -> None:
        """End the whole process group: told first, killed after a grace."""
        self._measuring.cancel()
        await asyncio.wait({self._measuring})
        try:
            await self._upstream.close()
        finally:
            await self._child.terminate(GRACE_S)
            self._tail.close()

    def memory_bytes(self) -> int:
        """Return the resident bytes of the process and its descendants, as measured a few seconds ago at most."""
        return self._memory_bytes

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
            self._memory_bytes = await asyncio.to_thread(resident_bytes, self._child.pid)
            await asyncio.sleep(MEMORY_EVERY_S)


async def _until_ready(child: Child, url: str, path: str, name: str, tail: OutputTail) -> None:
    """Ask for `path` until it answers 200. Raises `StartFailed` as soon as the process has ended."""
    ended = asyncio.ensure_future(child.wait())
    asking = asyncio.ensure_future(_answers(url, path))
    try:
        await asyncio.wait({ended, asking}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise StartFailed(await _end_of(child, name, tail))
        asking.result()
    finally:
        for task in (ended, asking):
            task.cancel()
        await asyncio.wait({ended, asking})


async def _answers(url: str, path: str) -> None:
    """Return when `path` answers 200; the pause between two tries grows. The caller limits the wait."""
    client = HttpClient(url, {}, kept=1, connect_timeout_s=POLL_TIMEOUT_S, silence_s=POLL_TIMEOUT_S)
    pause_s = POLL_FIRST_S
    try:
        await client.open()
        while not await _is_ok(client, path):
            await asyncio.sleep(pause_s)
            pause_s = min(POLL_LAST_S, pause_s * 1.5)
    finally:
        client.close()


async def _is_ok(client: HttpClient, path: str) -> bool:
    try:
        reply = await client.get(path)
    except BadUrl as error:
        raise StartFailed(str(error)) from error
    except ExchangeFailed:
        return False
    reply.leave()
    return reply.status == 200  # noqa: PLR2004


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


def resident_bytes(pid: int) -> int:
    """Return the resident bytes of a process and all its descendants; 0 once it is gone."""
    try:
        family = psutil.Process(pid)
        members = [family, *family.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for member in members:
        try:
            total += member.memory_info().rss
        except psutil.Error:
            continue
    return total


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
