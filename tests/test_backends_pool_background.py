"""Background jobs in a pool: they wait in a line of their own, come last, and leave room for who may come."""

import asyncio
from dataclasses import replace

import pytest

from backends.contract import QueueFull, Text
from backends.pool import PoolLimits
from tests.fakes import ANSWER, FakeEngine
from tests.test_backends_pool import JOB, House, until, virtual

BACKGROUND = replace(JOB, background=True)
SLOW = (Text("a"), 1.0, *ANSWER)
ONE = PoolLimits(min_replicas=1, max_replicas=1)


@virtual
async def test_live_jobs_overtake_background_ones():
    """Who comes later and is no background job is served first."""
    order: list[str] = []

    async def ask(name: str, house: House) -> None:
        await house.ask(job=BACKGROUND if name.startswith("b") else JOB)
        order.append(name)

    async with House(FakeEngine(SLOW), ONE) as house:
        await until(lambda: house.engine.backends)
        async with asyncio.TaskGroup() as group:
            for name in ("first", "b1", "b2", "live1", "live2"):
                group.create_task(ask(name, house))
                await asyncio.sleep(0)
    assert order == ["first", "live1", "live2", "b1", "b2"]


@virtual
async def test_background_jobs_leave_a_slot_free():
    """Of four slots they take three: a live job that comes then waits for nothing."""
    async with House(FakeEngine(SLOW, concurrency=4), ONE) as house:
        await until(lambda: house.engine.backends)
        jobs = [asyncio.ensure_future(house.ask(job=BACKGROUND)) for _ in range(5)]
        await until(lambda: house.in_flight() == 3)
        assert house.queued() == 2
        first, *_ = await house.ask()
        assert first.queue_s == 0.0
        await asyncio.gather(*jobs)


@virtual
async def test_background_jobs_have_a_bound_of_their_own():
    """A line full of background jobs refuses the next of them, and no live one."""
    async with House(FakeEngine(SLOW), PoolLimits(min_replicas=1, max_replicas=1, queue=2)) as house:
        await until(lambda: house.engine.backends)
        running = asyncio.ensure_future(house.ask())
        await until(lambda: house.in_flight() == 1)
        waiting = [asyncio.ensure_future(house.ask(job=BACKGROUND)) for _ in range(2)]
        await until(lambda: house.queued() == 2)
        with pytest.raises(QueueFull):
            await house.ask(job=BACKGROUND)
        await house.ask()
        await asyncio.gather(running, *waiting)


@virtual
async def test_a_background_job_starts_a_replica():
    """It waits for a cold start as any other."""
    async with House(FakeEngine(start_s=2.0, concurrency=2)) as house:
        await house.ask(job=BACKGROUND)
        assert house.engine.starts == 1
