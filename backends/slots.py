"""The replicas of one model behind one bounded queue: whoever comes is given a slot of a replica when one is free.

It knows neither budgets nor other models: the keeper tells it when to start and to stop replicas. Nor does it know
what is done in a slot.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from backends.climbing import bring_up, doze, rouse, watch
from backends.contract import Backend, DeadlineExceeded, Engine, Job, QueueFull, StartFailed, Task
from backends.costs import ModelCosts
from backends.demand import Demand
from backends.devices.placed import placed
from backends.failures import LEAST_RETRY_S, Failures
from backends.hints import Hints
from backends.line import Line
from backends.pool_limits import PoolLimits
from backends.replica import Replica
from backends.sleeping import PeakingBackend, SleepFailed
from backends.snapshot import PoolSnapshot, ReplicaState
from backends.warmth.ladder import Level
from backends.warmth.schedule import least_replicas

_log = logging.getLogger(__name__)

# A replica that served for this long was no failed start; its end begins a new count.
STABLE_S = 60.0

_NO_JOB = Job(Task.INFER)


class Slots:
    """The replicas of one model version, the slots that they have, and who waits for one.

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
        self._replicas: list[Replica] = []
        self._begun = 0
        self._failures = Failures(model)
        self._closing = False
        self.resting = False
        self._calm = asyncio.Event()
        self._empty = asyncio.Event()
        self.price()

    def price(self) -> None:
        """Weigh the levels of warmth by what was learned of their costs."""
        self.demand.keeping.price(self.costs.ladder)

    async def warm_up(self, deadline: float) -> None:
        """Return when a replica is up; ask for one as a job would. Raises what `stream` raises before an event."""
        self._release(await self._bind(_NO_JOB, self._clock(), deadline, again=False))

    @property
    def replicas(self) -> Sequence[Replica]:
        """The replicas that are here, whatever their state."""
        return self._replicas

    def start_replica(self, devices: tuple[int, ...] = ()) -> Replica:
        """Add a replica that is starting on these GPUs; a task must run `live` with it."""
        self._begun += 1
        replica = Replica(f"{self.model}-{self._begun}", self._clock(), devices)
        self._replicas.append(replica)
        self._note_calm()
        return replica

    def stop_replica(self, name: str) -> None:
        """Take a replica out of service: it ends when its last job has left. Unknown names are gone already."""
        for replica in self._replicas:
            if replica.name == name and replica.staying:
                replica.drain(self._clock())

    def demote_replica(self, name: str) -> None:
        """Put a replica to sleep; one that has got a job, or cannot sleep, stays as it is."""
        for replica in self._replicas:
            if replica.name == name:
                replica.doze(self._clock())

    def wake_replica(self, name: str) -> None:
        """Wake a replica that sleeps; a job that waits is bound to it once it is up."""
        for replica in self._replicas:
            if replica.name == name:
                replica.rouse(self._clock())

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
            backend = await bring_up(placed(self.engine, replica.devices), replica, self.limits.start_timeout_s)
            if backend is None:
                reason = None
                return
            self._up(replica, backend)
            reason = await self._carry(replica, backend)
        except StartFailed as error:
            reason = str(error)
        except asyncio.CancelledError:
            reason = None
            raise
        finally:
            if reason is not None:
                served = replica.state is not ReplicaState.STARTING
                # What a server printed once it had served may quote requests, which no log of ours may have.
                _log.warning("%s failed: %s", replica.name, reason.partition("\n")[0] if served else reason)
                self._lost(replica, reason)
            if replica.staying:
                replica.become(ReplicaState.DRAINING, self._clock())
            await self._gone(replica, backend)

    async def _carry(self, replica: Replica, backend: Backend) -> str | None:
        """Watch a replica and move it between its levels; return why it ended, None where it was told to."""
        while True:
            reason = await watch(backend, replica, lambda size: self._sample(replica, size))
            if reason is not None or replica.stopping.is_set():
                return reason
            replica.moved.clear()
            began, falls = self._clock(), replica.state is ReplicaState.DOZING
            try:
                reason = await (doze if falls else rouse)(backend, replica, self.limits.start_timeout_s)
            except SleepFailed as error:
                _log.warning("%s does not fall asleep and is stopped: %s", replica.name, error)
                self.costs.learn_sleepless()
                self.price()
                return None
            if reason is not None or replica.stopping.is_set():
                return reason
            if falls:
                replica.asleep(self._clock())
                self._wake_keeper()
            else:
                self.costs.learn_wake(self._clock() - began)
                self._ready(replica, backend)

    def snapshot(self, now: float) -> PoolSnapshot:
        """Return what the pool looks like at `now`."""
        replicas = tuple(r.snapshot(self._remaining_start_s(r, now), self.costs) for r in self._replicas)
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
        for replica in self._replicas:
            replica.drain(self._clock())
            replica.stopping.set()
        await self._empty.wait()

    def _seat(self, job: Job, deadline: float | None) -> Replica | None:
        """Return a replica with one slot taken for the caller; `None` where there is hope, but none is free now."""
        if (error := self._hopeless(deadline)) is not None:
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
            raise DeadlineExceeded(f"{self.model} had no free slot within {waited_s:.2f} s{words}") from None
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

    def _up(self, replica: Replica, backend: Backend) -> None:
        self.costs.learn_start(self._clock() - replica.started_at)
        if isinstance(backend, PeakingBackend):
            self.costs.learn_peak(backend.peak_bytes())
        self._ready(replica, backend)

    def _ready(self, replica: Replica, backend: Backend) -> None:
        """Give a replica that has reached the warmest level its first jobs."""
        replica.up(backend, self._clock())
        self.costs.learn_sleeps(can=replica.sleeping is not None)
        self.price()
        self._sample(replica, backend.memory_bytes())
        self._dispatch()
        self._wake_keeper()

    def _sample(self, replica: Replica, size: int) -> None:
        if size:
            if replica.level is Level.ASLEEP:
                learn = self.costs.learn_asleep_memory
            else:
                learn = self.costs.learn_memory if replica.memory_bytes else self.costs.learn_start_memory
            replica.memory_bytes = size
            learn(size)

    def _lost(self, replica: Replica, reason: str) -> None:
        """Note that a replica failed, once; one that was told to stop owes no reason."""
        now = self._clock()
        if replica.staying:
            stable = replica.state is not ReplicaState.STARTING and now - replica.ready_at >= STABLE_S
            served = replica.state is not ReplicaState.STARTING
            self._failures.note(reason, now, first=stable, served=served)
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
        if self._failures.count == 0 or any(r.staying for r in self._replicas):
            return None
        return self._failures.hopeless(self._clock(), deadline, self.costs.start_s())

    def _least(self) -> int:
        """Return how many replicas run at least now; those of a shift start so early that they are up by then."""
        limits = self.limits
        if not limits.schedule:
            return limits.min_replicas
        shifts = least_replicas(limits.schedule, self._wall_clock(), ahead_s=self.costs.start_s(0.9))
        return max(limits.min_replicas, min(shifts, limits.max_replicas))

    def _waiting(self) -> int:
        return len(self._line) + len(self._background)

    def _remaining_start_s(self, replica: Replica, now: float) -> float:
        if replica.state is not ReplicaState.STARTING:
            return 0.0
        return self.costs.remaining_start_s(now - replica.since, replica.level)

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
