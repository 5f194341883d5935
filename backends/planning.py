"""The keeper's mind: which replicas to start and to stop, and why. Pure: pools as they are and `now` in, actions out.

It knows nothing of tasks, processes or clocks; simulator, tuner and tests run the same code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from backends.snapshot import PoolSnapshot, ReplicaSnapshot, ReplicaState
from backends.turns import busy, is_over, turn_of, why_over
from backends.warmth.giving_way import Resident, first_to_go


@dataclass(frozen=True, slots=True)
class Start:
    """Start one more replica of `model`."""

    model: str
    why: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Let `replica` of `model` finish what it holds, then end it."""

    model: str
    replica: str
    why: str


@dataclass(frozen=True, slots=True)
class Demote:
    """Put `replica` of `model`, which is ready and has no job, to sleep: one level down, not out."""

    model: str
    replica: str
    why: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Bring `replica` of `model`, which sleeps, back to the warmest level."""

    model: str
    replica: str
    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """A replica of `model` is wanted, and cannot start yet."""

    model: str
    why: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """A replica of `model` is wanted and can never start: whoever waits for it is told so."""

    model: str
    why: str


Action = Start | Stop | Demote | Wake | Wait | Refuse


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator's time and memory are worth.

    `idle_floor_s`: an idle replica is kept at least so long, whatever its course says.
    `load_lasts_s`: expected load counts for so long after the last job; the longest memory of demand fades slowly.
    `utilisation`: the share of slots that expected load may take before one more replica is worth having;
    an extra one is stopped only when load would take less than `utilisation / stop_margin` without it.
    """

    idle_floor_s: float = 60.0
    load_lasts_s: float = 4 * 3600.0
    stop_margin: float = 2.0
    utilisation: float = 0.7


DEFAULT_POLICY = Policy()

_LEAVING = (ReplicaState.DRAINING, ReplicaState.FAILED)


def plan(
    now: float,
    pools: Sequence[PoolSnapshot],
    budget_bytes: int | None,
    policy: Policy = DEFAULT_POLICY,
    leaving_bytes: int = 0,
) -> tuple[Action, ...]:
    """Return what to do now, stops before the starts that they make room for.

    `budget_bytes` bounds the host memory of all replicas together, as learned or measured; `None`: no bound. Of it
    others, which are on their way out, still hold `leaving_bytes`.
    """
    stops = [stop for pool in pools for stop in _surplus(now, pool, policy)]
    room = _Room(now, pools, budget_bytes, stops, leaving_bytes)
    wants = sorted((w for pool in pools if (w := _want(now, pool, policy)) is not None), key=lambda w: w.order)
    starts = [action for want in wants for action in _fulfil(now, want, room)]
    return (*stops, *starts)


def over_budget(now: float, pools: Sequence[PoolSnapshot], budget_bytes: int) -> tuple[Stop, ...]:
    """Return the idle replicas to stop so that the rest fits, those of least value per byte first: for a budget cut."""
    held = [r for pool in pools for r in pool.replicas if r.state not in _LEAVING]
    over = sum(r.memory_bytes for r in held) - budget_bytes
    stops = []
    for owner, idle in _by_value([(pool, replica) for pool in pools for replica in _evictable(now, pool, set())]):
        if over > 0:
            over -= idle.memory_bytes
            why = f"{_mib(idle.memory_bytes)} beyond the budget of {_mib(budget_bytes)}, {_idle_words(owner)}"
            stops.append(Stop(owner.model, idle.name, why))
    return tuple(stops)


def next_retry(now: float, pools: Sequence[PoolSnapshot]) -> float:
    """Return when the first back-off that is not over ends, which is when `plan` may say something new; else inf."""
    return min((pool.retry_at for pool in pools if pool.failures and pool.retry_at > now), default=math.inf)


@dataclass(frozen=True, slots=True)
class _Want:
    """`count` more replicas; `urgent` ones may push idle ones out. Lower `order` first."""

    pool: PoolSnapshot
    count: int
    urgent: bool
    order: tuple[float, ...]
    why: str


def _want(now: float, pool: PoolSnapshot, policy: Policy) -> _Want | None:
    if pool.closing and not pool.queued:
        return None
    alive = len(pool.alive)
    room = pool.max_replicas - alive
    if alive < pool.min_replicas:
        return _Want(pool, pool.min_replicas - alive, True, (0,), f"{alive} of at least {pool.min_replicas} are up")
    if room > 0 and pool.queued and (count := _for_queue(pool)):
        why = f"{pool.queued} queued for up to {pool.oldest_wait_s:.1f} s, {alive} up, start-up {pool.start_s:.1f} s"
        return _Want(pool, min(room, count), True, (1, -pool.oldest_wait_s), why)
    if room > 0 and not alive and pool.promised_since is not None:
        waited_s = now - pool.promised_since
        return _Want(pool, 1, True, (1, -waited_s), f"promised {waited_s:.1f} s ago to who comes again")
    if room > 0 and (count := _for_forecast(now, pool, policy)):
        hint = f"{pool.hinted} hinted at, " if pool.hinted else ""
        why = f"{hint}{_course_words(now, pool)}, {_load_words(pool)}, {alive} up"
        return _Want(pool, min(room, count), False, (2, -value_per_byte(pool)), why)
    return None


def _for_queue(pool: PoolSnapshot) -> int:
    """Count the replicas that the queue is worth.

    One started now helps from `start_s` on; it is worth it if work remains for it that takes as long as its start
    (or one job, where that takes longer). What those that are up or coming will have done by then is not its work.
    """
    if not pool.alive:
        per_replica = pool.slots_per_replica * max(1.0, pool.start_s / pool.service_s)
        return math.ceil(pool.queued / per_replica)
    useful_s = max(pool.start_s, pool.service_s)
    horizon_s = pool.start_s + useful_s
    served = sum(
        pool.slots_per_replica * max(0.0, horizon_s - r.remaining_start_s) / pool.service_s - r.in_flight / 2
        for r in pool.alive
    )
    return max(0, math.ceil((pool.queued - served) * pool.service_s / (pool.slots_per_replica * useful_s)))


def _for_forecast(now: float, pool: PoolSnapshot, policy: Policy) -> int:
    """Count the replicas that the expected demand is worth before anybody asked."""
    if pool.closing:
        return 0
    if pool.keep_warm_s is not None:
        return max(0, pool.hinted - len(pool.alive))
    offered = _offered(now, pool, policy)
    by_load = math.ceil(offered / policy.utilisation) if offered > policy.utilisation else 0
    return max(0, max(by_load, pool.hinted, int(pool.is_wanted(now))) - len(pool.alive))


def _surplus(now: float, pool: PoolSnapshot, policy: Policy) -> list[Stop]:
    """Stop what is above the maximum, and idle replicas beyond what is expected to be asked for, longest idle first."""
    if (above := len(pool.alive) - max(pool.max_replicas, pool.min_replicas)) > 0:
        least_busy = sorted(pool.alive, key=lambda r: (r.in_flight, -r.since))
        why = f"{len(pool.alive)} are up, of at most {pool.max_replicas}"
        return [Stop(pool.model, r.name, why) for r in least_busy[:above]]
    if pool.queued:
        return []
    spare = len(pool.alive) - max(pool.min_replicas, _expected(now, pool, policy))
    keep_s = _residency_s(pool, policy) if pool.keep_warm_s is None else pool.keep_warm_s
    idle = sorted(
        (now - r.idle_since, r.name) for r in pool.ready if r.idle_since is not None and now - r.idle_since >= keep_s
    )
    return [
        Stop(pool.model, name, f"idle for {idle_s:.0f} s, {_keep_words(now, pool)}")
        for idle_s, name in idle[::-1][: max(0, spare)]
    ]


def _expected(now: float, pool: PoolSnapshot, policy: Policy) -> int:
    """Count the replicas that are worth keeping though nobody asks just now."""
    if pool.keep_warm_s is not None:
        return pool.hinted
    by_load = math.ceil(_offered(now, pool, policy) * policy.stop_margin / policy.utilisation)
    return max(pool.hinted, by_load if by_load > 1 else int(pool.is_wanted(now)))


def _residency_s(pool: PoolSnapshot, policy: Policy) -> float:
    """Return how long a replica may idle at least: its start-up time, else it never paid for its start."""
    return max(policy.idle_floor_s, pool.start_s)


def _offered(now: float, pool: PoolSnapshot, policy: Policy) -> float:
    """Return the expected load in replicas: arrivals times service time over slots."""
    if pool.last_arrival is None or now - pool.last_arrival >= policy.load_lasts_s:
        return 0.0
    return pool.rate_per_s * pool.service_s / pool.slots_per_replica


def value_per_byte(pool: PoolSnapshot) -> float:
    """Return the waiting seconds that a byte of one replica is expected to spare per second."""
    return pool.rate_per_s * pool.start_s / max(1, pool.replica_bytes)


def _course_words(now: float, pool: PoolSnapshot) -> str:
    if pool.idle_since is None:
        return "jobs are here"
    idle_s = now - pool.idle_since
    change_s = pool.course.next_change_s(idle_s)
    until = "" if change_s is None else f" until {change_s:.0f} s"
    return f"asked {idle_s:.0f} s ago, {'up' if pool.is_wanted(now) else 'down'}{until} by {pool.course_words}"


def _keep_words(now: float, pool: PoolSnapshot) -> str:
    if pool.keep_warm_s is not None:
        return f"kept for {pool.keep_warm_s:g} s"
    return f"{_course_words(now, pool)}, {_load_words(pool)}"


def _idle_words(pool: PoolSnapshot) -> str:
    return f"idle, {pool.rate_per_s * 3600:.2g} requests an hour"


def _load_words(pool: PoolSnapshot) -> str:
    return f"load {pool.rate_per_s * pool.service_s / pool.slots_per_replica:.2g} replicas"


def _fulfil(now: float, want: _Want, room: "_Room") -> list[Action]:
    """Turn one want into starts, evictions that make room for them, or the reason why not."""
    pool = want.pool
    if now < pool.retry_at and pool.failures:
        left_s = pool.retry_at - now
        return [Wait(pool.model, f"next try in {left_s:.1f} s, {pool.failures} failed in a row: {pool.last_failure}")]
    actions: list[Action] = []
    for _ in range(want.count):
        made = room.make(want)
        actions += made
        if not isinstance(made[-1], Start):
            break
    return actions


class _Room:
    """The memory ledger of one plan: what is free, what is about to be, what may be pushed out."""

    def __init__(
        self,
        now: float,
        pools: Sequence[PoolSnapshot],
        budget_bytes: int | None,
        stops: list[Stop],
        leaving_bytes: int,
    ) -> None:
        stopping = {stop.replica for stop in stops}
        replicas = [r for pool in pools for r in pool.replicas]
        self._budget = budget_bytes
        self._free = (budget_bytes or 0) - sum(r.memory_bytes for r in replicas) - leaving_bytes
        self._freeing = sum(r.memory_bytes for r in replicas if r.name in stopping or r.state in _LEAVING)
        self._freeing += leaving_bytes
        self._idle = [(pool, replica) for pool in pools for replica in _evictable(now, pool, stopping)]
        self._busy = [(pool, replica) for pool in pools for replica in busy(pool, stopping)]
        self._now = now
        self._lasting = {pool.model: _lasting_bytes(pool) for pool in pools}
        self._begun: set[str] = set()

    def make(self, want: _Want) -> list[Action]:
        """Return a start where it fits, else what frees memory for it and the reason why it waits, which comes last."""
        pool, need = want.pool, want.pool.replica_bytes
        if self._budget is not None and not pool.alive and pool.model not in self._begun:
            if (never := self._never(pool, self._budget)) is not None:
                return [Refuse(pool.model, never)]
            # What it may grow to is a guess that may be wrong, and must not keep it down for ever.
            need = min(need, self._budget - self._lasting_beside(pool))
        if self._budget is None or need <= self._free:
            self._free -= need
            self._begun.add(pool.model)
            return [Start(pool.model, want.why)]
        victims = self._victims(pool, need - self._free - self._freeing) if want.urgent else []
        self._freeing += sum(r.memory_bytes for _, r in victims)
        stops: list[Action] = [
            Stop(p.model, r.name, f"{_mib(r.memory_bytes)} for {pool.model}, {self._why(p, r, pool)}")
            for p, r in victims
        ]
        held = f"needs {_mib(need)}, {_mib(self._budget - self._free)} of {_mib(self._budget)} are held"
        if need > self._free + self._freeing:
            return [Wait(pool.model, f"{held}, and nothing idle may be stopped for it")]
        self._freeing += self._free - need
        self._free = 0
        return [*stops, Wait(pool.model, f"{held}, until what stops is gone")]

    def _never(self, pool: PoolSnapshot, budget: int) -> str | None:
        """Return why a first replica can never start, or None."""
        need, lasting = pool.least_bytes, self._lasting_beside(pool)
        if need + lasting <= budget:
            return None
        why = f"one replica holds {_mib(need)}, the memory budget is {_mib(budget)}"
        return why if need > budget else f"{why}, of which replicas that always run hold {_mib(lasting)}"

    def _lasting_beside(self, pool: PoolSnapshot) -> int:
        return sum(size for model, size in self._lasting.items() if model != pool.model)

    def _victims(self, wanting: PoolSnapshot, missing: int) -> list[tuple[PoolSnapshot, ReplicaSnapshot]]:
        """Pick the replicas that give way first until they free `missing` bytes; none where all cannot.

        Idle ones first, then the busy ones whose turn is over, the longest up first: these end what they hold.
        """
        left = {item[1].name: item for item in self._idle if item[0].model != wanting.model}
        chosen: list[tuple[PoolSnapshot, ReplicaSnapshot]] = []
        while missing > 0 and left:
            residents = [Resident(name, value_per_byte(p), r.since) for name, (p, r) in left.items()]
            chosen.append(left.pop(first_to_go(residents).name))
            missing -= chosen[-1][1].memory_bytes
        over = self._over(wanting)
        while missing > 0 and over:
            chosen.append(over.pop())
            missing -= chosen[-1][1].memory_bytes
        if missing > 0:
            return []
        self._idle = [item for item in self._idle if item not in chosen]
        self._busy = [item for item in self._busy if item not in chosen]
        return chosen

    def _over(self, wanting: PoolSnapshot) -> list[tuple[PoolSnapshot, ReplicaSnapshot]]:
        """List the busy replicas whose turn is over, where the model has none of its own; the longest up last."""
        if wanting.alive:
            return []
        waiting = turn_of(wanting, self._now)
        others = [item for item in self._busy if item[0].model != wanting.model]
        over = [(p, r) for p, r in others if is_over(turn_of(p, self._now, r), waiting)]
        return sorted(over, key=lambda item: -item[1].since)

    def _why(self, pool: PoolSnapshot, replica: ReplicaSnapshot, wanting: PoolSnapshot) -> str:
        return why_over(self._now, pool, replica, wanting) or _idle_words(pool)


def _by_value(idle: list[tuple[PoolSnapshot, ReplicaSnapshot]]) -> list[tuple[PoolSnapshot, ReplicaSnapshot]]:
    """Order what may be pushed out, the least loss first."""
    return sorted(idle, key=lambda item: (value_per_byte(item[0]), item[1].idle_since or 0.0))


def _evictable(now: float, pool: PoolSnapshot, stopping: set[str]) -> list[ReplicaSnapshot]:
    """List what may be pushed out: idle, nobody queued, above the minimum, up for as long as a start takes."""
    if pool.queued:
        return []
    staying = [r for r in pool.alive if r.name not in stopping]
    idle = [
        r
        for r in staying
        if r.state is ReplicaState.READY and r.in_flight == 0 and r.memory_bytes and now - r.since >= pool.start_s
    ]
    idle.sort(key=lambda r: r.idle_since or 0.0)
    return idle[: max(0, len(staying) - pool.min_replicas)]


def _lasting_bytes(pool: PoolSnapshot) -> int:
    """Return what the replicas of the minimum hold at least, as long as nobody dies; those that start may not grow."""
    held = (pool.least_bytes if r.state is ReplicaState.STARTING else r.memory_bytes for r in pool.alive)
    return sum(sorted(held)[: pool.min_replicas])


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
