"""Where one replica stands: its state, its level, its jobs. Knows nothing of queues or of why it should live."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from backends.contract import AnsweringBackend, Backend, Job, Made
from backends.costs import ModelCosts
from backends.sending import SendingBackend
from backends.sleeping import SleepingBackend, StartNote
from backends.snapshot import ReplicaSnapshot, ReplicaState
from backends.warmth.ladder import Level

_LEAVING = (ReplicaState.DRAINING, ReplicaState.FAILED)


class Replica:
    """One replica's state; its pool reads and changes it between awaits, `run` of the pool carries it along.

    `since` is when the state was entered, `ready_at` when it first took jobs, `idle_since` when its last job left.
    `answer` is the backend's, where it has one; `sending` is the backend where it can be sent a job without waiting,
    `sleeping` where it can sleep. `level` is the last that it reached; `moved` is set to have its task take it to the
    next one. `device_bytes` is what it was measured to hold of `devices`, the GPUs that it was given.
    """

    def __init__(self, name: str, now: float, devices: tuple[int, ...] = ()) -> None:
        self.name = name
        self.state = ReplicaState.STARTING
        self.since = now
        self.started_at = now
        self.ready_at = now
        self.idle_since: float | None = None
        self.in_flight = 0
        self.memory_bytes = 0
        self.device_bytes = 0
        self.devices = devices
        self.level = Level.ABSENT
        self.note = StartNote()
        self.backend: Backend | None = None
        self.answer: Callable[[Job], Awaitable[Sequence[Made]]] | None = None
        self.sending: SendingBackend | None = None
        self.sleeping: SleepingBackend | None = None
        self.stopping = asyncio.Event()
        self.moved = asyncio.Event()

    @property
    def alive(self) -> bool:
        """Whether it takes jobs, or will."""
        return self.state in (ReplicaState.STARTING, ReplicaState.READY)

    @property
    def staying(self) -> bool:
        """Whether it is on its way up or there, asleep or on its way there: anything but out."""
        return self.state not in _LEAVING

    def become(self, state: ReplicaState, now: float) -> None:
        """Enter a state."""
        self.state = state
        self.since = now

    def up(self, backend: Backend, now: float) -> None:
        """Note that `backend` answers."""
        self.backend = backend
        self.answer = backend.answer if isinstance(backend, AnsweringBackend) else None
        self.sending = backend if isinstance(backend, SendingBackend) else None
        self.sleeping = backend if isinstance(backend, SleepingBackend) and backend.can_sleep else None
        self.ready_at = self.idle_since = now
        self.level = Level.WARM
        self.become(ReplicaState.READY, now)

    def doze(self, now: float) -> None:
        """Take no more jobs and go to sleep; one that holds a job, or cannot sleep, stays as it is."""
        if self.state is ReplicaState.READY and self.in_flight == 0 and self.sleeping is not None:
            self.become(ReplicaState.DOZING, now)
            self.moved.set()

    def asleep(self, now: float) -> None:
        """Note that it sleeps; what it held while it was up says nothing any more."""
        self.level = Level.ASLEEP
        self.memory_bytes = self.device_bytes = 0
        self.become(ReplicaState.ASLEEP, now)

    def rouse(self, now: float) -> None:
        """Wake up; one that does not sleep stays as it is."""
        if self.state is ReplicaState.ASLEEP:
            self.become(ReplicaState.STARTING, now)
            self.moved.set()

    def drain(self, now: float) -> None:
        """Take no more jobs, and stop when the last one has left."""
        self.become(ReplicaState.DRAINING, now)
        if self.in_flight == 0:
            self.stopping.set()

    def release(self, now: float) -> None:
        """Give one slot back."""
        self.in_flight -= 1
        if self.in_flight == 0:
            self.idle_since = now
            if self.state is ReplicaState.DRAINING:
                self.stopping.set()

    def remaining_start_s(self, now: float, costs: ModelCosts) -> float:
        """Return for how long a start will still go on, as far as others tell; 0 where it does not start."""
        if self.state is not ReplicaState.STARTING:
            return 0.0
        return costs.remaining_start_s(now - self.since, self.level)

    def snapshot(self, now: float, costs: ModelCosts) -> ReplicaSnapshot:
        """Return what it looks like now; before it was measured, or on its way, it holds what was learned of others."""
        falls = self.state in (ReplicaState.DOZING, ReplicaState.ASLEEP)
        climbs = self.state is ReplicaState.STARTING and self.level is Level.ABSENT
        warm_bytes = costs.climb_bytes if climbs else costs.memory_bytes
        learned_bytes, learned_device_bytes = costs.asleep_bytes if falls else warm_bytes, costs.device_bytes
        moving = self.state in (ReplicaState.STARTING, ReplicaState.DOZING)
        return ReplicaSnapshot(
            name=self.name,
            state=self.state,
            in_flight=self.in_flight,
            since=self.since,
            idle_since=self.idle_since if self.in_flight == 0 else None,
            remaining_start_s=self.remaining_start_s(now, costs),
            memory_bytes=max(self.memory_bytes, learned_bytes) if moving else self.memory_bytes or learned_bytes,
            level=self.level,
            device_bytes=max(self.device_bytes, learned_device_bytes)
            if moving
            else self._on_devices(learned_device_bytes),
            devices=self.devices,
        )

    def _on_devices(self, learned_bytes: int) -> int:
        return self.device_bytes or (0 if self.state is ReplicaState.ASLEEP else learned_bytes)
