"""Whole answers from a pool: at once where the backend can, by a stream where it cannot, within their time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from backends.contract import DeadlineExceeded, Dispatched, Event, Finish, Job, Text, UpstreamFailed, WorkerDied
from backends.limit import Limit
from backends.pool import PoolLimits
from tests.fakes import ANSWER, FakeBackend, FakeEngine
from tests.test_backends_pool import JOB, House, until, virtual

ONE = PoolLimits(min_replicas=1, max_replicas=1)
Way = Callable[[Job], Awaitable[list[Event]]]


class AnsweringBackend(FakeBackend):
    """Answers in a way of its own when it is asked for a whole answer."""

    def __init__(self, way: Way) -> None:
        super().__init__(ANSWER)
        self.way = way
        self.asked = 0

    async def answer(self, job: Job) -> list[Event]:
        """Answer."""
        self.asked += 1
        return await self.way(job)


class AnsweringEngine(FakeEngine):
    """Makes such backends."""

    def __init__(self, way: Way, concurrency: int = 1) -> None:
        super().__init__(concurrency=concurrency)
        self.way = way

    async def start(self) -> FakeBackend:
        """Return one."""
        self.starts += 1
        backend = AnsweringBackend(self.way)
        self.backends.append(backend)
        return backend


async def at_once(_: Job) -> list[Event]:
    """Answer after a second."""
    await asyncio.sleep(1.0)
    return list(ANSWER)


@virtual
async def test_an_answer_that_comes_at_once_is_not_streamed():
    """The backend is asked once, and the slot is free again."""
    async with House(AnsweringEngine(at_once), ONE) as house:
        await until(lambda: house.engine.backends)
        answered = await house.pool.answer(JOB)
        assert answered.dispatched == Dispatched("atlas-1", queue_s=0.0, start_s=0.0)
        assert answered.first_s == pytest.approx(1.0)
        assert answered.events == list(ANSWER)
        assert house.engine.backends[0].asked == 1
        assert house.engine.backends[0].jobs == []
        assert house.in_flight() == 0
        assert house.pool.costs.mean_service_s == pytest.approx(1.0, abs=1.0)


@virtual
async def test_where_no_slot_is_free_it_waits_in_line():
    """The answer is the same, by the stream."""
    async with House(AnsweringEngine(at_once), ONE) as house:
        await until(lambda: house.engine.backends)
        first, second = await asyncio.gather(house.pool.answer(JOB), house.pool.answer(JOB))
        assert first.events == second.events == list(ANSWER)
        assert second.dispatched.queue_s == pytest.approx(1.0)


@virtual
async def test_a_backend_that_only_streams_is_read_to_the_end():
    """When the first event came is known, and no slot is lost."""
    async with House(FakeEngine((1.0, Text("a"), 1.0, *ANSWER), concurrency=2), ONE) as house:
        await until(lambda: house.engine.backends)
        answered = await house.pool.answer(JOB)
        assert answered.events == [Text("a"), *ANSWER]
        assert answered.first_s == pytest.approx(1.0)
        assert house.in_flight() == 0


@virtual
async def test_a_whole_answer_ends_at_its_deadline():
    """The backend's work is cancelled, and the slot is free."""
    async with House(AnsweringEngine(at_once), ONE) as house:
        await until(lambda: house.engine.backends)
        with pytest.raises(DeadlineExceeded, match="no first event within"):
            await house.pool.answer(JOB, asyncio.get_running_loop().time() + 0.5)
        assert house.in_flight() == 0


@virtual
async def test_an_error_gives_the_slot_back():
    """What the backend raises is raised."""

    async def fail(_: Job) -> list[Event]:
        raise UpstreamFailed("told to fail")

    async with House(AnsweringEngine(fail), ONE) as house:
        await until(lambda: house.engine.backends)
        with pytest.raises(UpstreamFailed):
            await house.pool.answer(JOB)
        assert house.in_flight() == 0


@virtual
async def test_a_death_is_answered_by_another_replica():
    """The one that died is lost, and the job runs again."""

    async def die(_: Job) -> list[Event]:
        raise WorkerDied("told to die")

    async with House(AnsweringEngine(die), ONE) as house:
        await until(lambda: house.engine.backends)
        answered = await house.pool.answer(JOB)
        assert answered.events[-1] == Finish("stop")
        assert answered.dispatched.replica == "atlas-2"


@virtual
async def test_cancelling_is_no_deadline():
    """Who is cancelled while its time runs is cancelled, though the time was up at the same moment."""

    async def wait(limit: Limit) -> None:
        with limit:
            await asyncio.sleep(10)

    limit = Limit(1.0)
    task = asyncio.ensure_future(wait(limit))
    asyncio.get_running_loop().call_later(1.0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    limit.close()


@virtual
async def test_one_limit_serves_many_waits():
    """Waits within the time pass, the one under way when it is up ends, and all after it."""
    limit = Limit(1.0)
    for _ in range(3):
        with limit:
            await asyncio.sleep(0.3)
    with pytest.raises(TimeoutError), limit:
        await asyncio.sleep(0.3)
    with pytest.raises(TimeoutError), limit:
        await asyncio.sleep(0)
    limit.close()
