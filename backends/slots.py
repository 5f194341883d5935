"""The slots of one model's replicas behind one bounded queue: whoever comes is given one when it is free.

It knows neither how a replica comes up nor other models. Nor does it know what is done in a slot.
"""

import asyncio
import time
from collections.abc import Callable

from backends.contract import DeadlineExceeded, Engine, Job, QueueFull, StartFailed, Task
from backends.costs import ModelCosts
from backends.demand import Demand
from backends.failures import LEAST_RETRY_S, Failures
from backends.fleet import Fleet
from backends.hints import Hints
from backends.limit import in_time
from backends.line import Line
from backends.pool_limits import PoolLimits
from backends.replica import Replica
from backends.snapshot import PoolSnapshot, ReplicaState
from backends.warmth.schedule import least_replicas

_NO_JOB = Job(Task.INFER)


class Slots:
    """The slots that the replicas of one model version have, its `fleet`, and who waits for one.

    All times are of `clock`, which must run at the pace of the event loop's. `wake_keeper` is called when something
    happened that may change the keeper's mind. `resting`: see `rest`.
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
        hints: Hints | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.model = model
        self.engine = engine
        self.limits = limits
        self.costs = costs
        self.demand = demand
        self._clock = clock
        self._wake_keeper = wake_keeper
        self.hints = Hints(wake_keeper) if hints is None else hints
        self._wall_clock = wall_clock
        self._line: Line[Replica] = Line(self._release)
        self._background: Line[Replica] = Line(self._release)
        self._failures = Failures(model)
        self.fleet = Fleet(self, self._failures, clock)
        self._replicas = self.fleet.replicas
        self._closing = False
        self.resting = False
        self._calm = asyncio.Event()
        self.price()

    def price(self) -> None:
        """Weigh the levels of warmth by what was learned of their costs."""
        self.demand.keeping.price(self.costs.ladder)

    async def warm_up(self, deadline: float) -> None:
        """Return when a replica is up; ask for one as a job would. Raises what `stream` raises before an event."""
        self._release(await self._bind(_NO_JOB, self._clock(), deadline, again=False))

    def refuse_waiting(self, why: str) -> None:
        """Fail everybody in the queue with `StartFailed`."""
        for line in (self._line, self._background):
            line.refuse(lambda _: StartFailed(f"{self.model} cannot start: {why}"))
        self._note_calm()

    def changed(self) -> None:
        """Take note that a replica is ready, asleep or gone: one that is ready gets its first jobs."""
        self._dispatch()
        self._note_calm()
        self._wake_keeper()

    def one_lost(self) -> None:
        """Take note that a replica has failed: who now waits in vain is sent away."""
        for line in (self._line, self._background):
            line.refuse(self.fleet.hopeless)
        self._note_calm()
        self._wake_keeper()

    def snapshot(self, now: float) -> PoolSnapshot:
        """Return what the pool looks like at `now`."""
        replicas = tuple(r.snapshot(now, self.costs) for r in self._replicas)
        waits_since = [line.oldest for line in (self._line, self._background) if line.oldest is not None]
        forecasts = _, mean, _ = self.demand.forecasts(now)
        return PoolSnapshot(
            model=self.model,
            min_replicas=0 if self.resting else self._least(),
            max_replicas=0 if self.resting else self.limits.max_replicas,
            slots_per_replica=self.engine.concurrency,
            replicas=replicas,
            queued=self._waiting(),
            queue_limit=self.limits.queue,
            oldest_wait_s=now - min(waits_since, default=now),
            rate_per_s=mean,
            forecasts=forecasts,
            forecast=self.demand.keeping.habits.forecast,
            last_arrival=self.demand.last_arrival,
            start_s=self.costs.start_s(),
            service_s=self.costs.mean_service_s,
            replica_bytes=self.costs.climb_bytes,
            least_bytes=self.costs.least_bytes,
            keep_warm_s=self.limits.keep_warm_s,
            course=self.demand.keeping.course,
            course_words=self.demand.keeping.words(),
            idle_since=self.demand.idle_since,
            failures=self._failures.count,
            retry_at=self._failures.retry_at,
            last_failure=self._failures.last,
            closing=self._closing,
            rungs=self.demand.keeping.ladder.levels,
            costs=self.costs.levels,
            hinted=self.hints.replicas(now),
            promised_since=self.hints.promised_since(now),
            gpus=self.limits.gpus,
            made_room=self._failures.made_room,
            is_upstream=self.limits.is_upstream,
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
        await self.fleet.end()

    def _seat(self, job: Job, deadline: float | None) -> Replica | None:
        """Return a replica with one slot taken for the caller; `None` where there is hope, but none is free now."""
        if (error := self.fleet.hopeless(deadline)) is not None:
            raise error
        if self._line or (job.background and self._background):
            return None
        replica = self._free_replica(background=job.background)
        if replica is not None:
            replica.in_flight += 1
        return replica

    def free_now(self) -> Replica | None:
        """Return a replica that may be given a job of the foreground at once; nothing is taken."""
        if self._closing or self.resting or self._line:
            return None
        return self._free_replica(background=False)

    async def _bind(self, job: Job, arrived: float, deadline: float | None, *, again: bool) -> Replica:
        """Return a replica with one slot taken for the caller, after a wait in line where none is free."""
        now = self._clock()
        self._refuse_new(again=again)
        if (replica := self._seat(job, deadline)) is not None:
            return replica
        line = self._background if job.background else self._line
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
            words = self._failures.words()
            raise DeadlineExceeded(f"{self.model} had no free slot {in_time(waited_s)}{words}") from None
        except BaseException:
            if not self._waiting():
                self._note_rest(self._clock())
            raise
        finally:
            self._note_calm()

    def _note_rest(self, now: float) -> None:
        """Let demand know where no job is left."""
        if not any(r.in_flight for r in self._replicas):
            self.demand.rest(now)

    def _refuse_new(self, *, again: bool) -> None:
        if (self._closing or self.resting) and not again:
            raise StartFailed(f"{self.model} is {'being shut down' if self._closing else 'unloaded'}")

    def _release(self, replica: Replica) -> None:
        now = self._clock()
        replica.release(now)
        if self._line or self._background:
            self._dispatch()
        elif replica.in_flight == 0:
            self._note_rest(now)
        if self._closing:
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

    def _least(self) -> int:
        """Return how many replicas run at least now; those of a shift start so early that they are up by then."""
        limits = self.limits
        if not limits.schedule:
            return limits.min_replicas
        shifts = least_replicas(limits.schedule, self._wall_clock(), ahead_s=self.costs.start_s(0.9))
        return max(limits.min_replicas, min(shifts, limits.max_replicas))

    def _waiting(self) -> int:
        return len(self._line) + len(self._background)

    def _retry_after_s(self, now: float) -> float:
        """Until half of the queue has been served, at the learned service time."""
        alive = [r for r in self._replicas if r.alive]
        coming_s = min((r.remaining_start_s(now, self.costs) for r in alive), default=self.costs.start_s())
        slots = self.engine.concurrency * max(1, len(alive))
        return max(LEAST_RETRY_S, coming_s + 0.5 * len(self._line) * self.costs.mean_service_s / slots)

    def _note_calm(self) -> None:
        """Keep the event true that a closing pool waits for: no job is here."""
        if not self._closing:
            return
        calm = not self._waiting() and all(r.in_flight == 0 for r in self._replicas)
        (self._calm.set if calm else self._calm.clear)()
