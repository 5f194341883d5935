"""Replicas that sleep, under the keeper: revived by requests, dying and hanging at each level, what they cost."""

import asyncio
from typing import Any

import pytest

from backends.contract import Finish, StartFailed
from backends.costs import CostSeed, ModelCosts
from backends.pool import PoolLimits
from backends.sleeping import SleepFailed, StartNote
from backends.snapshot import ReplicaSnapshot, ReplicaState
from backends.warmth.ladder import Level
from tests.fakes import ANSWER, FakeBackend, FakeEngine, run_virtual
from tests.test_backends_keeper import Rooms

MIB = 2**20


class SleepingBackend(FakeBackend):
    """Takes a second to fall asleep and two to wake up; asleep it holds a tenth, and no job may come."""

    can_sleep = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sleep_s, self.wake_s = 1.0, 2.0
        self.sleep_error: Exception | None = None
        self.asleep = False
        self.sleeps = self.wakes = 0

    async def sleep(self) -> None:
        """Fall asleep, or fail to."""
        assert not self.running, "it is put to sleep while it works"
        self.sleeps += 1
        await asyncio.sleep(self.sleep_s)
        if self.sleep_error is not None:
            raise self.sleep_error
        self.asleep, self._memory_bytes = True, self._memory_bytes // 10

    async def wake(self) -> None:
        """Wake up."""
        self.wakes += 1
        await asyncio.sleep(self.wake_s)
        self.asleep, self._memory_bytes = False, 10 * self._memory_bytes


class SleepingEngine(FakeEngine):
    """Makes such backends."""

    backends: list[SleepingBackend]  # type: ignore[assignment]

    async def start(self) -> FakeBackend:
        """Start one."""
        self.starts += 1
        await asyncio.sleep(self.start_s)
        backend = SleepingBackend(self.script, self.memory)
        self.backends.append(backend)
        return backend


def house_of(*, script: tuple[object, ...] = ANSWER, timeout_s: float = 120.0) -> tuple[Rooms, SleepingEngine]:
    """Make a keeper over one model that takes 50 s to start."""
    house, engine = Rooms(), SleepingEngine(script, start_s=50.0, memory_bytes=100 * MIB)
    house.add("m", engine, PoolLimits(start_timeout_s=timeout_s), CostSeed(start_s=50.0, wake_s=2.0))
    return house, engine


def replica_of(house: Rooms) -> ReplicaSnapshot:
    """Return the one replica as it is now."""
    (replica,) = house.pools["m"].snapshot(house.clock()).replicas
    return replica


async def until(house: Rooms, state: ReplicaState) -> None:
    """Wait until the one replica is in a state."""
    async with asyncio.timeout(1e6):
        while replica_of(house).state is not state:  # noqa: ASYNC110 - in virtual time a look costs nothing
            await asyncio.sleep(0.25)


async def asleep(house: Rooms) -> None:
    """Ask once, and wait until the replica has fallen asleep again."""
    await house.ask("m", 1000.0)
    await until(house, ReplicaState.ASLEEP)


def test_it_sleeps_when_idle_and_wakes_for_a_request():
    """A request waits for the waking and not for a start; what either level holds is measured."""

    async def run() -> None:
        house, engine = house_of()
        async with house:
            await asleep(house)
            assert replica_of(house).level is Level.ASLEEP
            await asyncio.sleep(6)
            assert replica_of(house).memory_bytes == 10 * MIB
            asked_at = house.clock()
            assert (await house.ask("m"))[-1] == Finish("stop")
            assert house.clock() - asked_at == pytest.approx(2.0, abs=0.1)
            assert (engine.starts, engine.backends[0].wakes) == (1, 1)
            costs = house.pools["m"].costs
            assert costs.wake_s() == pytest.approx(2.0, rel=0.06)
            assert [(each.level, each.memory_bytes // MIB) for each in costs.levels] == [
                (Level.ABSENT, 0), (Level.ASLEEP, 10), (Level.WARM, 100)
            ]  # fmt: skip
            await until(house, ReplicaState.ASLEEP)

    run_virtual(run())


def test_a_request_that_comes_while_it_falls_asleep_is_served_by_it():
    """It falls asleep, wakes, and answers; nothing is started, and nobody asks it while it sleeps."""

    async def run() -> None:
        house, engine = house_of()
        async with house:
            await house.ask("m", 1000.0)
            await until(house, ReplicaState.DOZING)
            assert (await house.ask("m"))[-1] == Finish("stop")
            assert (engine.starts, engine.backends[0].sleeps, engine.backends[0].wakes) == (1, 1, 1)

    run_virtual(run())


def test_a_victim_that_got_a_job_is_not_put_to_sleep():
    """A decision on a replica that has a job by the time it is done changes nothing, and the job ends."""

    async def run() -> None:
        house, engine = house_of(script=(5.0, *ANSWER))
        async with house:
            job = asyncio.ensure_future(house.ask("m", 1000.0))
            await asyncio.sleep(1)
            await until(house, ReplicaState.READY)
            house.pools["m"].fleet.demote("m-1")
            house.pools["m"].fleet.wake("m-1")
            assert replica_of(house).state is ReplicaState.READY
            assert (await job)[-1] == Finish("stop")
            assert engine.backends[0].sleeps == 0

    run_virtual(run())


@pytest.mark.parametrize("state", [ReplicaState.READY, ReplicaState.DOZING, ReplicaState.ASLEEP, ReplicaState.STARTING])
def test_a_child_that_dies_at_any_level_is_replaced(state):
    """Up, on its way to sleep, asleep, or waking: the request after it, or waiting for it, is served by the next."""

    async def run() -> None:
        house, engine = house_of()
        async with house:
            if state is ReplicaState.STARTING:
                await asleep(house)
                job = asyncio.ensure_future(house.ask("m", 1000.0))
            else:
                await house.ask("m", 1000.0)
                await asyncio.sleep(100)
                await until(house, state)
            await until(house, state)
            engine.backends[0].die()
            await asyncio.sleep(0.1)
            answer = await (job if state is ReplicaState.STARTING else house.ask("m", 1000.0))
            assert answer[-1] == Finish("stop")
            assert (engine.starts, engine.backends[0].closed) == (2, True)

    run_virtual(run())


def test_a_waking_that_hangs_ends_at_the_limit_of_a_start():
    """The process is ended, and a fresh one serves who waits."""

    async def run() -> None:
        house, engine = house_of(timeout_s=60.0)
        async with house:
            await asleep(house)
            engine.backends[0].wake_s = 1e6
            assert (await house.ask("m", 1000.0))[-1] == Finish("stop")
            assert (engine.starts, engine.backends[0].closed) == (2, True)

    run_virtual(run())


@pytest.mark.parametrize(("wake_s", "dies"), [(1e6, False), (5.0, True)])
def test_where_wakings_fail_again_and_again_nobody_is_put_to_sleep(wake_s, dies, caplog):
    """One may fail by chance; after two in a row the model is up or not, and no request waits for a third."""

    async def run() -> None:
        house, engine = house_of(timeout_s=60.0)
        async with house:
            for place in range(2):
                await asleep(house)
                assert engine.backends[place].sleeps == 1
                engine.backends[place].wake_s = wake_s
                asked = asyncio.ensure_future(house.ask("m", 1000.0))
                await until(house, ReplicaState.STARTING)
                if dies:
                    await asyncio.sleep(1.0)
                    engine.backends[place].die("killed")
                assert (await asked)[-1] == Finish("stop")
            while len(engine.backends) < 4:
                await asyncio.sleep(1)
                if not house.pools["m"].snapshot(house.clock()).replicas:
                    await house.ask("m", 1000.0)
            assert [backend.sleeps for backend in engine.backends] == [1, 1, 0, 0]

    run_virtual(run())
    assert caplog.text.count("m-2 does not wake up, nor did the one before it") == 1


@pytest.mark.parametrize(("sleep_s", "error"), [(1e6, None), (1.0, SleepFailed("sleep mode is not enabled"))])
def test_a_server_that_does_not_fall_asleep_is_stopped_and_no_other_is_tried(sleep_s, error, caplog):
    """It may be in any state; from then on the model is up or not."""

    async def run() -> None:
        house, engine = house_of()
        async with house:
            await house.ask("m", 1000.0)
            engine.backends[0].sleep_s, engine.backends[0].sleep_error = sleep_s, error
            while len(engine.backends) < 2:  # noqa: ASYNC110 - in virtual time a look costs nothing
                await asyncio.sleep(1)
            assert (await house.ask("m", 1000.0))[-1] == Finish("stop")
            await asyncio.sleep(400)
            assert [backend.sleeps for backend in engine.backends] == [1, 0]

    run_virtual(run())
    assert "m-1 does not fall asleep and is stopped" in caplog.text


@pytest.mark.parametrize("state", [ReplicaState.DOZING, ReplicaState.ASLEEP, ReplicaState.STARTING])
def test_who_is_told_to_leave_on_the_way_leaves(state):
    """An unload, an edit and the end of the program end a replica wherever it is."""

    async def run() -> None:
        house, engine = house_of()
        async with house:
            await house.ask("m", 1000.0)
            await until(house, ReplicaState.DOZING if state is ReplicaState.DOZING else ReplicaState.ASLEEP)
            if state is ReplicaState.STARTING:
                house.pools["m"].fleet.wake("m-1")
            house.pools["m"].rest(resting=True)
            await asyncio.sleep(0)
            async with asyncio.timeout(0.5):
                while house.up():  # noqa: ASYNC110 - in virtual time a look costs nothing
                    await asyncio.sleep(0.01)
            assert engine.backends[0].closed

    run_virtual(run())


def test_what_was_learned_of_sleep_is_kept():
    """A new process knows what waking takes and what a sleeper holds."""
    costs = ModelCosts(CostSeed(start_s=40.0))
    assert costs.wake_s() == 4.0
    costs.learn_start(30.0)
    costs.learn_sleeps(can=True)
    costs.learn_wake(3.0)
    costs.learn_asleep_memory(5 * MIB)
    costs.learn_device_memory(Level.WARM, 70 * MIB)
    costs.learn_device_memory(Level.ASLEEP, MIB)
    again = ModelCosts()
    again.load(costs.dump())
    assert again.levels == costs.levels
    assert again.ladder == costs.ladder


def test_a_sleep_that_spares_nothing_is_no_rung():
    """Where a sleeper holds as much as one that is up, it is up or gone."""
    costs = ModelCosts(CostSeed(memory_bytes=100 * MIB))
    costs.learn_sleeps(can=True)
    assert costs.ladder.levels == (Level.WARM, Level.ASLEEP, Level.ABSENT)
    costs.learn_asleep_memory(100 * MIB)
    assert costs.ladder.levels == (Level.WARM, Level.ABSENT)


def test_a_start_that_hangs_says_how_far_it_came():
    """At the limit its last phase and its child's last lines are told, and nothing is left of it."""

    class Hanging(FakeEngine):
        async def climb(self, note: StartNote) -> FakeBackend:
            note.phase, note.said = "/health answers with 503", lambda: "loading shard 3 of 9"
            return await super().start()

    async def run() -> None:
        house, engine = Rooms(), Hanging(start_s=1e6)
        house.add("m", engine, PoolLimits(start_timeout_s=30.0), CostSeed())
        async with house:
            words = r"not ready after 30 s.*; /health answers with 503\nits last lines:\nloading shard 3 of 9"
            with pytest.raises(StartFailed, match=words):
                await house.ask("m", 1000.0)
            assert engine.cancelled_starts >= 1

    run_virtual(run())


def test_a_seed_counts_until_it_was_measured():
    """Another seed changes what nobody has measured yet, over a restart too, and nothing else."""
    costs = ModelCosts(CostSeed(start_s=40.0, memory_bytes=MIB))
    again = ModelCosts()
    again.load(costs.dump())
    for each in (costs, again):
        each.believe(CostSeed(start_s=20.0, wake_s=1.0, memory_bytes=3 * MIB, device_bytes=9 * MIB))
        assert (each.start_s(), each.wake_s(), each.memory_bytes, each.device_bytes) == (20.0, 1.0, 3 * MIB, 9 * MIB)
    costs.learn_start(30.0)
    costs.learn_start_memory(5 * MIB)
    costs.learn_device_memory(Level.WARM, 7 * MIB)
    before = costs.levels
    costs.believe(CostSeed(start_s=1.0, memory_bytes=1, device_bytes=1))
    assert costs.levels == before
