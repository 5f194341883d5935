"""Commands that sleep and wake: a real server does as vLLM's does, and each way in which it may not."""

import asyncio
import os
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from backends import command
from backends.command import CommandBackend, CommandEngine
from backends.contract import Event, Finish, Job, Message, StartFailed, Task, Text, UpstreamFailed
from backends.forkserver.client import ForkServer
from backends.sleeping import SleepFailed
from tests import sleeping_server
from tests.test_backends_command import started

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVER = shlex.join([sys.executable, "-P", str(Path(__file__).with_name("sleeping_server.py")), "--port", "{port}"])
CHAT = Job(Task.CHAT, messages=(Message("user", "hello"),))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def forks() -> AsyncIterator[ForkServer]:
    """Give one fork server to all tests."""
    server = ForkServer({"PATH": os.defpath})
    yield server
    await server.close(5.0)


def engine(forks: ForkServer, options: str = "", **more: Any) -> CommandEngine:
    """Make an engine that runs the server."""
    said = {"env": {}, "task": Task.CHAT, "sleep_level": 1} | more
    return CommandEngine(f"{SERVER} {options}", fork_server=forks, model="m", **said)


async def ask(backend: CommandBackend) -> list[Event]:
    """Ask once."""
    return [event async for event in backend.stream(CHAT)]


async def counts(backend: CommandBackend) -> dict[str, int]:
    """Return what the server says happened to it."""
    reply = await backend._upstream._client.get("/models")
    try:
        return orjson.loads(await reply.read())["counts"]
    finally:
        reply.leave()


async def test_it_sleeps_and_wakes(forks):
    """Asleep it gives its memory back and answers nobody; awake it has passed an inference before anybody asks."""
    async with started(engine(forks, "--hold-mib 64 --sleep-s 0.05 --wake-s 0.05")) as backend:
        assert backend.can_sleep
        held = command.resident_of(backend._child.pid)[0]
        await backend.sleep()
        assert command.resident_of(backend._child.pid)[0] < held - 48 * 2**20
        with pytest.raises(UpstreamFailed, match="sleeps"):
            await ask(backend)
        before = await counts(backend)
        await backend.wake()
        after = await counts(backend)
        assert after["asked"] == before["asked"] + 1
        assert Text("awake") in await ask(backend)


async def test_the_second_level_loads_the_weights_anew(forks):
    """Weights, their content, and the cache come back one after the other."""
    async with started(engine(forks, sleep_level=2)) as backend:
        await backend.sleep()
        await backend.wake()
        told = await counts(backend)
        steps = ("slept_2", "woke_weights", "reload_weights", "woke_kv_cache", "reset")
        assert [told.get(step) for step in steps] == [1] * 5
        assert (await ask(backend))[-1] == Finish("stop")


@pytest.mark.parametrize(("options", "level"), [("--plain", 1), ("", 0)])
async def test_a_server_without_sleep_is_never_put_to_sleep(forks, options, level):
    """One that does not offer it, and one that is not to, are up or not."""
    async with started(engine(forks, options, sleep_level=level)) as backend:
        assert not backend.can_sleep


async def test_a_server_that_cannot_sleep_after_all_says_so(forks):
    """Its development mode is on, and its sleep mode is not."""
    async with started(engine(forks, "--sleepless")) as backend:
        with pytest.raises(SleepFailed, match="sleep mode is not enabled"):
            await backend.sleep()


async def test_a_green_health_path_is_not_enough(forks):
    """A server is ready once an inference has passed, and not while its path alone is green."""
    async with started(engine(forks, "--early 2")) as backend:
        told = await counts(backend)
        assert (told["asked_early"], told["asked"]) == (2, 1)


async def test_a_server_that_refuses_the_probe_alone_is_ready(forks, caplog):
    """It read the request and understood it, which is what was to be shown."""
    async with started(engine(forks, "--refuses")):
        assert "max_tokens is too small" in caplog.text


async def test_a_port_that_was_stolen_is_not_mistaken_for_ours(forks, monkeypatch):
    """Another server on the port that was chosen, green and ready, is not taken for the one that we started."""
    thief = web.AppRunner(sleeping_server.application(sleeping_server.options_of(["--port", "0"])))
    await thief.setup()
    try:
        site = web.TCPSite(thief, "127.0.0.1", 0)
        await site.start()
        stolen = thief.addresses[0][1]
        ports = iter([stolen, command.free_port()])
        monkeypatch.setattr(command, "free_port", lambda: next(ports))
        async with started(engine(forks)) as backend:
            assert (await counts(backend))["asked"] == 1
            with pytest.raises(StopIteration):
                next(ports)
    finally:
        await thief.cleanup()


@pytest.mark.parametrize("options", ["--dies-asleep", "--dies-waking"])
async def test_a_server_that_dies_on_its_way_is_told(forks, options):
    """Its end is news at once, asleep as awake."""
    async with started(engine(forks, options)) as backend:
        await backend.sleep()
        if options == "--dies-waking":
            with pytest.raises(StartFailed, match="does not wake up"):
                await backend.wake()
        async with asyncio.timeout(90):
            assert "exited with" in await backend.wait_exit()
