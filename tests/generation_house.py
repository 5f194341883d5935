"""What the tests of edits share: a gateway in this process whose engines are fakes, and who looks at it."""

import asyncio
import http.client
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from backends.contract import StartFailed
from config.load import parse
from config.settings import Settings
from gateway import app
from gateway.app import Gateway
from gateway.building.reload import ConfigFile
from tests.fakes import FakeEngine

KEY_ENVIRON = {"KEY": "k"}


class Engines:
    """Makes the engines of the tests: fakes, by the model's name and the command that it runs."""

    def __init__(self) -> None:
        self.made: list[tuple[str, FakeEngine]] = []

    async def __call__(self, name: str, model: Any, *_: object) -> FakeEngine:
        """Make one; the command says how it behaves."""
        run = model.command.run
        if "missing" in run:
            raise StartFailed(f"{run} does not exist")
        start_s = 3600.0 if "slow" in run else 0.0
        engine = FakeEngine(start_s=start_s, failures=99 if "fails" in run else 0, memory_bytes=2**20)
        engine.version = run
        self.made.append((name, engine))
        return engine

    def of(self, name: str) -> list[FakeEngine]:
        """Return a model's engines, oldest first."""
        return [engine for each, engine in self.made if each == name]


def without_processes(monkeypatch: pytest.MonkeyPatch) -> Engines:
    """Have fakes made in place of engines."""
    made = Engines()
    monkeypatch.setattr(app, "engine_of", made)
    return made


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


def settings(
    directory: Path,
    more: str = "",
    *,
    listen: str = "127.0.0.1:0",
    server: str = "",
    models: str = "",
    cache: bool = True,
) -> Settings:
    """Read settings: a model that is always up, and whatever else is asked for."""
    return parse(
        text(directory, more, listen=listen, server=server, models=models, cache=cache), KEY_ENVIRON, source="f.yaml"
    )


def text(directory: Path, more: str = "", *, listen: str, server: str, models: str, cache: bool) -> str:
    """Write the file of these settings."""
    return "\n".join(
        [
            f"server: {{listen: '{listen}'{server and ', '}{server}}}",
            f"cache: {{directory: {directory / 'cache'}, exact: {{memory: 1MiB, disk: 1MiB}}}}" if cache else "",
            "models:",
            *([] if "  a:" in models else ["  a: {task: chat, command: {run: 'one {port}'}, pool: {min: 1}}"]),
            models,
            more,
        ]
    )


@asynccontextmanager
async def running(first: Settings) -> AsyncIterator[Gateway]:
    """Run a gateway until its models are up, and end it; nothing may be left of it then."""
    before = asyncio.all_tasks()
    gateway = Gateway(ConfigFile(Path("f.yaml"), first, None))
    try:
        await gateway.apply(first)
        await until(lambda: up(gateway, "a"))
        yield gateway
        await gateway.drain(0.0)
    finally:
        await gateway.close()
    left = {task.get_name() for task in asyncio.all_tasks() - before if not _of_grpc(task)}
    assert left == set()


def _of_grpc(task: "asyncio.Task[Any]") -> bool:
    """Tell the tasks that the library ends in its own time."""
    return "_serve" in repr(task.get_coro()) or "grpc" in repr(task.get_coro())


async def until(look: Any) -> None:
    """Wait for a state."""
    async with asyncio.timeout(90):
        while not look():  # noqa: ASYNC110 - nobody tells of what is looked at here
            await asyncio.sleep(0.005)


def up(gateway: Gateway, model: str) -> bool:
    """Tell whether a replica of the model is ready."""
    return bool(gateway.generation.parts.pools[model].snapshot(0.0).ready)


async def get(address: tuple[str, int], path: str = "/healthz") -> int:
    """Ask over a connection of one's own; return the status."""

    def ask() -> int:
        connection = http.client.HTTPConnection(*address, timeout=90)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


async def live(address: tuple[str, int] | None, credentials: grpc.ChannelCredentials | None = None) -> bool:
    """Ask gRPC's health service over a channel of one's own."""
    assert address is not None
    where = f"localhost:{address[1]}"
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = (
        grpc.aio.insecure_channel(where, options)
        if credentials is None
        else grpc.aio.secure_channel(where, credentials, options)
    )
    async with channel:
        found = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=90)
        return bool(found.status == health_pb2.HealthCheckResponse.SERVING)


def trace() -> tuple[set[int], set[str]]:
    """Return what a gateway may leave behind: the ports listened at, and the names of tasks."""
    own = psutil.Process(os.getpid())
    ports = {each.laddr.port for each in own.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    return ports, {task.get_name() for task in asyncio.all_tasks() if not task.get_name().startswith("Task-")}
