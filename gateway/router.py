"""Which candidate of a route is expected to answer first. Pure: snapshots in, a plan with its reasons out."""

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from backends.snapshot import PoolSnapshot, ReplicaState
from backends.turns import LONGEST_WAIT_S, turn_of
from backends.warmth.ladder import Level

# By how many standard deviations the ninth tenth of a normal distribution lies above its middle.
_Z90 = 1.2816


@dataclass(frozen=True, slots=True)
class Spread:
    """A time (seconds) that is not known for sure: half of the cases take no longer than `p50_s`, nine in ten `p90_s`.

    Sums and the lesser of two are taken quantile by quantile, as if what is slow were slow together: never too hopeful.
    """

    p50_s: float
    p90_s: float

    def after(self, other: "Spread") -> "Spread":
        """Return the time of both, one after the other."""
        return Spread(self.p50_s + other.p50_s, self.p90_s + other.p90_s)

    def or_sooner(self, other: "Spread") -> "Spread":
        """Return the time until the first of both."""
        return Spread(min(self.p50_s, other.p50_s), min(self.p90_s, other.p90_s))

    @property
    def weighed_s(self) -> float:
        """What candidates are ranked by: halfway between a usual case and a bad one."""
        return (self.p50_s + self.p90_s) / 2


NOTHING = Spread(0.0, 0.0)


class Way(StrEnum):
    """How a job would come to a slot."""

    FREE = "free"
    QUEUE = "queue"
    STARTING = "starting"
    WAKE = "wake"
    START = "start"
    ROOM = "room"


# The keeper has looked at a queue by then: what has not begun to start has no room.
_SOON_S = 2.0

_UP = (Way.FREE, Way.QUEUE)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may answer: its pool as it stands, and how long it would work on this request (seconds).

    `first` is the time from dispatch to what the client waits for: the first token of a stream, else the whole answer.
    `patience_s` is how long a wait may be expected to take for the candidate to be worth it, and `start_patience_s` how
    long one for a replica that is not up; None is without bound.
    """

    pool: PoolSnapshot
    service_s: float
    is_fallback: bool = False
    first: Spread | None = None
    patience_s: float | None = None
    start_patience_s: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate's place in the plan: how it would come to a slot, the wait for it and the time to the first token.

    `in_time`: nine times in ten the answer is complete by the deadline. `soon`: the wait is within who asks' patience.
    """

    model: str
    way: Way
    wait: Spread
    first: Spread
    service_s: float
    in_time: bool
    soon: bool
    why: str

    @property
    def wait_s(self) -> float:
        """The seconds that a job is expected to wait for a slot."""
        return self.wait.p50_s

    @property
    def total_s(self) -> float:
        """Expected seconds until the answer is complete."""
        return self.wait.p50_s + self.service_s


@dataclass(frozen=True, slots=True)
class Coming:
    """The model of several that is expected to have a slot first: which, how, and after what time."""

    model: str
    way: Way
    wait: Spread


def soonest(pools: Iterable[PoolSnapshot], now: float) -> Coming:
    """Return which of some pools is expected to have a slot first."""
    comings = [Coming(pool.model, *expected_wait(pool, now)[:2]) for pool in pools]
    return min(comings, key=lambda coming: coming.wait.weighed_s)


def plan(candidates: Sequence[Candidate], now: float, deadline_s: float) -> tuple[Choice, ...]:
    """Order the candidates: the soonest first token first, fallbacks after, those that would be late last of all.

    `now` and `deadline_s` are of the pools' clock. A late candidate stays in the plan: when nothing is in time, the
    least late is the best that there is.
    """
    ranked = [(not (choice.in_time and choice.soon), candidate.is_fallback, place, choice)
              for place, candidate in enumerate(candidates)
              for choice in [_choose(candidate, now, deadline_s)]]  # fmt: skip
    # Fallbacks keep the operator's order among themselves; candidates are ranked by time.
    ranked.sort(key=lambda row: (row[0], row[1], row[2] if row[1] else 0, row[3].first.weighed_s))
    return tuple(row[3] for row in ranked)


def _choose(candidate: Candidate, now: float, deadline_s: float) -> Choice:
    way, wait, why = expected_wait(candidate.pool, now)
    service_s = candidate.service_s
    first = wait.after(candidate.first or Spread(service_s, service_s))
    in_time = now + wait.p90_s + service_s <= deadline_s
    patience = [candidate.patience_s, None if way in _UP else candidate.start_patience_s]
    soon = all(longest_s is None or wait.p50_s <= longest_s for longest_s in patience)
    return Choice(candidate.pool.model, way, wait, first, service_s, in_time, soon, why)


def expected_wait(pool: PoolSnapshot, now: float) -> tuple[Way, Spread, str]:
    """Return how a job that arrives now would come to a slot, after which time, and why."""
    ready = len(pool.ready)
    free = ready * pool.slots_per_replica - pool.in_flight - pool.queued
    if free > 0:
        return Way.FREE, NOTHING, f"{free} free slots on {ready} ready replicas"
    ways = []
    if ready:
        behind = 1 - free
        why = f"{behind} jobs before it on {ready} busy replicas"
        ways.append((Way.QUEUE, _drain(behind, pool.service_s, ready * pool.slots_per_replica), why))
    starting = any(r.state is ReplicaState.STARTING for r in pool.replicas)
    if starting or not ready:
        ways.append(_climb(pool, now, starting=starting))
    return min(ways, key=lambda way: way[1].weighed_s)


def _drain(jobs: int, service_s: float, slots: int) -> Spread:
    """Return the time until so many jobs have left, each slot letting one go every `service_s` by chance.

    The sum of `jobs` exponential times (Erlang's distribution), by its mean and standard deviation.
    """
    mean_s = jobs * service_s / slots
    return Spread(mean_s, mean_s * (1 + _Z90 / math.sqrt(jobs)))


def _climb(pool: PoolSnapshot, now: float, *, starting: bool) -> tuple[Way, Spread, str]:
    """Return the time until a replica is up that is not yet, and the jobs that wait for it have their slots."""
    ahead_s = pool.queued // pool.slots_per_replica * pool.service_s
    ahead = Spread(ahead_s, ahead_s)
    if starting:
        up = _next_up(pool, now)
        return Way.STARTING, up.after(ahead), f"a replica is up in {up.p50_s:.2f} s, {pool.queued} jobs wait for it"
    if pool.asleep:
        wake = _reach(pool, Level.ASLEEP)
        why = f"to wake a replica takes {_words(wake)}, {pool.queued} jobs wait"
        return Way.WAKE, wake.after(ahead), why
    start = _reach(pool, Level.ABSENT)
    waited_s = turn_of(pool, now).oldest_wait_s
    if waited_s > _SOON_S and not pool.failures:
        room = _until_its_turn(waited_s)
        why = f"{pool.queued} jobs wait for memory, for {room.p90_s:.0f} s more at most; then {_words(start)} to start"
        return Way.ROOM, room.after(start).after(ahead), why
    why = f"a cold start takes {_words(start)}, {pool.queued} jobs wait"
    if pool.failures and (pause_s := max(0.0, pool.retry_at - now)):
        start = start.after(Spread(pause_s, pause_s))
        why += f"; after {pool.failures} failed starts it pauses for {pause_s:.2f} s"
    return Way.START, start.after(ahead), why


def _until_its_turn(waited_s: float) -> Spread:
    """Return the time until busy models give way to one that was not started though it was waited for so long."""
    longest_s = max(0.0, LONGEST_WAIT_S - waited_s)
    return Spread(longest_s / 2, longest_s)


def _next_up(pool: PoolSnapshot, now: float) -> Spread:
    """Return the time until the first of those that climb is up; one that is late has what its pool expects of it."""
    return functools.reduce(
        Spread.or_sooner,
        (
            Spread(r.remaining_start_s, max(r.remaining_start_s, _reach(pool, r.level).p90_s - (now - r.since)))
            for r in pool.replicas
            if r.state is ReplicaState.STARTING
        ),
    )


def _reach(pool: PoolSnapshot, level: Level) -> Spread:
    """Return the time from a level to the warmest."""
    cost = pool.cost_at(level)
    return Spread(pool.start_s, pool.start_s) if cost is None else Spread(cost.reach_s, cost.reach_p90_s)


def _words(climb: Spread) -> str:
    return f"{climb.p50_s:.2f} s, nine times in ten at most {climb.p90_s:.2f} s"
