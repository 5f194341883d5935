"""A pool: the replicas of one model behind one bounded queue whose jobs bind to a replica when one has a free slot.

It knows neither budgets nor other pools: the keeper tells it when to start and to stop replicas.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import cast

from backends.contract import (
    Backend,
    DeadlineExceeded,
    Dispatched,
    Engine,
    Event,
    Job,
    QueueFull,
    StartFailed,
    Task,
    UpstreamFailed,
    Usage,
    WorkerDied,
)
from backends.costs import ModelCosts
from backends.demand import Demand
from backends.line import Line
from backends.replica import Replica, bring_up, watch
from backends.snapshot import PoolSnapshot, ReplicaState, backoff_s

# A job waits for a second start after one that failed, but not for a third.
HOPELESS_FAILURES = 2

# A replica that served for this long was no failed start; its end begins a new count.
STABLE_S = 60.0

LEAST_RETRY_S = 0.1

_NO_JOB = Job(Task.INFER)


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How far a pool may go: replicas, jobs in the queue, seconds for one start.

    `keep_warm_s` is how long an idle replica above the minimum is kept; `None` leaves that to the forecast.
    """

    min_replicas: int = 0
    max_replicas: int = 1
    queue: int = 128
    start_timeout_s: float = 120.0
    keep_warm_s: float | None = None


class Pool:
    """The replicas of one model version and the jobs that wait for them.

    All times are of `clock`, which must run at the pace of the event loop's. `wake_keeper` is called when something
    happened that may change the keeper's mind. The keeper owns the tasks that run `live`. `resting`: see `rest`.
    """

    def __init__(
        self,
        model: str,
        engine: Engine,
        limits: PoolLimits,
        *,
        costs: ModelCosts,
        demand: Demand,
        clock: Callable[[], float],
        wake_keeper: Callable[[], None],
    ) -> None:
        self.model = model
        self.engine = engine
        self.limits = limits
        self.costs = costs
        self.demand = demand
        self._clock = clock
        self._wake_keeper = wake_keeper
        self._line: Line[Replica] = Line(self._release)
        self._background: Line[Replica] = Line(self._release)
        self._replicas: list[Replica] = []
        self._begun = 0
        self._failures = 0
        self._retry_at = 0.0
        self._last_failure = ""
        self._closing = False
        self.resting = False
        self._calm = asyncio.Event()
        self._empty = asyncio.Event()

    async def stream(self, job: Job, deadline: float | None = None) -> AsyncGenerator[Event, None]:
        """Run a job on the first replica that is free and yield its events, `Dispatched` first.

        `deadline` (of the pool's clock) holds for the first event. A job whose replica dies before that event runs
        once more elsewhere. Raises `QueueFull`, `StartFailed`, `DeadlineExceeded`, `WorkerDied`, and what the
        backend raises. Closing the iterator cancels the work and frees the slot.
        """
        arrived = self._clock()
        self.demand.record(arrived)
        replica = await self._bind(job, arrived, deadline, again=False)
        try:
            dispatched, events, event = await self._begin(replica, job, arrived, deadline)
        except WorkerDied:
            replica = await self._bind(job, arrived, deadline, again=True)
            dispatched, events, event = await self._begin(replica, job, arrived, deadline)
        bound_at = arrived + dispatched.queue_s + dispatched.start_s
        first_event_s = self._clock() - bound_at
        usage = Usage(0)
        try:
            yield dispatched
            yield event
            async for event in events:
                if type(event) is Usage:
                    usage = event
                yield event
            self._learn(usage, first_event_s, self._clock() - bound_at)
        except WorkerDied as error:
            self._lost(replica, str(error))
            raise
        finally:
            await self._finish(replica, events)

    async def warm_up(self, deadline: float) -> None:
        """Return when a replica is up; ask for one as a job would. Raises what `stream` raises before an event."""
        self._release(await self._bind(_NO_JOB, self._clock(), deadline, again=False))

    def rest(self, *, resting: bool) -> None:
        """Let every replica end, and take no jobs and start none until it rests no more."""
        self.resting = resting
        if resting:
            for replica in self._replicas:
                self.stop_replica(replica.name)
            self.refuse_waiting("it is being unloaded")
        self._wake_keeper()

    def start_replica(self) -> Replica:
        """Add a replica that is starting; a task must run `live` with it."""
        self._begun += 1
        replica = Replica(f"{self.model}-{self._begun}", self._clock())
        self._replicas.append(replica)
        self._note_calm()
        return replica

    def stop_replica(self, name: str) -> None:
        """Take a replica out of service: it ends when its last job has left. Unknown names are gone already."""
        for replica in self._replicas:
            if replica.name == name and replica.alive:
                replica.drain(self._clock())

    def refuse_waiting(self, why: str) -> None:
        """Fail everybody in the queue with `StartFailed`."""
        for line in (self._line, self._background):
            line.refuse(lambda _: StartFailed(f"{self.model} cannot start: {why}"))
        self._note_calm()

    async def live(self, replica: Replica) -> None:
        """Carry a replica from its start to its end; cancelling ends it."""
        backend: Backend | None = None
        reason: str | None = "ended by an internal error"
        try:
            backend = await bring_up(self.engine, replica.stopping, self.limits.start_timeout_s)
            if backend is None:
                reason = None
                return
            self._up(replica, backend)
            reason = await watch(backend, replica.stopping, lambda size: self._sample(replica, size))
        except StartFailed as error:
            reason = str(error)
        except asyncio.CancelledError:
            reason = None
            raise
        finally:
            if reason is not None:
                self._lost(replica, reason)
            if replica.alive:
                replica.become(ReplicaState.DRAINING, self._clock())
            await self._gone(replica, backend)

    def snapshot(self, now: float) -> PoolSnapshot:
        """Return what the pool looks like at `now`."""
        learned = self.costs.memory_bytes
        replicas = tuple(r.snapshot(self._remaining_start_s(r, now), learned) for r in self._replicas)
        waits_since = [line.oldest for line in (self._line, self._background) if line.oldest is not None]
        return PoolSnapshot(
            model=self.model,
            min_replicas=0 if self.resting else self.limits.min_replicas,
            max_replicas=0 if self.resting else self.limits.max_replicas,
            slots_per_replica=self.engine.concurrency,
            replicas=replicas,
            queued=self._waiting(),
            queue_limit=self.limits.queue,
            oldest_wait_s=now - min(waits_since, default=now),
            rate_per_s=self.demand.rate_per_s(now),
            last_arrival=self.demand.last_arrival,
            start_s=self.costs.start_s(),
            service_s=self.costs.mean_service_s,
            replica_bytes=learned,
            least_bytes=self.costs.least_bytes,
            keep_warm_s=self.limits.keep_warm_s,
            failures=self._failures,
            retry_at=self._retry_at,
            last_failure=self._last_failure,
            closing=self._closing,
        )

    async def drain(self, deadline: float) -> bool:
        """Take no new jobs and wait for those that were accepted; return whether all were done by `deadline`."""
        self._closing = True
        self._note_calm()
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock())):
                await self._calm.wait()
        except TimeoutError:
            return False
        return True

    async def close(self, deadline: float) -> None:
        """Drain until `deadline`, then refuse who still waits and end every replica."""
        await self.drain(deadline)
        self.refuse_waiting("it is being shut down")
        for replica in self._replicas:
            replica.drain(self._clock())
            replica.stopping.set()
        await self._empty.wait()

    async def _bind(self, job: Job, arrived: float, deadline: float | None, *, again: bool) -> Replica:
        """Return a replica with one slot taken for the caller, after a wait in line where none is free."""
        now = self._clock()
        if (self._closing or self.resting) and not again:
            raise StartFailed(f"{self.model} is {'being shut down' if self._closing else 'unloaded'}")
        if (error := self._hopeless(deadline)) is not None:
            raise error
        line = self._background if job.background else self._line
        blocked = line or (job.background and self._line)
        if not blocked and (replica := self._free_replica(background=job.background)) is not None:
            replica.in_flight += 1
            return replica
        if not again and len(line) >= self.limits.queue:
            raise QueueFull(
                f"{len(line)} jobs wait for {self.model}, as many as its queue holds", self._retry_after_s(now)
            )
        waiter = line.join(arrived, deadline, at_head=again)
        self._note_calm()
        if self._waiting() == 1:
            self._wake_keeper()
        try:
            return await line.wait(waiter, None if deadline is None else max(0.0, deadline - now))
        except TimeoutError:
            waited_s = self._clock() - arrived
            raise DeadlineExceeded(f"{self.model} had no free slot within {waited_s:.2f} s{self._trouble()}") from None
        finally:
            self._note_calm()

    async def _begin(
        self, replica: Replica, job: Job, arrived: float, deadline: float | None
    ) -> tuple[Dispatched, AsyncGenerator[Event, None], Event]:
        """Give the job to a replica and wait for its first event; unless one comes, the slot is given back."""
        now = self._clock()
        start_s = min(now - arrived, max(0.0, replica.ready_at - arrived))
        dispatched = Dispatched(replica.name, queue_s=now - arrived - start_s, start_s=start_s)
        events = cast("Backend", replica.backend).stream(job)
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - now)) as limit:
                event = await anext(events)
        except BaseException as error:
            await self._finish(replica, events)
            if isinstance(error, WorkerDied):
                self._lost(replica, str(error))
            if isinstance(error, TimeoutError) and limit.expired():
                waited_s = self._clock() - arrived
                raise DeadlineExceeded(f"{self.model} gave no first event within {waited_s:.2f} s") from None
            if isinstance(error, StopAsyncIteration):
                raise UpstreamFailed(f"{self.model} ended its answer before it began") from None
            raise
        return dispatched, events, event

    async def _finish(self, replica: Replica, events: AsyncGenerator[Event, None]) -> None:
        """Cancel what is left of a job, then free its slot."""
        try:
            await events.aclose()
        finally:
            self._release(replica)

    def _release(self, replica: Replica) -> None:
        replica.release(self._clock())
        self._dispatch()
        self._note_calm()

    def _free_replica(self, *, background: bool) -> Replica | None:
        """Return the ready replica with the fewest jobs, the oldest among equals; `None` where all are full.

        Where a replica has more than one slot, background work leaves one free for who may come.
        """
        slots = self.engine.concurrency
        if background and slots > 1:
            slots -= 1
        best: Replica | None = None
        for replica in self._replicas:
            if replica.state is ReplicaState.READY and replica.in_flight < slots:
                best, slots = replica, replica.in_flight
        return best

    def _dispatch(self) -> None:
        """Bind who waits to free slots until one of them runs out; background work comes after all else."""
        for line in (self._line, self._background):
            while line and (replica := self._free_replica(background=line is self._background)) is not None:
                replica.in_flight += 1
                if not line.grant(replica):
                    replica.in_flight -= 1
                    break
            if line:
                return

    def _up(self, replica: Replica, backend: Backend) -> None:
        now = self._clock()
        replica.up(backend, now)
        self.costs.learn_start(now - replica.started_at)
        self._sample(replica, backend.memory_bytes())
        self._dispatch()
        self._wake_keeper()

    def _sample(self, replica: Replica, size: int) -> None:
        if size:
            learn = self.costs.learn_memory if replica.memory_bytes else self.costs.learn_start_memory
            replica.memory_bytes = size
            learn(size)

    def _learn(self, usage: Usage, first_event_s: float, service_s: float) -> None:
        self._failures = 0
        self.costs.learn_job(
            service_s=service_s,
            first_event_s=first_event_s,
            tokens_in=usage.prompt_tokens,
            tokens_out=usage.completion_tokens,
        )

    def _lost(self, replica: Replica, reason: str) -> None:
        """Note that a replica failed, once; one that was told to stop owes no reason."""
        now = self._clock()
        if replica.alive:
            stable = replica.state is ReplicaState.READY and now - replica.ready_at >= STABLE_S
            self._failures = 1 if stable else self._failures + 1
            self._last_failure = reason
            self._retry_at = now + backoff_s(self.model, self._failures)
            replica.become(ReplicaState.FAILED, now)
            replica.stopping.set()
            for line in (self._line, self._background):
                line.refuse(self._hopeless)
            self._note_calm()
            self._wake_keeper()

    async def _gone(self, replica: Replica, backend: Backend | None) -> None:
        try:
            if backend is not None:
                await backend.close()
        finally:
            self._replicas.remove(replica)
            self._note_calm()
            self._wake_keeper()

    def _hopeless(self, deadline: float | None) -> StartFailed | None:
        """Return the error for a job that would wait in vain: nothing is up, and the next start is too far away."""
        now = self._clock()
        if self._failures == 0 or now >= self._retry_at or any(r.alive for r in self._replicas):
            return None
        in_time = deadline is None or self._retry_at + self.costs.start_s() <= deadline
        if in_time and self._failures < HOPELESS_FAILURES:
            return None
        wait_s = max(LEAST_RETRY_S, self._retry_at - now)
        return StartFailed(f"{self.model} cannot start (next try in {wait_s:.1f} s): {self._last_failure}", wait_s)

    def _waiting(self) -> int:
        return len(self._line) + len(self._background)

    def _trouble(self) -> str:
        return f"; the last start failed: {self._last_failure}" if self._failures else ""

    def _remaining_start_s(self, replica: Replica, now: float) -> float:
        if replica.state is not ReplicaState.STARTING:
            return 0.0
        return self.costs.remaining_start_s(now - replica.started_at)

    def _retry_after_s(self, now: float) -> float:
        """Until half of the queue has been served, at the learned service time."""
        alive = [r for r in self._replicas if r.alive]
        coming_s = min((self._remaining_start_s(r, now) for r in alive), default=self.costs.start_s())
        slots = self.engine.concurrency * max(1, len(alive))
        return max(LEAST_RETRY_S, coming_s + 0.5 * len(self._line) * self.costs.mean_service_s / slots)

    def _note_calm(self) -> None:
        """Keep the two events true that a closing pool waits for: no job is here, and no replica is here."""
        if not self._closing:
            return
        calm = not self._waiting() and all(r.in_flight == 0 for r in self._replicas)
        (self._calm.set if calm else self._calm.clear)()
        (self._empty.clear if self._replicas else self._empty.set)()
