"""What pools look like at one moment: the frozen values that the keeper and the router decide on.

Holds no behaviour beyond counting.
"""

import zlib
from dataclasses import dataclass
from enum import StrEnum

from backends.value import value
from backends.warmth.course import ALWAYS_COLD, Course
from backends.warmth.ladder import Level

BACKOFF_FIRST_S = 0.5
BACKOFF_CAP_S = 60.0


class ReplicaState(StrEnum):
    """Where a replica stands; one that is gone is in no snapshot.

    `STARTING` is any climb to the warmest level: from nothing, or from sleep (its `level` tells). `DOZING` is the way
    down to sleep, `ASLEEP` its end: it holds no job and takes none until it was woken. What leaves is `DRAINING`.
    """

    STARTING = "starting"
    READY = "ready"
    DOZING = "dozing"
    ASLEEP = "asleep"
    DRAINING = "draining"
    FAILED = "failed"


@value
class ReplicaSnapshot:
    """One replica. Times are of the pool's clock; `remaining_start_s` is 0 unless it is starting.

    `level` is the level of warmth that it has reached, or climbs or goes down from. It holds `memory_bytes` of the host
    and `device_bytes` of devices now; while it climbs or goes down, the larger of what both ends hold.
    """

    name: str
    state: ReplicaState
    in_flight: int
    since: float
    idle_since: float | None
    remaining_start_s: float
    memory_bytes: int
    level: Level = Level.WARM
    device_bytes: int = 0
    devices: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LevelCost:
    """What a replica holds on one level, and how long it takes from there to the warmest, as learned or seeded.

    `reach_s` is the median, `reach_p90_s` what nine of ten climbs do not exceed.
    """

    level: Level
    reach_s: float
    reach_p90_s: float
    memory_bytes: int
    device_bytes: int = 0


@value
class PoolSnapshot:
    """One pool: its limits, its replicas, its queue, and what is known of its demand and its costs.

    `replica_bytes` is what one replica is expected to need, on its way up or in time, `least_bytes` what it cannot come
    up without.
    `keep_warm_s` is how long an idle replica stays; `None`: as `course` says for the time since `idle_since`, which is
    when the last job ended (None while one is here, and before the first); `course_words` tells how it came about.
    `rungs` are the levels that the places of `course` stand for, the warmest first. `costs` has an entry for each level
    that a replica of this model can stand on, the coldest first: where `ASLEEP` is among them, idle ones can sleep.
    `forecasts` has the rate by each forecast that may say who gives way, and `forecast` which of them does; where there
    is none, `rate_per_s` does. `hinted` is how many replicas somebody said to be needed soon; `promised_since`: since
    when somebody is expected back who was sent away until one is up. `retry_at` is when the next start may be tried
    after `failures` failures in a row; `closing` says that it takes no new jobs. `gpus` is how many GPUs each replica
    needs; `None`: one, where there is any. `made_room`: others were sent away since a start ran out of memory.
    `is_upstream`: the replica stands for a server that is not started here.
    """

    model: str
    min_replicas: int
    max_replicas: int
    slots_per_replica: int
    replicas: tuple[ReplicaSnapshot, ...]
    queued: int
    queue_limit: int
    oldest_wait_s: float
    rate_per_s: float
    last_arrival: float | None
    start_s: float
    service_s: float
    replica_bytes: int
    least_bytes: int = 0
    keep_warm_s: float | None = None
    course: Course = ALWAYS_COLD
    course_words: str = ""
    idle_since: float | None = None
    failures: int = 0
    retry_at: float = 0.0
    last_failure: str = ""
    closing: bool = False
    rungs: tuple[Level, ...] = (Level.WARM, Level.ABSENT)
    costs: tuple[LevelCost, ...] = ()
    forecasts: tuple[float, ...] = ()
    forecast: int = 0
    hinted: int = 0
    gpus: int | None = 0
    made_room: bool = False
    promised_since: float | None = None
    is_upstream: bool = False

    @property
    def worth_per_s(self) -> float:
        """The rate of requests that says who gives way."""
        return self.forecasts[self.forecast] if self.forecasts else self.rate_per_s

    @property
    def alive(self) -> tuple[ReplicaSnapshot, ...]:
        """The replicas that take jobs now or will when they are up."""
        return tuple(r for r in self.replicas if r.state in (ReplicaState.STARTING, ReplicaState.READY))

    @property
    def ready(self) -> tuple[ReplicaSnapshot, ...]:
        """The replicas that take jobs now."""
        return tuple(r for r in self.replicas if r.state is ReplicaState.READY)

    @property
    def asleep(self) -> tuple[ReplicaSnapshot, ...]:
        """The replicas that sleep, or are about to."""
        return tuple(r for r in self.replicas if r.state in (ReplicaState.DOZING, ReplicaState.ASLEEP))

    def cost_at(self, level: Level) -> LevelCost | None:
        """Return what a level costs; None where no replica of this model can stand on it."""
        return next((cost for cost in self.costs if cost.level is level), None)

    @property
    def climb_s(self) -> float:
        """How long the next replica takes to come up: from sleep, where one sleeps."""
        asleep = self.cost_at(Level.ASLEEP) if self.asleep else None
        return self.start_s if asleep is None else asleep.reach_s

    def is_wanted(self, now: float) -> bool:
        """Tell whether it has a job, or the next one is likely enough to come soon for a replica to wait for it."""
        return self.wanted_level(now) is Level.WARM

    def wanted_level(self, now: float) -> Level:
        """Return how warm one replica is worth keeping though nobody asks just now."""
        if self.hinted:
            return Level.WARM
        if self.idle_since is None:
            return Level.WARM if self.queued > 0 or self.in_flight > 0 else Level.ABSENT
        return self.rungs[self.course.place_at(max(0.0, now - self.idle_since))]

    @property
    def in_flight(self) -> int:
        """Jobs that replicas hold."""
        return sum(r.in_flight for r in self.replicas)


def backoff_s(model: str, failures: int) -> float:
    """Return how long to wait before the next start after `failures` failures in a row (0 for none).

    Doubles from half a second to a minute. Up to a quarter is added that depends on the model and the count alone, so
    that models which fell together do not rise together and a replay gives the same times.
    """
    if failures == 0:
        return 0.0
    spread = zlib.crc32(f"{model} {failures}".encode()) / 2**32
    return min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 16)) * (1.0 + 0.25 * spread)
