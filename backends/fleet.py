"""The replicas of one model: each is started, carried from level to level and ended, and what that costs is learned.

Knows no job, and nobody who waits for one.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from backends.climbing import bring_up, doze, rouse, watch
from backends.contract import Backend, Engine, StartFailed
from backends.costs import ModelCosts
from backends.devices.placed import placed
from backends.failures import Failures
from backends.pool_limits import PoolLimits
from backends.replica import Replica
from backends.sleeping import PeakingBackend, SleepFailed
from backends.snapshot import ReplicaState
from backends.warmth.ladder import Level

_log = logging.getLogger(__name__)

# A replica that served for this long was no failed start; its end begins a new count.
STABLE_S = 60.0
# One waking may fail by chance, such as for want of memory. Where so many do in a row, sleep only makes requests wait.
MOST_FAILED_WAKINGS = 2


class House(Protocol):
    """Whose replicas they are, and who is told what becomes of them."""

    model: str
    engine: Engine
    limits: PoolLimits
    costs: ModelCosts

    def price(self) -> None:
        """Weigh the levels of warmth anew: something was learned of their costs."""
        ...

    def changed(self) -> None:
        """Take note that a replica is ready, asleep or gone."""
        ...

    def one_lost(self) -> None:
        """Take note that a replica has failed."""
        ...


class Fleet:
    """The `replicas` that are here, whatever their state. The keeper owns the tasks that run `live`."""

    def __init__(self, house: House, failures: Failures, clock: Callable[[], float]) -> None:
        self.replicas: list[Replica] = []
        self._house = house
        self._failures = failures
        self._clock = clock
        self._begun = 0
        self._failed_wakings = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def start(self, devices: tuple[int, ...] = ()) -> Replica:
        """Add a replica that is starting on these GPUs; a task must run `live` with it."""
        self._begun += 1
        replica = Replica(f"{self._house.model}-{self._begun}", self._clock(), devices)
        self.replicas.append(replica)
        self._empty.clear()
        return replica

    def stop(self, name: str) -> None:
        """Take a replica out of service: it ends when its last job has left. Unknown names are gone already."""
        for replica in self.replicas:
            if replica.name == name and replica.staying:
                replica.drain(self._clock())

    def demote(self, name: str) -> None:
        """Put a replica to sleep; one that has got a job, or cannot sleep, stays as it is."""
        for replica in self.replicas:
            if replica.name == name:
                replica.doze(self._clock())

    def wake(self, name: str) -> None:
        """Wake a replica that sleeps; a job that waits is bound to it once it is up."""
        for replica in self.replicas:
            if replica.name == name:
                replica.rouse(self._clock())

    async def end(self) -> None:
        """End every replica, whatever it does."""
        for replica in self.replicas:
            replica.drain(self._clock())
            replica.stopping.set()
        await self._empty.wait()

    def hopeless(self, deadline: float | None) -> StartFailed | None:
        """Return the error for a job that would wait in vain; `None` where a replica is up, or will be in time."""
        if self._failures.count == 0 or any(r.staying for r in self.replicas):
            return None
        return self._failures.hopeless(self._clock(), deadline, self._house.costs.start_s())

    def lost(self, replica: Replica, reason: str) -> None:
        """Note that a replica failed, once; one that was told to stop owes no reason."""
        if not replica.staying:
            return
        now, served = self._clock(), replica.state is not ReplicaState.STARTING
        stable = served and now - replica.ready_at >= STABLE_S
        self._failures.note(reason, now, first=stable, served=served)
        replica.become(ReplicaState.FAILED, now)
        replica.stopping.set()
        self._house.one_lost()

    async def live(self, replica: Replica) -> None:
        """Carry a replica from its start to its end; cancelling ends it."""
        backend: Backend | None = None
        reason: str | None = "ended by an internal error"
        try:
            engine = placed(self._house.engine, replica.devices)
            backend = await bring_up(engine, replica, self._house.limits.start_timeout_s)
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
                self.lost(replica, reason)
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
            falls = replica.state is ReplicaState.DOZING
            try:
                reason = await (self._lull if falls else self._wake)(backend, replica)
            except SleepFailed as error:
                _log.warning("%s does not fall asleep and is stopped: %s", replica.name, error)
                self._sleep_no_more()
                return None
            if reason is not None or replica.stopping.is_set():
                return reason
            if falls:
                replica.asleep(self._clock())
                self._house.changed()
            else:
                self._ready(replica, backend)

    async def _lull(self, backend: Backend, replica: Replica) -> str | None:
        """Put a replica to sleep; return as `watch` does. Raises `SleepFailed`."""
        return await doze(backend, replica, self._house.limits.start_timeout_s)

    async def _wake(self, backend: Backend, replica: Replica) -> str | None:
        """Wake a replica, and learn from that; return as `watch` does. Raises `StartFailed`."""
        began = self._clock()
        try:
            reason = await rouse(backend, replica, self._house.limits.start_timeout_s)
        except StartFailed:
            self._not_woken(replica)
            raise
        if reason is not None:
            self._not_woken(replica)
        elif not replica.stopping.is_set():
            self._failed_wakings = 0
            self._house.costs.learn_wake(self._clock() - began)
        return reason

    def _not_woken(self, replica: Replica) -> None:
        """Count a waking that failed; where that goes on, nobody is put to sleep any more."""
        self._failed_wakings += 1
        if self._failed_wakings >= MOST_FAILED_WAKINGS and self._house.costs.sleeps:
            _log.warning("%s does not wake up, nor did the one before it: no other is put to sleep", replica.name)
            self._sleep_no_more()

    def _sleep_no_more(self) -> None:
        self._house.costs.learn_sleepless()
        self._house.price()

    def _up(self, replica: Replica, backend: Backend) -> None:
        self._house.costs.learn_start(self._clock() - replica.started_at)
        if isinstance(backend, PeakingBackend):
            self._house.costs.learn_peak(backend.peak_bytes())
        self._ready(replica, backend)

    def _ready(self, replica: Replica, backend: Backend) -> None:
        """Let a replica that has reached the warmest level be given its first jobs."""
        replica.up(backend, self._clock())
        self._house.costs.learn_sleeps(can=replica.sleeping is not None)
        self._house.price()
        self._sample(replica, backend.memory_bytes())
        self._house.changed()

    def _sample(self, replica: Replica, size: int) -> None:
        if size:
            costs = self._house.costs
            if replica.level is Level.ASLEEP:
                learn = costs.learn_asleep_memory
            else:
                learn = costs.learn_memory if replica.memory_bytes else costs.learn_start_memory
            replica.memory_bytes = size
            learn(size)

    async def _gone(self, replica: Replica, backend: Backend | None) -> None:
        try:
            if backend is not None:
                await backend.close()
        finally:
            self.replicas.remove(replica)
            if not self.replicas:
                self._empty.set()
            self._house.changed()
