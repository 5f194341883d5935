"""What replicas hold of GPUs is learned: by process where the driver tells, else by what was free before and after."""

import asyncio
from collections.abc import Callable

from backends.devices.gpus import Gpus
from backends.devices.view import Device
from backends.sleeping import ProcessBackend
from tests.fakes import FakeBackend
from tests.test_backends_devices import GIB, FakeNvml, Memory, Process
from tests.test_backends_devices_keeper import House, house


async def until(what: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20.0):
        while not what():  # noqa: ASYNC110 - the keeper looks on its own
            await asyncio.sleep(0.005)


def learned_gib(built: House, model: str) -> float:
    """Return what a model's replica is believed to hold of devices."""
    return built.pools[model].costs.device_bytes / GIB


def test_what_processes_hold_is_added_up_over_gpus():
    """A process on two GPUs holds both parts; who is not told of, and a GPU that is lost, hold nothing."""
    nvml = FakeNvml([Memory(GIB, GIB)] * 3)
    gpus = Gpus.find(None, {}, lambda: nvml)
    assert gpus is not None
    nvml.processes = {0: [Process(7, 3 * GIB), Process(8, None)], 1: [Process(7, GIB)], 2: [Process(9, GIB)]}
    nvml.broken = {2}

    assert gpus.held() == {7: 4 * GIB, 8: 0}
    assert gpus.read() == tuple(Device(index, f"Fake {index}", GIB, GIB) for index in (0, 1))


async def test_a_start_teaches_what_it_took_of_the_free_memory():
    """The driver knows our processes by other numbers: what was free before, less what is free after, is learned."""
    async with house(24) as built:
        built.add("a", 10, believed_gib=2)
        await built.ask("a")
        built.keeper.wake()
        await until(lambda: learned_gib(built, "a") == 10)

        built.nvml.gpus[0].free -= 5 * GIB  # somebody else comes
        for _ in range(3):
            built.keeper.wake()
            await asyncio.sleep(0.01)
        assert learned_gib(built, "a") == 10


async def test_who_starts_beside_another_is_not_measured_so():
    """Two starts on one GPU at once: which of them took what cannot be told, and what was believed stays."""
    async with house(24) as built:
        for model in ("a", "b"):
            built.add(model, 10, believed_gib=3)
        await asyncio.gather(built.ask("a"), built.ask("b"))
        for _ in range(3):
            built.keeper.wake()
            await asyncio.sleep(0.01)
        assert (learned_gib(built, "a"), learned_gib(built, "b")) == (3, 3)


async def test_what_the_driver_says_of_a_process_comes_first(monkeypatch):
    """Where it knows the process, that counts, whoever else takes memory of the GPU."""
    monkeypatch.setattr(FakeBackend, "pids", lambda _: (7, 8), raising=False)
    async with house(24) as built:
        built.nvml.processes = {0: [Process(7, 4 * GIB), Process(8, GIB), Process(9, 9 * GIB)]}
        built.add("a", 10, believed_gib=2)
        await built.ask("a")
        assert isinstance(built.pools["a"].fleet.replicas[0].backend, ProcessBackend)
        built.keeper.wake()
        await until(lambda: learned_gib(built, "a") == 5)

        built.nvml.processes = {0: [Process(7, 6 * GIB)]}
        built.keeper.wake()
        await until(lambda: built.pools["a"].fleet.replicas[0].device_bytes == 6 * GIB)
