"""Commands: a real server is started, watched, spoken to and ended, with nothing left behind."""

import asyncio
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from backends.command import CommandBackend, CommandEngine
from backends.contract import Event, Finish, Job, Message, StartFailed, Task, Text, UpstreamFailed, Usage, WorkerDied
from backends.forkserver.client import ForkServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVER = shlex.join([sys.executable, "-P", str(Path(__file__).with_name("openai_server.py")), "--port", "{port}"])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def forks() -> AsyncIterator[ForkServer]:
    """Give one fork server to all tests."""
    server = ForkServer({"PATH": os.defpath})
    yield server
    await server.close(5.0)


def engine(forks: ForkServer, run: str = SERVER, **more: object) -> CommandEngine:
    """Make an engine that runs the tiny server."""
    return CommandEngine(run, fork_server=forks, model="echo", **({"env": {}} | more))  # type: ignore[arg-type]


@asynccontextmanager
async def started(of: CommandEngine) -> AsyncIterator[CommandBackend]:
    """Start a backend and close it."""
    backend = await of.start()
    try:
        yield backend
    finally:
        await backend.close()


def chat(text: str, *, stream: bool = True) -> Job:
    """Make a chat job with one user message."""
    return Job(Task.CHAT, messages=(Message("user", text),), stream=stream)


async def collect(backend: CommandBackend, job: Job) -> list[Event]:
    """Run a job to its end."""
    return [event async for event in backend.stream(job)]


def family_of(backend: CommandBackend) -> list[psutil.Process]:
    """Return the server's processes."""
    process = psutil.Process(backend._child.pid)
    return [process, *process.children(recursive=True)]


async def test_a_server_is_started_spoken_to_and_ended(forks):
    """From a command line to an answer, its memory, and no process."""
    async with started(engine(forks)) as backend:
        events = await collect(backend, chat("one two"))
        assert events[-2:] == [Usage(2, 3), Finish("stop")]
        assert "".join(event.text for event in events if isinstance(event, Text)) == "echo: one two"
        processes = family_of(backend)
        async with asyncio.timeout(90):
            while not backend.memory_bytes():  # noqa: ASYNC110 - a measurement raises no event
                await asyncio.sleep(0.01)
        assert backend.memory_bytes() > 2**20
    assert not [process for process in processes if process.is_running()]
    assert "ended by signal 15" in await backend.wait_exit() or "exited with" in await backend.wait_exit()


async def test_a_command_that_exits_is_told_with_its_last_lines(forks):
    """The start ends with the process, not with a timeout, and says what the process said."""
    with pytest.raises(StartFailed, match="exited with 1\nits last lines:\nloading\nno memory left\ngiving up"):
        await engine(forks, SERVER + " --fail").start()


async def test_a_command_that_does_not_exist(forks):
    """The program is named."""
    with pytest.raises(StartFailed, match="no-such-program"):
        await engine(forks, "no-such-program --port {port}").start()


async def test_cancelling_a_start_ends_the_process(forks):
    """Nothing is left of a start that nobody waits for."""
    mark = "--start-s 600"
    start = asyncio.ensure_future(engine(forks, f"{SERVER} {mark}").start())
    mine = psutil.Process()

    def servers() -> list[psutil.Process]:
        found = []
        for process in mine.children(recursive=True):
            try:
                found += [process] if mark in " ".join(process.cmdline()) else []
            except psutil.NoSuchProcess:
                continue
        return found

    async with asyncio.timeout(90):
        while not servers():  # noqa: ASYNC110 - another process raises no event
            await asyncio.sleep(0.01)
        start.cancel()
        await asyncio.wait({start})
        while servers():  # noqa: ASYNC110 - another process raises no event
            await asyncio.sleep(0.01)
    assert start.cancelled()


async def test_a_taken_port_is_tried_again(forks, tmp_path):
    """A command that finds its port taken is started once more on another."""
    flag = tmp_path / "tried"
    once = f"test -e {flag} || {{ touch {flag}; echo Errno 98: Address already in use; exit 1; }}; exec {SERVER}"
    async with started(engine(forks, shlex.join(["sh", "-c", once]))) as backend:
        assert (await collect(backend, chat("hi")))[-1] == Finish("stop")


async def test_a_process_that_dies_mid_stream(forks):
    """Its job fails as on a dead worker; the watcher gets its last lines, which may quote others' requests."""
    async with started(engine(forks)) as backend:
        with pytest.raises(WorkerDied, match="exited with 3") as caught:
            await collect(backend, chat("please die"))
        assert "told to die" not in str(caught.value)
        assert (await backend.wait_exit()).endswith("told to die")


async def test_a_kill_mid_stream(forks):
    """`kill -9` of the server is a dead worker too."""
    async with started(engine(forks)) as backend:
        events = backend.stream(chat("stall"))
        assert isinstance(await anext(events), Text)
        psutil.Process(backend._child.pid).kill()
        with pytest.raises(WorkerDied, match="signal 9"):
            await anext(events)


async def test_a_broken_connection_of_a_living_process(forks):
    """A server that cuts one answer and lives on is not dead."""
    async with started(engine(forks)) as backend:
        with pytest.raises(UpstreamFailed, match="before it was complete"):
            await collect(backend, chat("cut this"))
        assert (await collect(backend, chat("hi")))[-1] == Finish("stop")


async def test_output_without_end_does_not_block(forks):
    """A chatty server is read on, and only its last lines are kept."""
    chatty = f"i=0; while [ $i -lt 30000 ]; do echo line $i of a long story; i=$((i+1)); done; exec {SERVER}"
    async with started(engine(forks, shlex.join(["sh", "-c", chatty]))) as backend:
        await collect(backend, chat("hi"))
        psutil.Process(backend._child.pid).kill()
        last = (await backend.wait_exit()).splitlines()
    assert last[-1] == "line 29999 of a long story"
    assert len(last) <= 42


async def test_the_version_tells_commands_apart(forks):
    """It changes with the command line and with its environment, and says nothing of either."""
    versions = {
        engine(forks).version,
        engine(forks, SERVER + " --start-s 1").version,
        engine(forks, env={"SEED": "1"}).version,
        engine(forks, env={"SEED": "2"}).version,
    }

    assert len(versions) == 4
    assert all(re.fullmatch("command:[0-9a-f]{16}", version) for version in versions)
