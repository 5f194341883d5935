"""One set of settings after the other: what an edit takes over and ends, and that one which fails leaves no trace."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from gateway.building import batches as building_batches
from gateway.building.faults import CannotServe
from tests.generation_house import Engines, free_port, get, live, running, settings, trace, until, without_processes

BATCH = "batch: {directory: %s}"
NEW_MODEL = "  b: {task: chat, command: {run: 'two {port}'}, pool: {min: 1}}"
CHANGED = "  a: {task: chat, command: {run: 'changed {port}'}, pool: {min: 1}}\n" + NEW_MODEL


@pytest.fixture(name="engines")
def _engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    return without_processes(monkeypatch)


Step = tuple[str, Settings, str, str]
"""What fails, the settings that make it fail, the key that is blamed, and a word of what is said."""


def steps_that_fail(directory: Path, taken: str) -> list[Step]:
    """Make the edits of which one step fails each; the address `taken` is somebody else's."""
    bad = directory / "bad.pem"
    bad.write_text("nothing")
    (directory / "taken").write_text("a file")
    batch, no_batch = BATCH % (directory / "batch"), BATCH % (directory / "taken")
    free, tls = f"127.0.0.1:{free_port()}", f"{{certificate: {bad}, key: {bad}}}"
    missing, fails = CHANGED.replace("two", "missing"), CHANGED.replace("changed", "fails")

    def edit(more: str = "", models: str = CHANGED, **others: Any) -> Settings:
        return settings(directory, more, models=models, **others)

    grpc_taken, grpc_free = f"grpc: '{taken}'", f"grpc: '{free}'"
    elsewhere = f"127.0.0.1:{free_port()}"
    return [
        ("an engine of a second model", edit(models=missing), "models.b", "missing"),
        ("new replicas", edit(batch, fails, cache=False), "models.a", "cannot start"),
        ("batches", edit(no_batch), "batch.directory", "taken"),
        ("gRPC", edit(batch, server=grpc_taken), "server.grpc", "listen"),
        ("gRPC, after HTTP", edit(listen=elsewhere, server=grpc_taken), "server.grpc", "Address already"),
        ("TLS", edit(batch, server=f"{grpc_free}, tls: {tls}"), "server.tls", "bad.pem"),
        ("HTTP", edit(batch, listen=taken, server=grpc_free, cache=False), "server.listen", "Address already"),
    ]


async def test_an_edit_that_fails_at_any_step_leaves_all_as_it_was(engines: Engines, tmp_path: Path) -> None:
    """Whatever step fails: it is blamed on its key, the former generation serves on, and nothing new is left."""
    first = settings(tmp_path, BATCH % (tmp_path / "old batch"), server="grpc: '127.0.0.1:0'")
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        steps = steps_that_fail(tmp_path, f"127.0.0.1:{somebody.getsockname()[1]}")
        async with running(first) as gateway:
            await until(lambda: "cache-disk-keys" not in trace()[1])  # which ends by itself
            before, found = gateway.generation, trace()
            books = set(gateway._lasting.keeper._pools.values())
            for step, coming, key, words in steps:
                with pytest.raises(CannotServe, match=words) as caught:
                    await gateway.apply(coming)

                assert ".".join(caught.value.key) == key, step
                assert gateway.generation is before
                assert gateway.generation.pipeline.runner.versions(["a"]) == ["one {port}"]
                assert set(gateway._lasting.keeper._pools.values()) == books, step
                assert gateway._lasting.keeper._beside == set(), step
                for engine in (*engines.of("a")[1:], *engines.of("b")):
                    assert all(backend.closed for backend in engine.backends), step
                await until(lambda: trace() == found)  # gRPC's server ends its task after its client has the answer
                assert await get(gateway.listeners.http_address) == 200
                assert await live(gateway.listeners.grpc_address)
            batch = BATCH % (tmp_path / "batch")
            await gateway.apply(settings(tmp_path, batch, models=CHANGED, server="grpc: '127.0.0.1:0'"))
            assert gateway.generation is not before


async def test_an_edit_that_is_cancelled_leaves_all_as_it_was(engines: Engines, tmp_path: Path) -> None:
    """A stop in the midst of a slow edit undoes what it has begun."""
    async with running(settings(tmp_path)) as gateway:
        await until(lambda: "cache-disk-keys" not in trace()[1])  # which ends by itself
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
