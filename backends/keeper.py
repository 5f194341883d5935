"""The keeper: the one task that starts and stops replicas, as `planning.plan` says, and owns the tasks they live in.

It decides nothing itself and remembers what was decided.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from backends.planning import Action, Refuse, Start, Stop, Wait, next_retry, plan
from backends.pool import Pool

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
        self._pools: dict[str, Pool] = {}
        self._lives: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._waiting: dict[str, str] = {}
        self._next_retry = math.inf
        self._loop: asyncio.Task[None] | None = None
        self.decisions: deque[Decision] = deque(maxlen=DECISIONS_KEPT)

    def add(self, pool: Pool) -> None:
        """Take charge of a pool."""
        self._pools[pool.model] = pool
        self.wake()

    def wake(self) -> None:
        """Have it look soon: something happened."""
        self._woken.set()

    def start(self) -> None:
        """Begin to look; `close` ends it."""
        self._loop = asyncio.create_task(self._run(), name="keeper")

    def step(self, now: float) -> tuple[Action, ...]:
        """Plan once and act; return what was done."""
        pools = [pool.snapshot(now) for pool in self._pools.values()]
        actions = plan(now, pools, self._budget_bytes)
        self._next_retry = next_retry(now, pools)
        for action in actions:
            self._act(action)
        self._remember(now, actions)
        return actions

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
                task = asyncio.create_task(pool.live(pool.start_replica()), name=f"replica of {action.model}")
                self._lives.add(task)
                task.add_done_callback(self._ended)
            case Stop():
                pool.stop_replica(action.replica)
            case Refuse():
                pool.refuse_waiting(action.why)
            case Wait():
                pass

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
