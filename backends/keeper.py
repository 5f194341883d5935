"""The keeper: the one task that starts and stops replicas, as `planning.plan` says, and owns the tasks they live in.

It decides nothing itself and remembers what was decided.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from backends.contest import Contest
from backends.contract import StartFailed
from backends.device_costs import DeviceCosts
from backends.devices.books import DeviceBooks
from backends.devices.placing import Placement
from backends.devices.room import DeviceRoom, held_by
from backends.ledger import Departure, Ledgers
from backends.planning import Action, Demote, Refuse, Start, Stop, Wait, Wake, next_retry, over_budget, plan
from backends.pool import Pool
from backends.replica import Replica
from backends.snapshot import PoolSnapshot
from backends.warmth.keeping import Habits

log = logging.getLogger(__name__)

TICK_S = 1.0

# A timer of the loop may ring that much early; without a pause looks would follow each other until it is time.
LEAST_PAUSE_S = 0.001
DECISIONS_KEPT = 100


@dataclass(frozen=True, slots=True)
class Decision:
    """An action and when it was taken (of the keeper's clock)."""

    at: float
    action: Action


class Keeper:
    """Looks at all pools every second, when a back-off ends and when woken, and does what the plan says."""

    def __init__(self, budget_bytes: int | None, clock: Callable[[], float]) -> None:
        self._budget_bytes = budget_bytes
        self._clock = clock
        self.devices = DeviceBooks()
        self._device_costs = DeviceCosts()
        self.habits = Habits()
        """What idle times all models have in common."""
        self.ledgers = Ledgers()
        self.contest = Contest()
        self.transient_bytes: Callable[[], int] = int
        """Tells what of the host is held beside replicas, and free again soon."""
        self.on_wait: Callable[[], None] = lambda: None
        """Told where somebody waits for room or a retry: what is held beside replicas can go."""
        self._pools: dict[str, Pool] = {}
        self._beside: set[Pool] = set()
        self._quiet: dict[Pool, float | None] = {}
        """The pools that were quiet at the last look, and who came to them last."""
        self._stirs: list[asyncio.Future[None]] = []
        self._lives: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._waiting: dict[str, str] = {}
        self._next_retry = math.inf
        self._loop: asyncio.Task[None] | None = None
        self.decisions: deque[Decision] = deque(maxlen=DECISIONS_KEPT)

    def add(self, pool: Pool) -> None:
        """Take charge of a pool; one that had its name is `retire`d."""
        if (former := self._pools.get(pool.model)) is not None and former is not pool:
            self.retire(former)
        self._beside.discard(pool)
        self._pools[pool.model] = pool
        self._quiet.pop(pool, None)
        self.wake()

    def retire(self, pool: Pool) -> None:
        """Start nothing more for a pool that somebody else ends; until `forget`, what it holds counts."""
        if self._pools.get(pool.model) is pool:
            del self._pools[pool.model]
        self._beside.add(pool)

    def forget(self, pool: Pool) -> None:
        """Take a retired pool off the books: it holds nothing any more."""
        self._beside.discard(pool)
        self.wake()

    def set_budget(self, budget_bytes: int | None) -> None:
        """Change what all replicas may hold together."""
        self._budget_bytes = budget_bytes
        self.wake()

    def room_bytes(self) -> float:
        """Return the bytes of the host that nobody holds of what replicas may hold."""
        if self._budget_bytes is None:
            return math.inf
        return self._budget_bytes - self._held(self._clock()) - self.transient_bytes()

    async def bring_up(self, pool: Pool, count: int, deadline_s: float) -> None:
        """Start replicas of a pool that is not yet in charge, beside the one that it replaces, until one is ready.

        Where the budget has no room for both, it returns at once. Raises `StartFailed`.
        """
        room = self.room_bytes()
        count = min(count, int(min(room // max(1, pool.costs.least_bytes), count)))
        if count < 1:
            log.info("%s: no room to start the new replicas beside the old ones", pool.model)
            return
        self._beside.add(pool)
        for _ in range(count):
            if (devices := self._place(pool, self._clock())) is None:
                log.info("%s: no room on the GPUs to start the new replicas beside the old ones", pool.model)
                return
            self._begin(pool, devices)
        try:
            async with asyncio.timeout(deadline_s):
                while not (state := pool.snapshot(self._clock())).ready:
                    if state.failures:
                        raise StartFailed(f"{pool.model} cannot start: {state.last_failure}")
                    await self._stirred()
        except TimeoutError:
            raise StartFailed(f"{pool.model} was not ready after {deadline_s:g} s") from None

    def wake(self) -> None:
        """Have it look soon: something happened."""
        self._woken.set()
        stirred, self._stirs = self._stirs, []
        for waiter in stirred:
            if not waiter.done():
                waiter.set_result(None)

    async def _stirred(self) -> None:
        """Wait until something happens."""
        waiter = asyncio.get_running_loop().create_future()
        self._stirs.append(waiter)
        await waiter

    def start(self) -> None:
        """Begin to look; `close` ends it."""
        self._loop = asyncio.create_task(self._run(), name="keeper")

    def step(self, now: float) -> tuple[Action, ...]:
        """Plan once and act; return what was done."""
        heard = self._heard(now)
        self.habits.forecast = self.contest.play(now, self._pools, heard, self._budget_bytes)
        pools = [pool.snapshot(now) for pool in heard]
        leaving = _held_by(self._beside, now) + self.transient_bytes()
        actions = (*self._shrink(now, pools), *self._plan(now, pools, leaving))
        self.ledgers.look(now, pools, {pool.model: pool.demand.met for pool in heard})
        self._next_retry = next_retry(now, pools)
        if any(isinstance(action, Wait) for action in actions):
            self.on_wait()
        for action in actions:
            self._act(action)
        for pool in self._beside:
            state = pool.snapshot(now)
            if state.queued and not state.alive:
                pool.refuse_waiting("it was replaced or removed before it was up")
        self._remember(now, actions)
        return actions

    def _heard(self, now: float) -> list[Pool]:
        """Return the pools to look at: those that are not quiet, or were not at the last look.

        Most of many models are absent and not expected: what is left out would change no decision.
        """
        before, self._quiet = self._quiet, {}
        heard = []
        for pool in self._pools.values():
            last = pool.demand.last_arrival
            was_quiet = pool in before and before[pool] == last
            if pool.is_quiet(now, was_quiet=was_quiet):
                self._quiet[pool] = last
            if not was_quiet or pool not in self._quiet:
                heard.append(pool)
        return heard

    def _shrink(self, now: float, pools: list[PoolSnapshot]) -> tuple[Action, ...]:
        """Return what to stop so that the rest fits: after the budget was cut, or where a replica grew."""
        if self._budget_bytes is None or _bytes_of(pools) <= self._budget_bytes:
            return ()
        return over_budget(now, pools, self._budget_bytes)

    async def close(self) -> None:
        """Stop looking and end every replica at once; drain the pools first where their jobs matter."""
        tasks = [*self._lives, *([self._loop] if self._loop else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            read_at = self._clock()
            await self.devices.refresh()
            self._device_costs.look(self._pools.values(), self.devices.seen, self.devices.held, read_at)
            try:
                self.step(self._clock())
            except Exception:
                # Without a keeper no model would ever start again: a bug costs this look, and is told.
                log.exception("the keeper's look failed")
            try:
                async with asyncio.timeout(self._pause_s()):
                    await self._woken.wait()
            except TimeoutError:
                continue

    def _pause_s(self) -> float:
        return max(LEAST_PAUSE_S, min(TICK_S, self._next_retry - self._clock()))

    def _act(self, action: Action) -> None:
        pool = self._pools[action.model]
        match action:
            case Start():
                self._begin(pool, action.devices)
            case Stop():
                self.ledgers.of(action.model).left(Departure(action.missing_bytes))
                pool.fleet.stop(action.replica)
            case Demote():
                self.ledgers.of(action.model).left(Departure(action.missing_bytes))
                pool.fleet.demote(action.replica)
            case Wake():
                pool.fleet.wake(action.replica)
            case Refuse():
                pool.refuse_waiting(action.why)
            case Wait():
                if action.makes_room:
                    pool.room_was_made()

    def _plan(self, now: float, pools: list[PoolSnapshot], leaving_bytes: int) -> tuple[Action, ...]:
        beside = held_by([pool.snapshot(now) for pool in self._beside])
        returning, seen = [*self.devices.returning, *beside], self.devices.seen
        return plan(now, pools, self._budget_bytes, leaving_bytes=leaving_bytes, devices=seen, returning=returning)

    def _begin(self, pool: Pool, devices: tuple[int, ...] = ()) -> None:
        replica = pool.fleet.start(devices)
        self._device_costs.began(replica, self.devices.seen)
        task = asyncio.create_task(self._live(pool, replica), name=f"replica of {pool.model}")
        self._lives.add(task)
        task.add_done_callback(self._ended)

    async def _live(self, pool: Pool, replica: Replica) -> None:
        """Carry a replica to its end, and count its devices' memory until that has come back."""
        await pool.fleet.live(replica)
        self._device_costs.ended(replica)
        if replica.devices:
            each = pool.costs.device_bytes // len(replica.devices)
            await self.devices.until_returned(replica.name, replica.devices, each)
            self.wake()

    def _place(self, pool: Pool, now: float) -> tuple[int, ...] | None:
        """Return the devices for one more replica of a pool beside all others; None where there is no room."""
        everybody = [each.snapshot(now) for each in {*self._pools.values(), *self._beside}]
        placed = DeviceRoom(self.devices.seen, everybody, set(), self.devices.returning).place(pool.snapshot(now))
        if placed is None:
            return ()
        return placed.devices if isinstance(placed, Placement) else None

    def _held(self, now: float) -> int:
        return _held_by({*self._pools.values(), *self._beside}, now)

    def _remember(self, now: float, actions: tuple[Action, ...]) -> None:
        """Keep what was decided; a wait counts once, however many looks it lasts."""
        waiting = {action.model: "" for action in actions if isinstance(action, Wait | Refuse)}
        for action in actions:
            if action.model in self._waiting and isinstance(action, Wait | Refuse):
                continue
            self.decisions.append(Decision(now, action))
            log.info("%s %s: %s", type(action).__name__.lower(), action.model, action.why)
        self._waiting = waiting

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._lives.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s ended by an internal error", task.get_name(), exc_info=error)


def _held_by(pools: Iterable[Pool], now: float) -> int:
    """Return the bytes that the replicas of these pools hold."""
    return _bytes_of([pool.snapshot(now) for pool in pools])


def _bytes_of(pools: Iterable[PoolSnapshot]) -> int:
    return sum(replica.memory_bytes for pool in pools for replica in pool.replicas)
