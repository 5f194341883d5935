"""The keeper at work on pools: on demand, out of memory, after failures, and at the end."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Self

import pytest

from backends.contract import DeadlineExceeded, Event, Finish, Job, StartFailed, Task, Text
from backends.costs import CostSeed, ModelCosts
from backends.demand import Demand
from backends.keeper import DECISIONS_KEPT, Keeper
from backends.planning import Start, Stop, Wait
from backends.pool import Pool, PoolLimits
from backends.snapshot import PoolSnapshot, backoff_s
from tests.fakes import ANSWER, FakeBackend, FakeEngine, run_virtual

MIB = 2**20


class Rooms:
    """A keeper over pools of fake models, on the running loop."""

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.clock = asyncio.get_running_loop().time
        self.keeper = Keeper(budget_bytes, self.clock)
        self.pools: dict[str, Pool] = {}

    def add(self, model: str, engine: FakeEngine, limits: PoolLimits, seed: CostSeed) -> None:
        """Give the keeper one more pool."""
        self.pools[model] = Pool(
            model,
            engine,
            limits,
            costs=ModelCosts(seed),
            demand=Demand(self.clock()),
            clock=self.clock,
            wake_keeper=self.keeper.wake,
        )
        self.keeper.add(self.pools[model])

    async def ask(self, model: str, timeout_s: float = 60.0) -> list[Event]:
        """Run one job to its end."""
        job = Job(Task.CHAT)
        return [event async for event in self.pools[model].stream(job, self.clock() + timeout_s)]

    def up(self) -> list[str]:
        """Name the models with a replica."""
        return [model for model, pool in self.pools.items() if pool.snapshot(self.clock()).replicas]

    async def __aenter__(self) -> Self:
        self.keeper.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.keeper.close()
        assert self.up() == []


def rooms(
    models: Iterable[str], budget_bytes: int | None = None, *, start_s: float = 1.0, script: Iterable[object] = ANSWER
) -> Rooms:
    """Make models of 100 MiB that start in `start_s`."""
    built = Rooms(budget_bytes)
    for model in models:
        engine = FakeEngine(script, start_s=start_s, memory_bytes=100 * MIB)
        built.add(model, engine, PoolLimits(), CostSeed(start_s=start_s, memory_bytes=100 * MIB))
    return built


def test_a_replica_lives_for_as_long_as_it_pays():
    """Started for a request, kept for a while, stopped when nobody asks, each with its reason."""

    async def run() -> None:
        async with rooms(["atlas"]) as house:
            await house.ask("atlas")
            await asyncio.sleep(50)
            assert house.up() == ["atlas"]
            await asyncio.sleep(3600)
            assert house.up() == []
            actions = [decision.action for decision in house.keeper.decisions]
            assert [type(action) for action in actions] == [Start, Stop]
            assert "1 queued" in actions[0].why
            assert "down by break-even" in actions[1].why

    run_virtual(run())


def test_step_plans_and_acts_once():
    """Without its own task the keeper can be driven look by look."""

    async def run() -> None:
        house = rooms(["atlas"])
        job = asyncio.ensure_future(house.ask("atlas"))
        await asyncio.sleep(0)
        assert [type(action) for action in house.keeper.step(house.clock())] == [Start]
        assert house.keeper.step(house.clock()) == ()
        assert (await job)[-1] == Finish("stop")
        await house.keeper.close()

    run_virtual(run())


def test_two_models_take_turns_in_memory_for_one():
    """Requests that push each other's model out are all served, in whatever order, and memory is never overdrawn."""

    async def run() -> None:
        most = 0

        def measure() -> None:
            nonlocal most
            held = sum(r.memory_bytes for p in house.pools.values() for r in p.snapshot(house.clock()).replicas)
            most = max(most, held)

        async with rooms(["atlas", "minilm"], 150 * MIB) as house:
            for turn in range(20):
                answer = await house.ask(("atlas", "minilm")[turn % 2])
                measure()
                assert answer[-1] == Finish("stop")
            jobs = [asyncio.ensure_future(house.ask(("atlas", "minilm")[turn % 2])) for turn in range(20)]
            while not all(job.done() for job in jobs):
                measure()
                await asyncio.sleep(0.05)
            assert all(job.result()[-1] == Finish("stop") for job in jobs)
        assert most == 100 * MIB

    run_virtual(run())


def test_a_request_that_waits_for_memory_ends_with_its_deadline():
    """While the other model is busy nothing is stopped, and the request does not hang."""

    async def run() -> None:
        async with rooms(["atlas", "minilm"], 150 * MIB, script=(Text("a"), 1000.0, *ANSWER)) as house:
            busy = asyncio.ensure_future(house.ask("minilm"))
            await asyncio.sleep(5)
            with pytest.raises(DeadlineExceeded):
                await house.ask("atlas", timeout_s=20.0)
            waits = [decision for decision in house.keeper.decisions if isinstance(decision.action, Wait)]
            assert len(waits) == 1, "a wait counts once, however many looks it lasts"
            busy.cancel()
            await asyncio.wait({busy})

    run_virtual(run())


def test_who_waits_for_what_never_fits_is_told():
    """The refusal reaches the request with both figures."""

    async def run() -> None:
        async with rooms(["atlas"], 50 * MIB) as house:
            with pytest.raises(StartFailed, match="holds 100 MiB, the memory budget is 50 MiB"):
                await house.ask("atlas")

    run_virtual(run())


def test_a_peak_above_the_budget_does_not_bar_the_model():
    """A replica that once held more than the budget is gone: the next one is started as before."""

    async def run() -> None:
        async with rooms(["atlas"], 150 * MIB) as house:
            await house.ask("atlas")
            [backend] = house.pools["atlas"].engine.backends
            backend._memory_bytes = 400 * MIB
            await asyncio.sleep(6)
            assert house.pools["atlas"].snapshot(house.clock()).replica_bytes == 400 * MIB
            backend.die()
            await asyncio.sleep(1)
            assert (await house.ask("atlas"))[-1] == Finish("stop")
            assert house.pools["atlas"].snapshot(house.clock()).replica_bytes == 250 * MIB

    run_virtual(run())


def test_an_engine_with_a_bug_does_not_end_the_keeper(caplog):
    """An error that no engine should raise is logged, told to who waits, and tried again like any failure."""

    class BrokenEngine(FakeEngine):
        async def start(self) -> FakeBackend:
            self.starts += 1
            if self.starts <= 2:
                raise ZeroDivisionError("a bug")
            return await super().start()

    async def run() -> None:
        async with Rooms() as house:
            house.add("atlas", BrokenEngine(), PoolLimits(), CostSeed())
            with pytest.raises(StartFailed, match="internal error"):
                await house.ask("atlas")
            await asyncio.sleep(10)
            assert (await house.ask("atlas"))[-1] == Finish("stop")

    with caplog.at_level(logging.ERROR):
        run_virtual(run())
    assert "replica of atlas ended by an internal error" in caplog.text


def test_a_look_that_fails_is_not_the_last(caplog):
    """An error in one look is logged, and the next look starts what is wanted."""

    class Stumbling(Pool):
        stumbles = 3

        def snapshot(self, now: float) -> PoolSnapshot:
            self.stumbles -= 1
            if self.stumbles >= 0:
                raise ZeroDivisionError("a bug")
            return super().snapshot(now)

    async def run() -> None:
        async with rooms(["atlas"]) as house:
            house.pools["atlas"].__class__ = Stumbling
            assert (await house.ask("atlas"))[-1] == Finish("stop")

    run_virtual(run())
    assert "the keeper's look failed" in caplog.text


def test_failures_are_not_retried_without_pause():
    """A minimum that cannot start is tried ever more seldom: a dozen times in ten minutes, not six hundred."""

    async def run() -> None:
        async with Rooms() as house:
            engine = FakeEngine(failures=10_000)
            house.add("atlas", engine, PoolLimits(min_replicas=1), CostSeed())
            await asyncio.sleep(600)
            assert 8 <= engine.starts <= 18
            assert len(house.keeper.decisions) <= DECISIONS_KEPT

    run_virtual(run())


def test_the_keeper_wakes_when_a_back_off_ends():
    """A replica that died is replaced as soon as its back-off allows, not at the next full second."""

    async def run() -> None:
        async with Rooms() as house:
            engine = FakeEngine()
            house.add("atlas", engine, PoolLimits(min_replicas=1), CostSeed())
            await asyncio.sleep(100.3)
            engine.backends[0].die()
            died_at = house.clock()
            while len(engine.backends) < 2:  # noqa: ASYNC110 - in virtual time a look costs nothing
                await asyncio.sleep(0.001)
            assert house.clock() - died_at == pytest.approx(backoff_s("atlas", 1), abs=0.005)

    run_virtual(run())


def test_closing_ends_starts_and_replicas():
    """A cold start is cancelled, a ready replica closed, and no task is left."""

    async def run() -> None:
        house = rooms(["atlas"], start_s=100.0)
        house.add("minilm", FakeEngine(), PoolLimits(min_replicas=1), CostSeed())
        async with house:
            waiting = asyncio.ensure_future(house.ask("atlas"))
            await asyncio.sleep(10)
            assert house.up() == ["atlas", "minilm"]
        waiting.cancel()
        await asyncio.wait({waiting})

    run_virtual(run())


def test_a_smaller_budget_ends_what_is_idle_at_once():
    """It does not wait until somebody wants the memory; with room again, what was asked just now comes back."""

    async def run() -> None:
        async with rooms(["a", "b"]) as built:
            for model in ("a", "b"):
                await built.ask(model)
            await asyncio.sleep(2.0)
            for budget, left in ((300, ["a", "b"]), (150, ["b"]), (300, ["a", "b"])):
                built.keeper.set_budget(budget * MIB)
                await asyncio.sleep(2.0)
                assert built.up() == left

    run_virtual(run())


def test_who_waits_for_what_was_removed_before_it_was_up_is_told():
    """A retired pool starts nothing more: without a replica that comes, its queue is refused at once."""

    async def run() -> None:
        async with rooms(["a"], start_s=5.0) as built:
            pool = built.pools["a"]
            waiting = asyncio.create_task(built.ask("a"))
            await asyncio.sleep(1.0)
            for replica in pool.snapshot(built.clock()).replicas:
                pool.fleet.stop(replica.name)
            built.keeper.retire(pool)
            built.keeper.wake()
            with pytest.raises(StartFailed, match="replaced or removed"):
                await waiting
            await pool.close(built.clock())
            built.keeper.forget(pool)

    run_virtual(run())
