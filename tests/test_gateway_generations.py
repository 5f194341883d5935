"""One set of settings after the other: what an edit takes over and ends, and that one which fails leaves no trace."""

import asyncio
import http.client
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from backends.contract import StartFailed
from config.load import parse
from config.settings import Settings
from gateway import app
from gateway.app import Gateway
from gateway.building import batches as building_batches
from gateway.building import certificates
from gateway.building.faults import CannotServe
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


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    """Have no processes."""
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
    text = "\n".join(
        [
            f"server: {{listen: '{listen}'{server and ', '}{server}}}",
            f"cache: {{directory: {directory / 'cache'}, exact: {{memory: 1MiB, disk: 1MiB}}}}" if cache else "",
            "models:",
            *([] if "  a:" in models else ["  a: {task: chat, command: {run: 'one {port}'}, pool: {min: 1}}"]),
            models,
            more,
        ]
    )
    return parse(text, KEY_ENVIRON, source="f.yaml")


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


BATCH = "batch: {directory: %s}"
NEW_MODEL = "  b: {task: chat, command: {run: 'two {port}'}, pool: {min: 1}}"
CHANGED = "  a: {task: chat, command: {run: 'changed {port}'}, pool: {min: 1}}\n" + NEW_MODEL


async def test_an_edit_that_fails_at_any_step_leaves_all_as_it_was(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever step fails: it is blamed on its key, the former generation serves on, and nothing new is left."""
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    (tmp_path / "taken").write_text("a file")
    batch = BATCH % (tmp_path / "batch")
    moved = {"grpc": f"127.0.0.1:{free_port()}", "tls": f"{{certificate: {bad}, key: {bad}}}"}
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        taken = f"127.0.0.1:{somebody.getsockname()[1]}"
        elsewhere = f"grpc: '{moved['grpc']}'"
        steps: list[tuple[str, Settings, str, str]] = [
            (
                "an engine of a second model",
                settings(tmp_path, models=CHANGED.replace("two", "missing")),
                "models.b",
                "missing",
            ),
            (
                "new replicas",
                settings(tmp_path, batch, models=CHANGED.replace("changed", "fails"), cache=False),
                "models.a",
                "cannot start",
            ),
            ("batches", settings(tmp_path, BATCH % (tmp_path / "taken"), models=CHANGED), "batch.directory", "taken"),
            ("gRPC", settings(tmp_path, batch, models=CHANGED, server=f"grpc: '{taken}'"), "server.grpc", "listen"),
            (
                "gRPC, after HTTP",
                settings(tmp_path, models=CHANGED, listen=f"127.0.0.1:{free_port()}", server=f"grpc: '{taken}'"),
                "server.grpc",
                "Address already",
            ),
            (
                "TLS",
                settings(tmp_path, batch, models=CHANGED, server=f"grpc: '{moved['grpc']}', tls: {moved['tls']}"),
                "server.tls",
                "bad.pem",
            ),
            (
                "HTTP",
                settings(tmp_path, batch, models=CHANGED, listen=taken, server=elsewhere, cache=False),
                "server.listen",
                "Address already",
            ),
        ]
        first = settings(tmp_path, BATCH % (tmp_path / "old batch"), server="grpc: '127.0.0.1:0'")
        async with running(first) as gateway:
            before, books, found = gateway.generation, set(gateway._lasting.keeper._pools.values()), trace()
            for step, coming, key, words in steps:
                with pytest.raises(CannotServe, match=words) as caught:
                    await gateway.apply(coming)

                assert ".".join(caught.value.key) == key, step
                assert gateway.generation is before
                assert gateway.generation.pipeline.runner.versions(["a"]) == ["one {port}"]
                assert set(gateway._lasting.keeper._pools.values()) == books, step
                assert gateway._lasting.keeper._beside == set(), step
                for name in ("a", "b"):
                    for engine in engines.of(name)[1 if name == "a" else 0 :]:
                        assert all(backend.closed for backend in engine.backends), step
                assert trace() == found, step
                assert await get(gateway.listeners.http_address) == 200
                assert await live(gateway.listeners.grpc_address)
            await gateway.apply(settings(tmp_path, batch, models=CHANGED, server="grpc: '127.0.0.1:0'"))
            assert gateway.generation is not before


async def test_an_edit_that_is_cancelled_leaves_all_as_it_was(engines: Engines, tmp_path: Path) -> None:
    """A stop in the midst of a slow edit undoes what it has begun."""
    async with running(settings(tmp_path)) as gateway:
        before, found = gateway.generation, trace()
        slow = asyncio.create_task(gateway.apply(settings(tmp_path, models=CHANGED.replace("changed", "slow"))))
        await until(lambda: len(engines.of("a")) == 2 and engines.of("a")[1].starts)

        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow

        assert gateway.generation is before
        assert engines.of("a")[1].cancelled_starts == 1
        assert gateway._lasting.keeper._beside == set()
        assert trace() == found


async def test_an_edit_waits_for_the_one_before(engines: Engines, tmp_path: Path) -> None:
    """Two edits are applied one after the other, in their order, however long the first one takes."""
    async with running(settings(tmp_path)) as gateway:
        first = asyncio.create_task(gateway.apply(settings(tmp_path, models=CHANGED)))
        second = asyncio.create_task(gateway.apply(settings(tmp_path, server="request_timeout: 5s")))
        await asyncio.gather(first, second)
        assert gateway.generation.settings.server.request_timeout_s == 5.0
        assert list(gateway.generation.parts.pools) == ["a"]
        assert gateway.generation.pipeline.runner.versions(["a"]) == ["one {port}"]
        await until(lambda: not gateway._retiring)
        assert gateway._lasting.keeper._beside == set()
        assert [engine.version for engine in engines.of("a")] == ["one {port}", "changed {port}", "one {port}"]
        assert [all(b.closed for b in engine.backends) for engine in engines.of("a")] == [True, True, False]


async def test_what_is_not_changed_is_taken_over(engines: Engines, tmp_path: Path) -> None:
    """An edit of other keys keeps pools, caches, the queue and the listeners as they are."""
    batch = BATCH % (tmp_path / "batch")
    async with running(settings(tmp_path, batch, server="grpc: '127.0.0.1:0'")) as gateway:
        before = gateway.generation.parts
        addresses = gateway.listeners.http_address, gateway.listeners.grpc_address

        await gateway.apply(settings(tmp_path, batch, server="grpc: '127.0.0.1:0', request_timeout: 7s"))

        now = gateway.generation.parts
        assert (now.forks, now.batches) == (before.forks, before.batches)
        assert now.pools["a"] is before.pools["a"]
        assert now.caches is not None
        assert before.caches is not None
        assert (now.caches.exact, now.caches.disk) == (before.caches.exact, before.caches.disk)
        assert (gateway.listeners.http_address, gateway.listeners.grpc_address) == addresses
        assert len(engines.made) == 1


async def test_grpc_comes_moves_changes_and_goes(engines: Engines, tmp_path: Path) -> None:
    """Calls of gRPC are taken where the settings say, with other limits at the same port too, and nowhere else."""
    one, other = free_port(), free_port()
    async with running(settings(tmp_path)) as gateway:
        assert gateway.listeners.grpc_address is None
        for server in (f"grpc: '127.0.0.1:{one}'", f"grpc: '127.0.0.1:{one}', max_body: 2MiB"):
            await gateway.apply(settings(tmp_path, server=server))
            assert gateway.listeners.grpc_address == ("127.0.0.1", one)
            assert await live(("127.0.0.1", one))
        await gateway.apply(settings(tmp_path, server=f"grpc: '127.0.0.1:{other}'"))
        assert await live(("127.0.0.1", other))
        await until(lambda: one not in trace()[0])
        await gateway.apply(settings(tmp_path))
        await until(lambda: other not in trace()[0])


async def test_the_same_port_at_another_address(
    engines: Engines, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From one address of the machine to all of them, and back, with the port that is in use.

    The log says that without keys nobody else is served there.
    """
    port = free_port()
    async with running(settings(tmp_path)) as gateway:
        for host in ("127.0.0.1", "0.0.0.0", "127.0.0.1"):
            await gateway.apply(settings(tmp_path, listen=f"{host}:{port}"))
            assert gateway.listeners.http_address == (host, port)
            assert await get(("127.0.0.1", port)) == 200
    assert caplog.text.count("without 'server.keys' only this machine is served") == 1


async def test_a_closed_queue_is_not_opened_twice(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that is put back while the former one still ends waits for that: two would do the work twice."""
    gate = asyncio.Event()
    order: list[str] = []

    class Slow(building_batches.Batches):
        """A queue whose end takes its time."""

        async def open(self) -> None:
            order.append("open")
            await super().open()

        async def close(self, deadline_s: float) -> None:
            await gate.wait()
            await super().close(deadline_s)
            order.append("closed")

    monkeypatch.setattr(building_batches, "Batches", Slow)
    batch = BATCH % (tmp_path / "batch")
    async with running(settings(tmp_path, batch)) as gateway:
        await gateway.apply(settings(tmp_path))
        again = asyncio.create_task(gateway.apply(settings(tmp_path, batch)))
        await asyncio.sleep(0)
        gate.set()
        await again
        assert order == ["open", "closed", "open"]


def write(authority: trustme.CA, directory: Path) -> str:
    """Write a new certificate and its key; return the settings for them."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    (directory / "certificate.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (directory / "key.pem").write_bytes(issued.private_key_pem.bytes())
    return f"tls: {{certificate: {directory / 'certificate.pem'}, key: {directory / 'key.pem'}}}"


async def serial(address: tuple[str, int]) -> str:
    """Return what tells the certificate that a new connection gets."""
    return await asyncio.to_thread(ssl.get_server_certificate, address)


async def test_a_renewed_certificate_counts_without_an_edit(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """New connections get what the files have now, over both wires; a bad pair is told of and changes nothing."""
    monkeypatch.setattr(certificates, "LOOK_EVERY_S", 0.02)
    caplog.set_level("INFO")
    authority, stranger = trustme.CA(), trustme.CA()
    root = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    server = write(authority, tmp_path) + ", grpc: '127.0.0.1:0'"
    async with running(settings(tmp_path, server=server)) as gateway:
        address = gateway.listeners.http_address
        first = await serial(address)
        assert await live(gateway.listeners.grpc_address, root)

        (tmp_path / "certificate.pem").write_text("-----BEGIN nothing")
        await until(lambda: "that was in use stays" in caplog.text)
        assert await serial(address) == first
        assert await live(gateway.listeners.grpc_address, root)

        write(stranger, tmp_path)
        await until(lambda: "was renewed" in caplog.text)
        assert await serial(address) != first
        assert await serial((address[0], gateway.listeners.grpc_address[1])) != first  # type: ignore[index]
        with pytest.raises(grpc.aio.AioRpcError):
            await live(gateway.listeners.grpc_address, root)
        assert await live(gateway.listeners.grpc_address, grpc.ssl_channel_credentials(stranger.cert_pem.bytes()))


async def test_tls_is_added_exchanged_and_removed(engines: Engines, tmp_path: Path) -> None:
    """HTTP and gRPC take new connections with or without TLS as the settings say, at the ports that they have."""
    authorities = []
    async with running(settings(tmp_path, server="grpc: '127.0.0.1:0'")) as gateway:
        addresses = gateway.listeners.http_address, gateway.listeners.grpc_address
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            authorities.append(trustme.CA())
            server = write(authorities[-1], tmp_path / name) + ", grpc: '127.0.0.1:0'"
            await gateway.apply(settings(tmp_path, server=server))
            root = grpc.ssl_channel_credentials(authorities[-1].cert_pem.bytes())
            assert await live(gateway.listeners.grpc_address, root)
            assert (await serial(addresses[0])).strip() in (tmp_path / name / "certificate.pem").read_text()
        await gateway.apply(settings(tmp_path, server="grpc: '127.0.0.1:0'"))
        assert await get(addresses[0]) == 200
        await until(lambda: not gateway.listeners._ending)
        assert await live(addresses[1])
        assert (gateway.listeners.http_address, gateway.listeners.grpc_address) == addresses
