"""The keeper's mind: which replicas to start and to stop, and why. Pure: pools as they are and `now` in, actions out.

It knows nothing of tasks, processes or clocks; simulator, tuner and tests run the same code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from backends.actions import Action, Demote, Refuse, Start, Stop, Wait, Wake
from backends.devices.placing import NoPlace
from backends.devices.room import DeviceRoom, device_bytes
from backends.devices.shortage import is_shortage
from backends.devices.view import Device, Held
from backends.lowering import Descent, affordable, descents, surplus
from backends.snapshot import PoolSnapshot, ReplicaSnapshot, ReplicaState
from backends.turns import LONGEST_WAIT_S, busy, is_over, turn_of, why_over
from backends.warmth.giving_way import Resident, first_to_go
from backends.warmth.ladder import Level
from backends.worth import DEFAULT_POLICY, Policy, course_words, for_forecast, idle_words, load_words, value_per_byte

__all__ = [
    "DEFAULT_POLICY", "Action", "Demote", "Policy", "Refuse", "Start", "Stop", "Wait", "Wake",
    "next_retry", "over_budget", "plan",
]  # fmt: skip

_LEAVING = (ReplicaState.DRAINING, ReplicaState.FAILED)


def plan(
    now: float,
    pools: Sequence[PoolSnapshot],
    budget_bytes: int | None,
    policy: Policy = DEFAULT_POLICY,
    *,
    leaving_bytes: int = 0,
    devices: Sequence[Device] = (),
    returning: Sequence[Held] = (),
) -> tuple[Action, ...]:
    """Return what to do now, what makes room before the starts that it makes room for.

    `budget_bytes` bounds the host memory of all replicas together, as learned or measured; `None`: no bound. Of it
    others, which are on their way out, still hold `leaving_bytes`; of the `devices` those hold some that are gone and
    whose memory is `returning`.
    """
    lowered = [action for pool in pools for action in surplus(now, pool, policy)]
    if budget_bytes is not None:
        held = sum(r.memory_bytes for pool in pools for r in pool.replicas) + leaving_bytes
        lowered = affordable(lowered, pools, max(0, budget_bytes - held))
    gpus = DeviceRoom(devices, pools, {action.replica for action in lowered}, returning)
    room = _Room(now, pools, budget_bytes, lowered, leaving_bytes, gpus=gpus)
    wants = sorted((w for pool in pools if (w := _want(now, pool, policy)) is not None), key=lambda w: w.order)
    starts = [action for want in wants for action in _fulfil(now, want, room)]
    return (*lowered, *starts)


def over_budget(now: float, pools: Sequence[PoolSnapshot], budget_bytes: int) -> tuple[Stop, ...]:
    """Return the idle replicas to stop so that the rest fits, those of least value per byte first: for a budget cut."""
    held = [r for pool in pools for r in pool.replicas if r.state not in _LEAVING]
    over = sum(r.memory_bytes for r in held) - budget_bytes
    stops = []
    out = [ways[-1] for pool in pools for ways in descents(now, pool, set()) if ways[-1].to is Level.ABSENT]
    for way in sorted(out, key=lambda way: (value_per_byte(way.pool), way.replica.idle_since or 0.0)):
        if over > 0:
            missing, over = over, over - way.frees_bytes
            why = f"{_mib(way.frees_bytes)} beyond the budget of {_mib(budget_bytes)}, {idle_words(way.pool)}"
            stops.append(Stop(way.pool.model, way.replica.name, why, missing))
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
    # What is on its way to sleep can be woken in a moment, and then takes the place of a start.
    alive, dozing = len(pool.alive), sum(r.state is ReplicaState.DOZING for r in pool.replicas)
    room = pool.max_replicas - alive - dozing
    if alive + dozing < pool.min_replicas:
        count = pool.min_replicas - alive - dozing
        why = f"{alive} of at least {pool.min_replicas} are up"
        return _Want(pool, count, True, (0,), "its upstream is asked from now on" if pool.is_upstream else why)
    if room > 0 and pool.queued and (count := _for_queue(pool) - dozing) > 0:
        why = f"{pool.queued} queued for up to {pool.oldest_wait_s:.1f} s, {alive} up, {_climb_words(pool)}"
        return _Want(pool, min(room, count), True, (1, -pool.oldest_wait_s), why)
    if room > 0 and not alive and pool.promised_since is not None:
        waited_s = now - pool.promised_since
        return _Want(pool, 1, True, (1, -waited_s), f"promised {waited_s:.1f} s ago to who comes again")
    if room > 0 and (count := for_forecast(now, pool, policy) - dozing) > 0:
        hint = f"{pool.hinted} hinted at, " if pool.hinted else ""
        why = f"{hint}{course_words(now, pool)}, {load_words(pool)}, {alive} up"
        return _Want(pool, min(room, count), False, (2, -value_per_byte(pool)), why)
    return None


def _for_queue(pool: PoolSnapshot) -> int:
    """Count the replicas that the queue is worth.

    One started now helps from `climb_s` on; it is worth it if work remains for it that takes as long as its climb
    (or one job, where that takes longer). What those that are up or coming will have done by then is not its work.
    """
    climb_s = pool.climb_s
    if not pool.alive:
        per_replica = pool.slots_per_replica * max(1.0, climb_s / pool.service_s)
        return math.ceil(pool.queued / per_replica)
    useful_s = max(climb_s, pool.service_s)
    horizon_s = climb_s + useful_s
    served = sum(
        pool.slots_per_replica * max(0.0, horizon_s - r.remaining_start_s) / pool.service_s - r.in_flight / 2
        for r in pool.alive
    )
    return max(0, math.ceil((pool.queued - served) * pool.service_s / (pool.slots_per_replica * useful_s)))


def _climb_words(pool: PoolSnapshot) -> str:
    return f"{'waking' if pool.climb_s < pool.start_s else 'start-up'} {pool.climb_s:.1f} s"


def _fulfil(now: float, want: _Want, room: "_Room") -> list[Action]:
    """Turn one want into wakings and starts, what makes room for them, or the reason why not; who sleeps comes first.

    Failed starts say nothing against waking.
    """
    pool = want.pool
    asleep = [r for r in pool.replicas if r.state is ReplicaState.ASLEEP and r.name not in room.lowered]
    asleep.sort(key=lambda r: r.idle_since or 0.0)
    actions: list[Action] = []
    for _ in range(want.count):
        sleeper = asleep.pop() if asleep else None
        if sleeper is None and now < pool.retry_at and pool.failures:
            if (relieved := room.relieve(want)) is not None:
                return [*actions, *relieved]
            why = f"{pool.failures} failed in a row: {pool.last_failure}"
            return [*actions, Wait(pool.model, f"next try in {pool.retry_at - now:.1f} s, {why}")]
        made = room.make(want, sleeper)
        actions += made
        if not isinstance(made[-1], Start | Wake):
            break
    return actions


class _Room:
    """The memory ledger of one plan: what is free, what is about to be, what may be pushed out."""

    def __init__(
        self,
        now: float,
        pools: Sequence[PoolSnapshot],
        budget_bytes: int | None,
        lowered: Sequence[Stop | Demote],
        leaving_bytes: int,
        *,
        gpus: DeviceRoom,
    ) -> None:
        self._gpus = gpus
        self.lowered = stopping = {action.replica for action in lowered}
        replicas = [r for pool in pools for r in pool.replicas]
        self._budget = budget_bytes
        self._free = (budget_bytes or 0) - sum(r.memory_bytes for r in replicas) - leaving_bytes
        out = {action.replica for action in lowered if isinstance(action, Stop)}
        self._freeing = sum(r.memory_bytes for r in replicas if r.name in out or r.state in _LEAVING)
        self._freeing += leaving_bytes + sum(_freed_by_sleep(pool, stopping - out) for pool in pools)
        free = math.inf if budget_bytes is None else max(0, self._free)
        self._idle = {ways[0].replica.name: ways for pool in pools for ways in descents(now, pool, stopping, free)}
        self._busy = [(pool, replica) for pool in pools for replica in busy(pool, stopping)]
        self._now = now
        self._lasting = {pool.model: _lasting_bytes(pool) for pool in pools}
        self._all_lasting = sum(self._lasting.values())
        self._begun: set[str] = set()
        self._given: list[Descent] = []
        """Who gives way by this plan."""

    def make(self, want: _Want, sleeper: ReplicaSnapshot | None) -> list[Action]:
        """Return a start (or the sleeper's waking) where it fits, else what frees memory for it.

        The reason why it waits then comes last.
        """
        pool, need = want.pool, want.pool.replica_bytes
        if sleeper is not None:
            need = max(0, need - sleeper.memory_bytes)
        elif self._budget is not None and not pool.alive and pool.model not in self._begun:
            if (never := self._never(pool, self._budget)) is not None:
                return [Refuse(pool.model, never)]
            # What it may grow to is a guess that may be wrong, and must not keep it down for ever.
            need = min(need, self._budget - self._lasting_beside(pool))
        placed = self._gpus.place(pool) if sleeper is None else self._gpus.place_awake(pool, sleeper)
        if isinstance(placed, NoPlace):
            return self._clear(want, sleeper, placed)
        if self._budget is None or need <= self._free:
            self._free -= need
            self._begun.add(pool.model)
            if placed is not None:
                self._gpus.take(pool, placed)
            if sleeper is not None:
                self._idle.pop(sleeper.name, None)
                return [Wake(pool.model, sleeper.name, want.why)]
            return [Start(pool.model, want.why, placed.devices if placed is not None else ())]
        missing = need - self._free - self._freeing
        victims = self._lower(self._victims(pool, missing) if want.urgent else [])
        lowered: list[Action] = [
            way.action(f"{_mib(way.frees_bytes)} for {pool.model}, {self._why(way, pool)}", missing) for way in victims
        ]
        held = f"needs {_mib(need)}, {_mib(self._budget - self._free)} of {_mib(self._budget)} are held"
        if need > self._free + self._freeing:
            return [Wait(pool.model, f"{held}, and nothing idle may be stopped for it")]
        self._freeing += self._free - need
        self._free = 0
        return [*lowered, Wait(pool.model, f"{held}, until what stops is gone")]

    def _clear(self, want: _Want, sleeper: ReplicaSnapshot | None, none: NoPlace) -> list[Action]:
        """Return who gives way on the devices and why it waits until then, or that there never is a place."""
        pool = want.pool
        if none.is_final:
            return [Wait(pool.model, none.why) if pool.alive or sleeper is not None else Refuse(pool.model, none.why)]
        order = self._order(pool) if want.urgent else []
        cleared = self._gpus.clear(pool, self._idle, order, sleeper)
        if isinstance(cleared, NoPlace) and want.urgent and (over := self._ending(pool)):
            cleared = self._gpus.clear(pool, self._idle | over, [*order, *over], sleeper)
        if isinstance(cleared, NoPlace):
            return [Wait(pool.model, f"{none.why}, and nothing idle may be stopped for it")]
        return [*self._for_devices(pool, cleared), Wait(pool.model, f"{none.why}, until what stops is gone")]

    def _for_devices(self, pool: PoolSnapshot, ways: Sequence[Descent]) -> list[Action]:
        """Send these down for a pool that lacks memory of devices."""
        return [
            way.action(f"GPU memory for {pool.model}, {self._why(way, pool)}", way.frees_device_bytes)
            for way in self._lower(ways)
        ]

    def _lower(self, ways: Sequence[Descent]) -> Sequence[Descent]:
        """Count these as sent down, and what they give back; nobody else gets to push them."""
        self._given += ways
        self.lowered |= {way.replica.name for way in ways}
        self._freeing += sum(way.frees_bytes for way in ways)
        self._idle = {name: left for name, left in self._idle.items() if name not in self.lowered}
        self._busy = [(pool, replica) for pool, replica in self._busy if replica.name not in self.lowered]
        return ways

    def _order(self, wanting: PoolSnapshot) -> list[str]:
        """Name the idle replicas of others in the order in which they give way."""
        left = {name: ways[0] for name, ways in self._idle.items() if ways[0].pool.model != wanting.model}
        order = []
        while left:
            order.append(first_to_go([_resident(name, way) for name, way in left.items()]).name)
            del left[order[-1]]
        return order

    def relieve(self, want: _Want) -> list[Action] | None:
        """Return what follows a first start that ran out of memory: one of less worth goes, then it is tried again.

        None where the failure was another, or it was done already: the usual pauses hold.
        """
        pool = want.pool
        if pool.failures != 1 or not want.urgent or not is_shortage(pool.last_failure):
            return None
        wait = Wait(pool.model, "its start ran out of memory, until what stops is gone", makes_room=True)
        if pool.made_room:
            return [wait] if self._freeing or self._gpus.is_freeing else self.make(want, None)
        ways = [self._idle[name] for name in self._order(pool)[:1]]
        if not ways:
            return None
        return [*self._for_devices(pool, [ways[0][0]]), wait]

    def _never(self, pool: PoolSnapshot, budget: int) -> str | None:
        """Return why a first replica can never start, or None."""
        need, lasting = pool.least_bytes, self._lasting_beside(pool)
        if need + lasting <= budget:
            return None
        why = f"one replica holds {_mib(need)}, the memory budget is {_mib(budget)}"
        return why if need > budget else f"{why}, of which replicas that always run hold {_mib(lasting)}"

    def _lasting_beside(self, pool: PoolSnapshot) -> int:
        return self._all_lasting - self._lasting[pool.model]

    def _victims(self, wanting: PoolSnapshot, missing: int) -> list[Descent]:
        """Pick who gives way until `missing` bytes are free; nobody where all cannot free them.

        Idle ones first, one level down before out, then the busy ones whose turn is over, the longest up first: these
        end what they hold.
        """
        left = {name: [way for way in ways if way.frees_bytes > 0] for name, ways in self._idle.items()}
        left = {name: ways for name, ways in left.items() if ways and ways[0].pool.model != wanting.model}
        chosen: dict[str, Descent] = {}
        while missing > 0 and left:
            name = first_to_go([_resident(name, ways[0]) for name, ways in left.items()]).name
            way, *further = left.pop(name)
            missing -= way.frees_bytes - (chosen[name].frees_bytes if name in chosen else 0)
            chosen[name] = way
            if further:
                left[name] = further
        over = self._over(wanting) if missing > 0 else []
        while missing > 0 and over:
            pool, replica = over.pop()
            given = [*self._given, *chosen.values()]
            if not replica.memory_bytes or self._up_without(pool, given) <= pool.min_replicas:
                continue
            chosen[replica.name] = whole = _end_of(pool, replica)
            missing -= whole.frees_bytes
        return [] if missing > 0 else list(chosen.values())

    def _up_without(self, pool: PoolSnapshot, given: Sequence[Descent]) -> int:
        """Count the replicas of a pool that stay up; idle ones and busy ones may have been taken of it already."""
        gone = {way.replica.name for way in given} | self.lowered
        return sum(r.name not in gone for r in pool.alive)

    def _over(self, wanting: PoolSnapshot) -> list[tuple[PoolSnapshot, ReplicaSnapshot]]:
        """List the busy replicas whose turn is over, where the model has none of its own; the longest up last."""
        waiting = turn_of(wanting, self._now)
        if wanting.alive or waiting.oldest_wait_s < LONGEST_WAIT_S:
            return []
        others = [item for item in self._busy if item[0].model != wanting.model]
        over = [(p, r) for p, r in others if is_over(turn_of(p, self._now, r), waiting)]
        return sorted(over, key=lambda item: -item[1].since)

    def _ending(self, wanting: PoolSnapshot) -> dict[str, list[Descent]]:
        """Return the ends of the busy replicas whose turn is over, one of each model above its minimum."""
        longest: dict[str, tuple[PoolSnapshot, ReplicaSnapshot]] = {p.model: (p, r) for p, r in self._over(wanting)}
        return {
            replica.name: [_end_of(pool, replica)]
            for pool, replica in reversed(longest.values())
            if self._up_without(pool, self._given) > pool.min_replicas
        }

    def _why(self, way: Descent, wanting: PoolSnapshot) -> str:
        return why_over(self._now, way.pool, way.replica, wanting) or idle_words(way.pool)


def _end_of(pool: PoolSnapshot, replica: ReplicaSnapshot) -> Descent:
    return Descent(pool, replica, Level.ABSENT, replica.memory_bytes, device_bytes(pool, replica), pool.start_s)


def _resident(name: str, way: Descent) -> Resident:
    return Resident(name, way.loss_per_s / max(1, way.frees_bytes), way.replica.since)


def _freed_by_sleep(pool: PoolSnapshot, falling: set[str]) -> int:
    """Return the bytes that come back once those are asleep that are on their way there, or will be by this plan."""
    if (asleep := pool.cost_at(Level.ASLEEP)) is None:
        return 0
    held = [r.memory_bytes for r in pool.replicas if r.name in falling or r.state is ReplicaState.DOZING]
    return sum(max(0, size - asleep.memory_bytes) for size in held)


def _lasting_bytes(pool: PoolSnapshot) -> int:
    """Return what the replicas of the minimum hold at least, as long as nobody dies; those that start may not grow."""
    held = (pool.least_bytes if r.state is ReplicaState.STARTING else r.memory_bytes for r in pool.alive)
    return sum(sorted(held)[: pool.min_replicas])


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
