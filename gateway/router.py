"""Which candidate of a route is expected to answer first. Pure: snapshots in, a plan with its reasons out."""

from collections.abc import Sequence
from dataclasses import dataclass

from backends.snapshot import PoolSnapshot, ReplicaState


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may answer: its pool as it stands, and how long it would work on this request (seconds)."""

    pool: PoolSnapshot
    service_s: float
    is_fallback: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate's place in the plan: expected seconds to wait and to work, and why."""

    model: str
    wait_s: float
    service_s: float
    in_time: bool
    why: str

    @property
    def total_s(self) -> float:
        """Expected seconds until the answer is complete."""
        return self.wait_s + self.service_s


def plan(candidates: Sequence[Candidate], now: float, deadline_s: float) -> tuple[Choice, ...]:
    """Order the candidates: the soonest answer first, fallbacks after, those that would be late last of all.

    `now` and `deadline_s` are of the pools' clock. A late candidate stays in the plan: when nothing is in time, the
    least late is the best that there is.
    """
    ranked = [(not choice.in_time, candidate.is_fallback, place, choice)
              for place, candidate in enumerate(candidates)
              for choice in [_choose(candidate, now, deadline_s)]]  # fmt: skip
    # Fallbacks keep the operator's order among themselves; candidates are ranked by time.
    ranked.sort(key=lambda row: (row[0], row[1], row[2] if row[1] else 0, row[3].total_s))
    return tuple(row[3] for row in ranked)


def _choose(candidate: Candidate, now: float, deadline_s: float) -> Choice:
    wait_s, why = expected_wait(candidate.pool, now)
    in_time = now + wait_s + candidate.service_s <= deadline_s
    return Choice(candidate.pool.model, wait_s, candidate.service_s, in_time, why)


def expected_wait(pool: PoolSnapshot, now: float) -> tuple[float, str]:
    """Return the expected seconds until a job that arrives now is dispatched, and the reason in words."""
    ready = len(pool.ready)
    free = ready * pool.slots_per_replica - pool.in_flight - pool.queued
    if free > 0:
        return 0.0, f"{free} free slots on {ready} ready replicas"
    waits = []
    if ready:
        behind = 1 - free
        drain_s = behind * pool.service_s / (ready * pool.slots_per_replica)
        waits.append((drain_s, f"{behind} jobs before it on {ready} busy replicas"))
    starting = [r.remaining_start_s for r in pool.replicas if r.state is ReplicaState.STARTING]
    if starting or not ready:
        waits.append(_start_wait(pool, starting, now))
    return min(waits)


def _start_wait(pool: PoolSnapshot, starting: Sequence[float], now: float) -> tuple[float, str]:
    queue_s = pool.queued // pool.slots_per_replica * pool.service_s
    if starting:
        return min(starting) + queue_s, f"a replica is up in {min(starting):.2f} s, {pool.queued} jobs wait for it"
    pause_s = max(0.0, pool.retry_at - now)
    why = f"a cold start takes {pool.start_s:.2f} s, {pool.queued} jobs wait"
    if pause_s:
        why += f"; after {pool.failures} failed starts it pauses for {pause_s:.2f} s"
    return pause_s + pool.start_s + queue_s, why
