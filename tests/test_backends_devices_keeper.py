"""The keeper with GPUs: replicas are placed, wait for memory that comes back, and are tried again when it ran out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from backends.contract import Finish, Job, StartFailed, Task
from backends.costs import CostSeed, ModelCosts
from backends.demand import Demand
from backends.devices.gpus import Gpus
from backends.keeper import Keeper
from backends.planning import Refuse, Start, Stop, Wait
from backends.pool import Pool
from backends.pool_limits import PoolLimits
from tests.fakes import FakeBackend, FakeEngine
from tests.test_backends_devices import GIB, FakeNvml, Memory


class PlacedFake(FakeEngine):
    """An engine that takes memory of the GPUs it starts on, and runs out of it where there is too little."""

    def __init__(self, nvml: FakeNvml, size_gib: int) -> None:
        super().__init__()
        self.nvml = nvml
        self.size = size_gib * GIB
        self.placed_on: list[tuple[int, ...]] = []

    def on(self, devices: tuple[int, ...]) -> "_Here":
        """Return the engine that starts there."""
        return _Here(self, devices)


@dataclass
class _Here:
    """The engine on some devices."""

    engine: PlacedFake
    devices: tuple[int, ...]
    version: str = "fake-1"
    concurrency: int = 1

    async def start(self) -> FakeBackend:
        """Take the memory, or fail as a process does that finds none."""
        self.engine.placed_on.append(self.devices)
        memory = [self.engine.nvml.gpus[index] for index in self.devices]
        if any(each.free < self.engine.size for each in memory):
            raise StartFailed("the server exited with 1\nits last lines:\nCUDA out of memory. Tried to allocate")
        for each in memory:
            each.free -= self.engine.size
        return _OnDevice(self.engine, memory)


class _OnDevice(FakeBackend):
    """A backend that gives its memory back a while after it ended."""

    def __init__(self, engine: PlacedFake, memory: list[Memory]) -> None:
        super().__init__(engine.script)
        self._engine = engine
        self._memory = memory

    async def close(self) -> None:
        await super().close()
        asyncio.get_running_loop().call_later(0.02, self._give_back)

    def _give_back(self) -> None:
        for each in self._memory:
            each.free += self._engine.size


@dataclass
class House:
    """A keeper over pools on fake GPUs."""

    nvml: FakeNvml
    keeper: Keeper
    pools: dict[str, Pool] = field(default_factory=dict)
    engines: dict[str, PlacedFake] = field(default_factory=dict)

    def add(self, model: str, size_gib: int, *, gpus: int | None = 1, believed_gib: int | None = None) -> None:
        """Add a model that takes so much of each of its GPUs, whatever is believed of it."""
        clock = asyncio.get_running_loop().time
        believed = size_gib if believed_gib is None else believed_gib
        engine = self.engines[model] = PlacedFake(self.nvml, size_gib)
        self.pools[model] = Pool(
            model,
            engine,
            PoolLimits(gpus=gpus, keep_warm_s=3600.0),
            costs=ModelCosts(CostSeed(start_s=0.01, memory_bytes=1, device_bytes=believed * GIB * (gpus or 1))),
            demand=Demand(clock()),
            clock=clock,
            wake_keeper=self.keeper.wake,
        )
        self.keeper.add(self.pools[model])

    async def ask(self, model: str) -> None:
        """Run one job."""
        answered = await self.pools[model].answer(Job(Task.CHAT), asyncio.get_running_loop().time() + 20)
        assert answered.events[-1] == Finish("stop")
        await asyncio.sleep(self.pools[model].costs.start_s())  # from then on it may give way

    def done(self) -> list[str]:
        """Name what was started and stopped."""
        actions = [each.action for each in self.keeper.decisions if not isinstance(each.action, Wait)]
        return [f"{type(action).__name__.lower()} {action.model}" for action in actions]


@asynccontextmanager
async def house(*free_gib: int) -> AsyncIterator[House]:
    """Keep a house with GPUs of 24 GiB, so much of each free."""
    nvml = FakeNvml([Memory(24 * GIB, each * GIB) for each in free_gib])
    keeper = Keeper(None, asyncio.get_running_loop().time)
    keeper.devices.use(Gpus.find(None, {}, lambda: nvml))
    keeper.start()
    try:
        yield House(nvml, keeper)
    finally:
        await keeper.close()


@pytest.fixture(autouse=True)
def short_polls(monkeypatch):
    """Let memory come back in no time."""
    monkeypatch.setattr("backends.devices.gpus.RETURN_POLL_S", 0.005)


async def test_each_replica_sees_the_gpu_that_has_room_for_it():
    """Several models share one, and the next goes where there is room."""
    async with house(24, 24) as built:
        for model in ("a", "b", "c"):
            built.add(model, 10)
            await built.ask(model)
        assert [built.engines[model].placed_on for model in "abc"] == [[(0,)], [(0,)], [(1,)]]
        assert [memory.free for memory in built.nvml.gpus] == [4 * GIB, 14 * GIB]


async def test_a_model_on_two_gpus_gets_both():
    """It sees both and takes its part of each."""
    async with house(24, 24) as built:
        built.add("big", 20, gpus=2)
        await built.ask("big")
        assert built.engines["big"].placed_on == [(0, 1)]
        built.add("wider", 1, gpus=3)
        with pytest.raises(StartFailed, match="needs 3 GPUs with 1024 MiB each; there is GPU 0"):
            await built.ask("wider")
        assert isinstance(built.keeper.decisions[-1].action, Refuse)


async def test_who_gives_way_is_waited_for_until_its_memory_has_come_back():
    """The next starts once it really is free, so it never runs out of it."""
    async with house(24) as built:
        for model in ("a", "b"):
            built.add(model, 20)
            await built.ask(model)
        await built.ask("a")
        assert built.done() == ["start a", "stop a", "start b", "stop b", "start a"]
        assert any("until what stops is gone" in each.action.why for each in built.keeper.decisions)


async def test_without_a_gpu_who_can_do_without_runs_on_the_cpu():
    """A model that must have one is refused, and told what is here."""
    async with house() as built:
        built.add("a", 1, gpus=None)
        built.engines["a"].script = (Finish("stop"),)
        await built.ask("a")
        assert built.engines["a"].placed_on == []
        built.add("b", 1, gpus=1)
        with pytest.raises(StartFailed, match="there is no GPU"):
            await built.ask("b")


async def test_running_out_of_memory_sends_one_away_and_is_tried_once_more():
    """A model that takes more than was believed finds room the second time, without the usual pause."""
    async with house(24) as built:
        built.add("a", 16)
        await built.ask("a")
        built.add("b", 16, believed_gib=4)
        await built.ask("b")
        assert built.done() == ["start a", "start b", "stop a", "start b"]
        assert any(isinstance(each.action, Wait) and each.action.makes_room for each in built.keeper.decisions)


async def test_who_runs_out_again_sends_nobody_else_away():
    """The second failure is like any other: the usual pauses hold, and who is up stays up."""
    async with house(24) as built:
        for model in ("a", "c"):
            built.add(model, 4)
            await built.ask(model)
        built.add("b", 30, believed_gib=4)
        with pytest.raises(StartFailed, match="out of memory"):
            await built.ask("b")
        assert sum(isinstance(each.action, Stop) for each in built.keeper.decisions) == 1
        assert sum(isinstance(each.action, Start) and each.action.model == "b" for each in built.keeper.decisions) == 2
