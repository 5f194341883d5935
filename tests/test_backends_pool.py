"""The pool: late binding, bounds, deadlines, deaths, and slots that always come back."""

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any, Self

import pytest

from backends.contract import (
    DeadlineExceeded,
    Dispatched,
    Event,
    Finish,
    Job,
    Message,
    QueueFull,
    StartFailed,
    Task,
    Text,
    WorkerDied,
)
from backends.costs import CostSeed, ModelCosts
from backends.demand import Demand
from backends.keeper import Keeper
from backends.pool import Pool, PoolLimits
from backends.snapshot import ReplicaState
from tests.fakes import ANSWER, FakeEngine, run_virtual

JOB = Job(Task.CHAT, messages=(Message("user", "hello"),))

LIMITS = PoolLimits()


class House:
    """A pool and its keeper on the running loop."""

    def __init__(self, engine: FakeEngine, limits: PoolLimits = LIMITS, start_s: float = 1.0) -> None:
        loop = asyncio.get_running_loop()
        self.engine = engine
        self.keeper = Keeper(None, loop.time)
        self.pool = Pool(
            "atlas",
            engine,
            limits,
            costs=ModelCosts(CostSeed(start_s=start_s)),
            demand=Demand(loop.time()),
            clock=loop.time,
            wake_keeper=self.keeper.wake,
        )
        self.keeper.add(self.pool)
        self.keeper.start()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.keeper.close()
        assert self.pool.snapshot(0.0).replicas == ()
        assert all(backend.closed for backend in self.engine.backends)

    async def ask(self, timeout_s: float | None = None, job: Job = JOB) -> list[Event]:
        """Run one job to its end."""
        deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        return [event async for event in self.pool.stream(job, deadline)]

    def in_flight(self) -> int:
        """Count the jobs on replicas."""
        return self.pool.snapshot(asyncio.get_running_loop().time()).in_flight

    def queued(self) -> int:
        """Count the jobs in line."""
        return self.pool.snapshot(asyncio.get_running_loop().time()).queued


async def until(fact: Any) -> None:
    """Wait until a fact holds, or fail after a minute: virtual ones pass at once."""
    async with asyncio.timeout(60):
        while not fact():  # noqa: ASYNC110 - in virtual time a look costs nothing
            await asyncio.sleep(0.01)


def virtual(test: Any) -> Any:
    """Run an async test in virtual time."""

    def run() -> None:
        coroutine: Coroutine[Any, Any, None] = test()
        run_virtual(coroutine)

    run.__doc__, run.__name__ = test.__doc__, test.__name__
    return run


@virtual
async def test_a_job_starts_a_replica_and_gets_its_events():
    """A job on an empty pool brings a replica up, and its first event says how long that took."""
    async with House(FakeEngine(start_s=2.0)) as house:
        first, *rest = await house.ask()
    assert rest == list(ANSWER)
    assert first == Dispatched("atlas-1", queue_s=pytest.approx(0.0), start_s=pytest.approx(2.0))


@virtual
async def test_all_who_wait_share_one_cold_start():
    """Jobs that arrive during a start wait for it and start no second one."""
    async with House(FakeEngine(start_s=2.0, concurrency=4), PoolLimits(max_replicas=3)) as house:
        answers = await asyncio.gather(*(house.ask() for _ in range(4)))
        assert house.engine.starts == 1
    assert all(answer[-1] == Finish("stop") for answer in answers)


@virtual
async def test_jobs_bind_late_and_to_the_least_loaded():
    """A slot is filled from the head of the queue when it gets free, on whichever replica that is."""
    limits = PoolLimits(min_replicas=2, max_replicas=2)
    async with House(FakeEngine((Text("a"), 1.0, *ANSWER), concurrency=2), limits) as house:
        await until(lambda: len(house.engine.backends) == 2)
        await asyncio.gather(*(house.ask() for _ in range(8)))
        assert [backend.most_running for backend in house.engine.backends] == [2, 2]
        assert [len(backend.jobs) for backend in house.engine.backends] == [4, 4]


@virtual
async def test_a_full_queue_refuses_at_once():
    """One job more than the queue holds is refused with an estimate of when there is room."""
    async with House(FakeEngine(start_s=3.0), PoolLimits(queue=2)) as house:
        jobs = [asyncio.ensure_future(house.ask()) for _ in range(2)]
        await until(lambda: house.queued() == 2)
        with pytest.raises(QueueFull, match="2 jobs wait for atlas") as refused:
            await house.ask()
        assert refused.value.retry_after_s > 0
        await asyncio.gather(*jobs)


@virtual
async def test_a_deadline_ends_the_wait_in_the_queue():
    """A job that is not bound in time fails with its deadline, and the queue forgets it."""
    async with House(FakeEngine(start_s=10.0)) as house:
        with pytest.raises(DeadlineExceeded, match=r"no free slot within 1\.00 s"):
            await house.ask(timeout_s=1.0)
        assert house.queued() == 0


@virtual
async def test_a_deadline_ends_the_wait_for_the_first_event():
    """A bound job without a first event in time fails, and its work is cancelled."""
    async with House(FakeEngine((10.0, *ANSWER))) as house:
        with pytest.raises(DeadlineExceeded, match=r"no first event within 1\.00 s"):
            await house.ask(timeout_s=1.0)
        assert house.in_flight() == 0
        assert house.engine.backends[0].running == 0


@virtual
async def test_a_limit_that_has_nearly_run_out_is_told_in_words():
    """`within 0.00 s` would say nothing."""
    async with House(FakeEngine((10.0, *ANSWER), start_s=1.0)) as house:
        with pytest.raises(DeadlineExceeded, match=r"no free slot in time: less than 0\.01 s was left for it"):
            await house.ask(timeout_s=0.004)
        with pytest.raises(DeadlineExceeded, match=r"no first event within 5\.00 s"):
            await house.ask(timeout_s=5.0)
        with pytest.raises(DeadlineExceeded, match=r"no first event in time: less than 0\.01 s was left for it"):
            await house.ask(timeout_s=0.004)


@virtual
async def test_a_deadline_cuts_a_stream_that_began():
    """The deadline holds for the whole answer, and what was left of the work is cancelled."""
    async with House(FakeEngine((Text("a"), 10.0, *ANSWER))) as house:
        with pytest.raises(DeadlineExceeded, match="did not complete"):
            await house.ask(timeout_s=1.0)
        assert house.engine.backends[0].running == 0
        assert house.in_flight() == 0


@virtual
async def test_leaving_mid_stream_frees_the_slot():
    """Closing the iterator cancels the work down to the backend."""
    async with House(FakeEngine((Text("a"), 100.0, *ANSWER))) as house:
        async with aclosing(house.pool.stream(JOB)) as events:
            await anext(events)
            await anext(events)
            assert house.in_flight() == 1
        assert house.in_flight() == 0
        assert house.engine.backends[0].running == 0


@virtual
async def test_leaving_the_queue_frees_the_place():
    """A cancelled waiter leaves nothing behind, and the start goes on for the next one."""
    async with House(FakeEngine(start_s=2.0)) as house:
        job = asyncio.ensure_future(house.ask())
        await until(lambda: house.queued() == 1)
        job.cancel()
        await asyncio.wait({job})
        assert house.queued() == 0
        await house.ask()
        assert house.engine.starts == 1


@pytest.mark.parametrize("turns", range(16))
def test_a_slot_granted_to_one_who_just_left_goes_on(turns):
    """Cancelled in any moment around its grant, a waiter passes the slot on to the next in the queue."""

    async def run() -> None:
        gates = [asyncio.Event() for _ in range(3)]
        async with House(FakeEngine(("gate", *ANSWER))) as house:
            jobs = [asyncio.ensure_future(house.ask(job=Job(Task.CHAT, extra={"gate": gate}))) for gate in gates]
            await until(lambda: house.queued() == 2 and house.in_flight() == 1)
            gates[0].set()
            for _ in range(turns):
                await asyncio.sleep(0)
            jobs[1].cancel()
            gates[2].set()
            # A slot that was lost leaves the last job waiting for ever: a virtual minute makes that a failure at once.
            async with asyncio.timeout(60):
                assert (await jobs[2])[-1] == Finish("stop")
                await asyncio.wait({jobs[1]})
            assert jobs[1].cancelled()
            assert (house.in_flight(), house.queued()) == (0, 0)

    run_virtual(run())


@virtual
async def test_a_death_before_the_first_event_is_retried_elsewhere():
    """The job runs again on a new replica, from the head of the queue, and its client sees one answer."""
    gate = asyncio.Event()
    async with House(FakeEngine((gate, *ANSWER))) as house:
        jobs = [asyncio.ensure_future(house.ask()) for _ in range(2)]
        await until(lambda: house.in_flight() == 1)
        house.engine.backends[0].die()
        gate.set()
        answers = await asyncio.gather(*jobs)
        assert isinstance(answers[0][0], Dispatched)
        assert answers[0][0].replica == "atlas-2"
        assert [type(event) for event in answers[0]] == [Dispatched, *(type(event) for event in ANSWER)]
        assert len(house.engine.backends[1].jobs) == 2


@virtual
async def test_a_death_after_the_first_event_is_an_error():
    """What was sent cannot be unsent: the client gets `WorkerDied`."""
    gate = asyncio.Event()
    async with House(FakeEngine((Text("a"), gate, *ANSWER))) as house:
        job = asyncio.ensure_future(house.ask())
        await until(lambda: house.in_flight() == 1)
        house.engine.backends[0].die()
        with pytest.raises(WorkerDied):
            await job
        assert house.in_flight() == 0


@virtual
async def test_a_second_death_is_an_error():
    """One retry, not two."""
    async with House(FakeEngine((WorkerDied("poison"), *ANSWER))) as house:
        with pytest.raises(WorkerDied, match="poison"):
            await house.ask()
        assert house.engine.starts == 2


@virtual
async def test_one_failed_start_is_tried_again():
    """A job waits for the second start."""
    async with House(FakeEngine(failures=1)) as house:
        assert (await house.ask(timeout_s=60.0))[-1] == Finish("stop")
        assert house.pool.snapshot(0.0).failures == 0


@virtual
async def test_starts_that_keep_failing_are_told_with_the_reason():
    """After two failures in a row waiters get the reason and when to come again; later jobs get it at once."""
    async with House(FakeEngine(failures=99)) as house:
        with pytest.raises(StartFailed, match="start 2 was told to fail"):
            await house.ask(timeout_s=60.0)
        loop = asyncio.get_running_loop()
        before = loop.time()
        with pytest.raises(StartFailed, match="next try in") as refused:
            await house.ask()
        assert loop.time() == before
        assert refused.value.retry_after_s is not None


@virtual
async def test_who_cannot_wait_for_the_next_start_is_told_at_once():
    """A deadline before the next try's end fails with the failed start's reason, not with the deadline."""
    async with House(FakeEngine(failures=1, start_s=1.0)) as house:
        with pytest.raises(StartFailed, match="start 1 was told to fail"):
            await house.ask(timeout_s=1.2)


@virtual
async def test_a_start_that_takes_too_long_is_given_up():
    """The start is cancelled and counts as failed."""
    async with House(FakeEngine(start_s=100.0), PoolLimits(start_timeout_s=5.0)) as house:
        with pytest.raises(StartFailed, match="not ready after 5 s"):
            await house.ask(timeout_s=60.0)
        assert house.engine.cancelled_starts == house.engine.starts


@virtual
async def test_a_dead_replica_of_the_minimum_is_replaced():
    """The keeper brings the minimum up again after the back-off."""
    async with House(FakeEngine(), PoolLimits(min_replicas=1)) as house:
        await until(lambda: len(house.engine.backends) == 1)
        house.engine.backends[0].die()
        await until(lambda: len(house.engine.backends) == 2)
        assert house.pool.snapshot(0.0).last_failure == "killed by the test"


@virtual
async def test_drain_serves_what_was_accepted_and_refuses_the_rest():
    """A drain under a deadline ends when the last accepted job has ended."""
    async with House(FakeEngine((1.0, *ANSWER))) as house:
        jobs = [asyncio.ensure_future(house.ask()) for _ in range(3)]
        await until(lambda: house.queued() == 2)
        drain = asyncio.ensure_future(house.pool.drain(asyncio.get_running_loop().time() + 60.0))
        await asyncio.sleep(0)
        with pytest.raises(StartFailed, match="shut down"):
            await house.ask()
        assert await drain
        assert all(job.done() for job in jobs)


@virtual
async def test_close_ends_what_the_deadline_did_not_wait_for():
    """Past the deadline the queue is refused, running jobs fail, and no replica is left."""
    async with House(FakeEngine((Text("a"), 100.0, *ANSWER))) as house:
        jobs = [asyncio.ensure_future(house.ask()) for _ in range(2)]
        await until(lambda: house.in_flight() == 1 and house.queued() == 1)
        await house.pool.close(asyncio.get_running_loop().time() + 1.0)
        errors = await asyncio.gather(*jobs, return_exceptions=True)
        assert sorted(type(error).__name__ for error in errors) == ["StartFailed", "WorkerDied"]
        assert house.pool.snapshot(0.0).replicas == ()


@virtual
async def test_closing_during_a_cold_start_cancels_it():
    """A replica that is still starting is stopped with the pool."""
    async with House(FakeEngine(start_s=100.0), PoolLimits(min_replicas=1)) as house:
        await until(lambda: house.engine.starts == 1)
        await house.pool.close(asyncio.get_running_loop().time())
        assert house.engine.cancelled_starts == 1


@virtual
async def test_a_stopped_replica_finishes_its_job_first():
    """Stopping takes a replica out of service and ends it after its last job."""
    async with House(FakeEngine((Text("a"), 5.0, *ANSWER))) as house:
        job = asyncio.ensure_future(house.ask())
        await until(lambda: house.in_flight() == 1)
        house.pool.fleet.stop("atlas-1")
        assert house.pool.snapshot(0.0).replicas[0].state is ReplicaState.DRAINING
        assert (await job)[-1] == Finish("stop")
        await until(lambda: house.engine.backends[0].closed)


@virtual
async def test_costs_are_learned():
    """A start and a job leave their durations and the tokens behind."""
    async with House(FakeEngine((2.0, *ANSWER), start_s=3.0), start_s=50.0) as house:
        await house.ask()
        assert house.pool.costs.start_s() == pytest.approx(3.0, rel=0.06)
        assert house.pool.costs.mean_service_s == pytest.approx(2.0, rel=0.01)
        assert house.pool.costs.tokens_out == pytest.approx(1.0)
