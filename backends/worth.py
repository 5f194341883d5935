"""What replicas are worth while nobody asks: how many are expected to be needed, how warm, and why. Pure."""

from dataclasses import dataclass

from backends.snapshot import PoolSnapshot
from backends.warmth.ladder import WAIT_VALUE
from backends.warmth.replicas import replicas_for
from backends.warmth.residency import IDLE_FLOOR_S


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator's time and memory are worth.

    `idle_floor_s`: an idle replica is kept at least so long, whatever its course says.
    `load_lasts_s`: expected load counts for so long after the last job; the longest memory of demand fades slowly.
    `wait_price`: what a second that a job waits is worth, in seconds of an idle replica; it says how many replicas a
    load is worth. An extra one is stopped only when a load `stop_margin` times as high would not be worth it.
    """

    idle_floor_s: float = IDLE_FLOOR_S
    load_lasts_s: float = 4 * 3600.0
    stop_margin: float = 2.0
    wait_price: float = WAIT_VALUE


DEFAULT_POLICY = Policy()


def for_forecast(now: float, pool: PoolSnapshot, policy: Policy) -> int:
    """Count the replicas that the expected demand is worth before anybody asked."""
    if pool.closing:
        return 0
    if pool.keep_warm_s is not None:
        return max(0, pool.hinted - len(pool.alive))
    by_load = worth_for(offered(now, pool, policy), pool, policy)
    return max(0, max(by_load, pool.hinted, int(pool.is_wanted(now))) - len(pool.alive))


def expected(now: float, pool: PoolSnapshot, policy: Policy) -> int:
    """Count the replicas that are worth keeping at the warmest level though nobody asks just now."""
    if pool.keep_warm_s is not None:
        return pool.hinted
    by_load = worth_for(offered(now, pool, policy) * policy.stop_margin, pool, policy)
    return max(pool.hinted, by_load, int(pool.is_wanted(now)))


def worth_for(load: float, pool: PoolSnapshot, policy: Policy) -> int:
    """Return how many replicas a load (in replicas) is worth; 0 where that is one at most, which the course decides."""
    slots = pool.slots_per_replica
    count = replicas_for(load * slots, slots, policy.wait_price, max(pool.max_replicas, pool.min_replicas))
    return count if count > 1 else 0


def offered(now: float, pool: PoolSnapshot, policy: Policy) -> float:
    """Return the expected load in replicas: arrivals times service time over slots."""
    if pool.last_arrival is None or now - pool.last_arrival >= policy.load_lasts_s:
        return 0.0
    return pool.rate_per_s * pool.service_s / pool.slots_per_replica


def value_per_byte(pool: PoolSnapshot) -> float:
    """Return the waiting seconds that a byte of one replica is expected to spare per second."""
    return pool.worth_per_s * pool.start_s / max(1, pool.replica_bytes)


def course_words(now: float, pool: PoolSnapshot) -> str:
    """Say what the course is, and until when."""
    if pool.idle_since is None:
        return "jobs are here"
    idle_s = now - pool.idle_since
    change_s = pool.course.next_change_s(idle_s)
    until = "" if change_s is None else f" until {change_s:.0f} s"
    return f"asked {idle_s:.0f} s ago, {pool.wanted_level(now).words}{until} by {pool.course_words}"


def keep_words(now: float, pool: PoolSnapshot) -> str:
    """Say why an idle replica is not kept any longer as it is."""
    if pool.keep_warm_s is not None:
        return f"kept for {pool.keep_warm_s:g} s"
    return f"{course_words(now, pool)}, {load_words(pool)}"


def idle_words(pool: PoolSnapshot) -> str:
    """Say how little an idle model is asked for."""
    return f"idle, {pool.rate_per_s * 3600:.2g} requests an hour"


def load_words(pool: PoolSnapshot) -> str:
    """Say what load is expected."""
    return f"load {pool.rate_per_s * pool.service_s / pool.slots_per_replica:.2g} replicas"
