"""Which replicas go down a level, by how far, and what that frees. Pure; one level down before out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from backends.actions import Demote, Stop
from backends.snapshot import LevelCost, PoolSnapshot, ReplicaSnapshot, ReplicaState
from backends.warmth.ladder import Level
from backends.warmth.residency import least_stay_s
from backends.worth import Policy, expected, keep_words


@dataclass(frozen=True, slots=True)
class Descent:
    """A way down for one replica that is idle: to sleep, or out.

    `frees_bytes` of the host and `frees_device_bytes` are free once it is there (less than 0: it takes more), and the
    next request waits `loss_s` longer.
    """

    pool: PoolSnapshot
    replica: ReplicaSnapshot
    to: Level
    frees_bytes: int
    frees_device_bytes: int
    loss_s: float

    @property
    def loss_per_s(self) -> float:
        """The waiting seconds that it is expected to cost per second."""
        return self.pool.worth_per_s * self.loss_s

    def action(self, why: str, missing_bytes: int) -> Demote | Stop:
        """Return what the keeper does, for so much that another lacks."""
        kind = Demote if self.to is Level.ASLEEP else Stop
        return kind(self.pool.model, self.replica.name, why, missing_bytes)


def descents(now: float, pool: PoolSnapshot, stopping: set[str], free_bytes: float = math.inf) -> list[list[Descent]]:
    """List for each replica that may be pushed down its ways down, the shortest first.

    Sleep may take more of the host than being up: no more than `free_bytes`.

    It may where it is idle with nobody queued, above the minimum, and was up for as long as coming back would take;
    what sleeps is above the minimum in any case. Who has slept for less than that waits for its turn too.
    """
    if pool.queued or not pool.replicas:
        return []
    staying = [r for r in pool.alive if r.name not in stopping]
    idle = [r for r in staying if r.state is ReplicaState.READY and r.in_flight == 0 and r.memory_bytes]
    idle.sort(key=lambda r: r.idle_since or 0.0)
    above = [ways for r in idle if (ways := _ways(now, pool, r, free_bytes))][
        : max(0, len(staying) - pool.min_replicas)
    ]
    asleep = [r for r in pool.replicas if r.state is ReplicaState.ASLEEP and r.name not in stopping]
    return [*([way] for r in asleep if (way := _out(now, pool, r, pool.start_s - pool.climb_s))), *above]


def _ways(now: float, pool: PoolSnapshot, replica: ReplicaSnapshot, free_bytes: float) -> list[Descent]:
    asleep, ways = pool.cost_at(Level.ASLEEP), []
    if asleep is not None and now - replica.since >= asleep.reach_s:
        to_sleep = _to_sleep(pool, replica, asleep)
        ways += [to_sleep] if -to_sleep.frees_bytes <= free_bytes else []
    if (out := _out(now, pool, replica, pool.start_s)) is not None:
        ways.append(out)
    return ways


def _to_sleep(pool: PoolSnapshot, replica: ReplicaSnapshot, asleep: LevelCost) -> Descent:
    frees = replica.memory_bytes - asleep.memory_bytes
    on_devices = replica.device_bytes - asleep.device_bytes
    return Descent(pool, replica, Level.ASLEEP, frees, on_devices, asleep.reach_s)


def _out(now: float, pool: PoolSnapshot, replica: ReplicaSnapshot, loss_s: float) -> Descent | None:
    if now - replica.since < loss_s:
        return None
    return Descent(pool, replica, Level.ABSENT, replica.memory_bytes, replica.device_bytes, max(0.0, loss_s))


def surplus(now: float, pool: PoolSnapshot, policy: Policy) -> list[Stop | Demote]:
    """Take down what is above the maximum, and idle replicas beyond what is expected to be asked for.

    The longest idle go first. Each goes to the level that its course has for such an idle time, but not past sleep
    where the course is to sleep.
    """
    if not pool.replicas:
        return []
    residents = [*pool.asleep, *sorted(pool.alive, key=lambda r: (r.in_flight, -r.since))]
    if (above := len(residents) - max(pool.max_replicas, pool.min_replicas)) > 0:
        why = f"{len(residents)} are up, of at most {pool.max_replicas}"
        return [Stop(pool.model, r.name, why) for r in residents[:above]]
    if pool.queued:
        return []
    return [*_spare(now, pool, policy), *_slept_out(now, pool, policy)]


def affordable(lowered: Sequence[Stop | Demote], pools: Sequence[PoolSnapshot], free_bytes: int) -> list[Stop | Demote]:
    """Send out who would sleep where there is no room on the host for what sleep takes there."""
    replicas = {r.name: (pool, r) for pool in pools for r in pool.replicas}
    actions: list[Stop | Demote] = []
    for action in lowered:
        pool, replica = replicas[action.replica]
        asleep = pool.cost_at(Level.ASLEEP) if isinstance(action, Demote) else None
        more = 0 if asleep is None else max(0, asleep.memory_bytes - replica.memory_bytes)
        if more > free_bytes:
            why = f"{action.why}; asleep it would take {more / 2**20:.0f} MiB more of the host than there is room for"
            actions.append(Stop(action.model, action.replica, why))
        else:
            free_bytes -= more
            actions.append(action)
    return actions


def _spare(now: float, pool: PoolSnapshot, policy: Policy) -> list[Stop | Demote]:
    up = len(pool.alive)
    spare = up - max(pool.min_replicas, expected(now, pool, policy)) if up else 0
    if spare <= 0:
        return []
    idle: list[tuple[float, ReplicaSnapshot, Level]] = []
    for replica in pool.ready:
        if replica.idle_since is not None:
            level = _level_for(now, pool, replica)
            if now - replica.idle_since >= _residency_s(pool, policy, level):
                idle.append((replica.idle_since, replica, level))
    idle.sort(key=lambda each: (each[0], each[1].name))
    actions: list[Stop | Demote] = []
    for idle_since, replica, level in idle[:spare]:
        kind = Demote if level is Level.ASLEEP else Stop
        why = f"idle for {now - idle_since:.0f} s, {keep_words(now, pool)}"
        actions.append(kind(pool.model, replica.name, why))
    return actions


def _slept_out(now: float, pool: PoolSnapshot, policy: Policy) -> Sequence[Stop]:
    """Stop what has slept for longer than that is worth, but for those that are about to be woken."""
    asleep = [r for r in pool.replicas if r.state is ReplicaState.ASLEEP]
    if not asleep:
        return []
    asleep.sort(key=lambda r: r.idle_since or 0.0)
    missing = max(pool.min_replicas, expected(now, pool, policy)) - len(pool.alive)
    least_s = least_stay_s(pool.start_s, floor_s=policy.idle_floor_s)
    return [
        Stop(pool.model, r.name, f"asleep for {now - r.since:.0f} s, {keep_words(now, pool)}")
        for r in asleep[: len(asleep) - max(0, missing)]
        if now - r.since >= least_s and _level_for(now, pool, r) is Level.ABSENT
    ]


def _level_for(now: float, pool: PoolSnapshot, replica: ReplicaSnapshot) -> Level:
    """Return where a replica goes that is not needed at the warmest level: asleep, or out.

    Its idle time counts, and not from a wake that nobody came after: then that of the model.
    """
    if Level.ASLEEP not in pool.rungs:
        return Level.ABSENT
    starts = [since for since in (replica.idle_since, pool.idle_since) if since is not None]
    idle_s = max(0.0, now - min(starts, default=now))
    return min(Level.ASLEEP, pool.rungs[pool.course.place_at(idle_s)])


def _residency_s(pool: PoolSnapshot, policy: Policy, level: Level) -> float:
    """Return how long a replica idles at least before it goes to a level."""
    below = pool.cost_at(level)
    climb_s = pool.start_s if below is None else below.reach_s
    return least_stay_s(climb_s, pool.keep_warm_s, policy.idle_floor_s)
