"""What keeping replicas idle has cost, and what it has spared, by model and level; why each cold start was cold.

It looks at pools when the keeper does, and decides nothing. Knows no clock.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from backends.snapshot import PoolSnapshot, ReplicaSnapshot, ReplicaState
from backends.warmth.ladder import Level

COLD_STARTS_KEPT = 20


class Remedy(StrEnum):
    """What would have spared a request the start that it waited for."""

    MEMORY = "memory"  # its replica had given way to another model
    TIME = "time"  # its replica had gone because nobody asked for so long
    NEVER = "never"  # nothing: nobody had asked before, or the replica had failed


@dataclass(frozen=True, slots=True)
class Departure:
    """Why the last replica went, or fell asleep: `missing_bytes` were wanted by another model; 0: it was idle."""

    missing_bytes: int


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A request that found its model below the warmest level, at `at` (the keeper's clock), and what it waits for.

    `idle_s` is how long the model had been idle, None where it was asked for the first time.
    """

    at: float
    level: Level
    start_s: float
    remedy: Remedy
    missing_bytes: int
    idle_s: float | None

    def words(self) -> str:
        """Say what would have kept it warm."""
        if self.remedy is Remedy.MEMORY:
            return f"warm with {self.missing_bytes / 2**30:.2g} GiB more"
        if self.remedy is Remedy.TIME and self.idle_s is not None:
            return f"warm with a time to live of {_time(self.idle_s)}"
        return "never"


@dataclass(slots=True)
class Ledger:
    """One model's accounts since the start of the gateway, by level."""

    idle_s: dict[Level, float] = field(default_factory=dict)
    idle_byte_s: dict[Level, float] = field(default_factory=dict)
    spared_s: dict[Level, float] = field(default_factory=dict)
    cold: dict[Remedy, int] = field(default_factory=lambda: dict.fromkeys(Remedy, 0))
    last_cold: deque[ColdStart] = field(default_factory=lambda: deque(maxlen=COLD_STARTS_KEPT))
    _looked_at: float | None = None
    _idle: tuple[ReplicaSnapshot, ...] = ()
    _standing: Level = Level.ABSENT
    _met: int = 0
    _left: Departure | None = None

    def look(self, now: float, pool: PoolSnapshot, met: int, idle_s: float | None) -> None:
        """Take account of what was since the last look.

        `met` counts the requests that came while nobody else was there; the last of them came after `idle_s`.
        """
        if not pool.replicas and not self._idle and met == self._met:
            self._standing = Level.ABSENT  # as it is with most of many models
            return
        if self._idle and self._looked_at is not None:
            self._pay(now - self._looked_at)
        if met != self._met:
            self._met = met
            self._meet(now, pool, idle_s)
        self._looked_at = now
        self._idle = _idle(pool)
        self._standing = max([r.level for r in pool.replicas if r.state in _STANDING], default=Level.ABSENT)
        if self._standing is Level.WARM:
            self._left = None

    def left(self, departure: Departure) -> None:
        """Note why a replica is told to go, or to fall asleep."""
        self._left = departure

    def _pay(self, passed_s: float) -> None:
        for replica in self._idle:
            level = replica.level
            self.idle_s[level] = self.idle_s.get(level, 0.0) + passed_s
            held = (replica.memory_bytes + replica.device_bytes) * passed_s
            self.idle_byte_s[level] = self.idle_byte_s.get(level, 0.0) + held

    def _meet(self, now: float, pool: PoolSnapshot, idle_s: float | None) -> None:
        """Count what a request was spared that came while the model was idle, and what it was not."""
        level = self._standing
        reach = pool.cost_at(level)
        left_s = 0.0 if level is Level.WARM else pool.start_s if reach is None else reach.reach_s
        if level is not Level.ABSENT:
            self.spared_s[level] = self.spared_s.get(level, 0.0) + max(0.0, pool.start_s - left_s)
        if level is Level.WARM:
            return
        left = self._left
        if left is None or idle_s is None:
            remedy = Remedy.NEVER
        else:
            remedy = Remedy.MEMORY if left.missing_bytes else Remedy.TIME
        self.cold[remedy] += 1
        missing = 0 if left is None else left.missing_bytes
        self.last_cold.append(ColdStart(now, level, left_s, remedy, missing, idle_s))


class Ledgers:
    """The accounts of all models."""

    def __init__(self) -> None:
        self._by_model: dict[str, Ledger] = {}

    def of(self, model: str) -> Ledger:
        """Return one model's accounts."""
        ledger = self._by_model.get(model)
        if ledger is None:
            ledger = self._by_model[model] = Ledger()
        return ledger

    def look(self, now: float, pools: Iterable[PoolSnapshot], met: Mapping[str, tuple[int, float | None]]) -> None:
        """Take account of what was since the last look, of the requests that `met` tells of as well."""
        for pool in pools:
            self.of(pool.model).look(now, pool, *met[pool.model])


# Those that a request need not wait for as for one that is absent; one that starts is on its way because of a request.
_STANDING = (ReplicaState.READY, ReplicaState.DOZING, ReplicaState.ASLEEP)


def _idle(pool: PoolSnapshot) -> tuple[ReplicaSnapshot, ...]:
    return tuple([r for r in pool.replicas if r.state in _STANDING and not r.in_flight])


def _time(seconds: float) -> str:
    for unit, size_s in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.3g} {unit}"
    return f"{seconds:.3g} s"
