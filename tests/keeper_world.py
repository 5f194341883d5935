"""A keeper among models that are played: whatever comes at random, what it does is checked at each look.

A step lets one thing happen: requests come and leave, replicas die, starts fail or hang, the budget and the limits
change, time passes. Half of the models never fail: whoever asks for one of them must be served.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from backends.contract import BackendError, Event, Finish, Job, QueueFull, StartFailed, Task, WorkerDied
from backends.costs import CostSeed, ModelCosts
from backends.demand import Demand
from backends.keeper import Keeper
from backends.planning import Action, Demote, Start, Stop, Wake
from backends.pool import Pool, PoolLimits
from backends.snapshot import PoolSnapshot, ReplicaState
from backends.warmth.keeping import Keeping
from tests.fakes import VirtualLoop

MIB = 2**20
PATIENCE_S = 1800.0
"""How long a client waits: far longer than a turn of every model."""


@dataclass(eq=False)
class Played:
    """A model as it really is: what it costs, and what goes wrong with it next."""

    name: str
    healthy: bool
    start_s: float
    service_s: float
    memory_bytes: int
    asleep_bytes: int
    version: str = "played"
    concurrency: int = 1
    fails: int = 0
    hangs: int = 0
    up: "list[PlayedReplica]" = field(default_factory=list)

    async def start(self) -> "PlayedReplica":
        """Come up, or do not."""
        if self.hangs:
            self.hangs -= 1
            await asyncio.sleep(1e6)
        await asyncio.sleep(self.start_s)
        if self.fails:
            self.fails -= 1
            raise StartFailed("it was told to fail")
        return PlayedReplica(self)


class PlayedReplica:
    """A replica that answers after a while, and can sleep where the model holds less asleep."""

    def __init__(self, model: Played) -> None:
        self.model = model
        self.asleep = False
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        model.up.append(self)

    @property
    def can_sleep(self) -> bool:
        """Whether it holds less asleep."""
        return self.model.asleep_bytes > 0

    async def sleep(self) -> None:
        """Fall asleep."""
        await asyncio.sleep(0.1 * self.model.start_s)
        self.asleep = True

    async def wake(self) -> None:
        """Wake up."""
        await asyncio.sleep(0.1 * self.model.start_s)
        self.asleep = False

    async def stream(self, job: Job) -> AsyncGenerator[Event, None]:
        """Answer after the service time, unless it dies."""
        assert not self.asleep, "a job came to who sleeps"
        await asyncio.wait({self._end}, timeout=self.model.service_s)
        if self._end.done():
            raise WorkerDied("it was killed")
        yield Finish("stop")

    async def wait_exit(self) -> str:
        """Return when it died."""
        return await asyncio.shield(self._end)

    def die(self) -> None:
        """End like a process that was killed."""
        if not self._end.done():
            self._end.set_result("killed")

    async def close(self) -> None:
        """Give everything back."""
        self.die()
        self.model.up.remove(self)

    def memory_bytes(self) -> int:
        """Return what it holds now."""
        return self.model.asleep_bytes if self.asleep else self.model.memory_bytes


class Checked(Keeper):
    """A keeper whose every action is judged before it is done; what is wrong is kept as a sentence."""

    def __init__(self, budget_bytes: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(budget_bytes, loop.time)
        self.now = loop.time
        self.budget = budget_bytes
        self.by_name: dict[str, Pool] = {}
        self.faults: list[str] = []
        self.kinds: Counter[str] = Counter()
        self.looks = 0

    def step(self, now: float) -> tuple[Action, ...]:
        """Look, and check that nothing was begun that there is no room for."""
        self.looks += 1
        actions = super().step(now)
        if any(isinstance(action, Start | Wake) for action in actions) and (held := self.held()) > self.budget:
            self.faults.append(f"at {now:.1f} {actions} leave {held / MIB:.0f} of {self.budget / MIB:.0f} MiB held")
        return actions

    def held(self) -> int:
        """Return what all replicas hold by the books."""
        return sum(r.memory_bytes for pool in self.by_name.values() for r in pool.snapshot(self.now()).replicas)

    def _act(self, action: Action) -> None:
        self.kinds[type(action).__name__] += 1
        if isinstance(action, Stop | Demote):
            pool = self.by_name[action.model].snapshot(self.now())
            if (wrong := self._wrong(pool, action)) is not None:
                self.faults.append(f"at {self.now():.1f} {action}: {wrong}")
        super()._act(action)

    def _wrong(self, pool: PoolSnapshot, action: Stop | Demote) -> str | None:
        """Say what forbids to take this replica down: work in it without its turn over, the minimum, its residency."""
        replica = next((r for r in pool.replicas if r.name == action.replica), None)
        above_most = len(pool.alive) + len(pool.asleep) > max(pool.max_replicas, pool.min_replicas)
        if replica is None or above_most or replica.state in (ReplicaState.DRAINING, ReplicaState.FAILED):
            return None
        if "kept for" in action.why:
            return None  # the operator's own time
        least_s = min((cost.reach_s for cost in pool.costs if cost.reach_s), default=pool.start_s)
        wrong = {
            "it was just coming": replica.state is ReplicaState.STARTING,
            "work is here": (replica.in_flight or pool.queued) and "turn is over" not in action.why,
            "a job is in it": isinstance(action, Demote) and replica.in_flight,
            "it is one of the minimum": replica.state is ReplicaState.READY and len(pool.alive) <= pool.min_replicas,
            f"coming back takes {least_s:.2f} s": self.now() - replica.since < least_s - 1e-9,
        }
        return next((words for words, holds in wrong.items() if holds), None)


class World:
    """The models, their clients, and what happens."""

    def __init__(self, seed: int, models: int = 6) -> None:
        self.loop = VirtualLoop()
        self.random = random.Random(seed)
        self.models = [self._model(number) for number in range(models)]
        self.keeper = Checked(self._budget(), self.loop)
        self.pools = {model.name: self._pool(model) for model in self.models}
        self.keeper.by_name = self.pools
        self.clients: dict[asyncio.Task[None], str] = {}
        self.ended: Counter[str] = Counter()

    def _model(self, number: int) -> Played:
        size = self.random.randrange(50, 400) * MIB
        return Played(
            f"model-{number}",
            healthy=number % 2 == 0,
            start_s=self.random.choice((0.2, 1.0, 5.0, 12.0)),
            service_s=self.random.choice((0.01, 0.1, 1.0, 3.0)),
            memory_bytes=size,
            asleep_bytes=size // 3 if number % 3 == 0 else 0,
            concurrency=self.random.choice((1, 2, 8)),
        )

    def _limits(self, *, least: int = 0) -> PoolLimits:
        return PoolLimits(
            min_replicas=least,
            max_replicas=self.random.randint(1, 3),
            queue=self.random.choice((4, 20)),
            start_timeout_s=30.0,
            keep_warm_s=self.random.choice((None, None, 0.0, 30.0)),
        )

    def _budget(self) -> int:
        """Draw a budget with room for the largest model beside the one that may have a minimum."""
        sizes = sorted(model.memory_bytes for model in self.models)
        return self.models[0].memory_bytes + self.random.randrange(sizes[-1], sum(sizes))

    def _pool(self, model: Played) -> Pool:
        costs = ModelCosts(CostSeed(start_s=model.start_s, memory_bytes=model.memory_bytes))
        pool = Pool(
            model.name,
            model,
            self._limits(),
            costs=costs,
            demand=Demand(self.loop.time(), Keeping(self.keeper.habits)),
            clock=self.loop.time,
            wake_keeper=self.keeper.wake,
        )
        self.keeper.add(pool)
        return pool

    def run(self, steps: int) -> None:
        """Let so many things happen, then let everybody get to an end. Raises `AssertionError` for what is wrong."""
        try:
            self.loop.run_until_complete(self._run(steps))
            left = asyncio.all_tasks(self.loop)
            assert not left, f"left behind: {left}"
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.settle()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    async def _run(self, steps: int) -> None:
        self.keeper.start()
        for _ in range(steps):
            self._happen()
            await asyncio.sleep(self._pause_s())
            assert not self.keeper.faults, self.keeper.faults[:3]
        if self.clients:
            await asyncio.wait(self.clients, timeout=2 * PATIENCE_S)
        assert not self.clients, f"never ended: {sorted(self.clients.values())}"
        for pool in self.pools.values():
            await pool.close(self.loop.time() + 1.0)
        await self.keeper.close()
        assert not any(model.up for model in self.models)

    def _pause_s(self) -> float:
        kind = self.random.random()
        if kind < 0.3:
            return 0.0
        return self.random.expovariate(3.0) if kind < 0.99 else self.random.uniform(10.0, 300.0)

    def _happen(self) -> None:
        kind, model = self.random.random(), self.random.choice(self.models)
        if kind < 0.85:
            self._come(self.models[min(len(self.models) - 1, int(self.random.expovariate(0.5)))])
        elif kind < 0.90 and self.clients:
            self.random.choice([*self.clients]).cancel()
        elif kind < 0.93 and not model.healthy and model.up:
            self.random.choice(model.up).die()
        elif kind < 0.95 and not model.healthy:
            model.fails = self.random.randint(1, 3)
        elif kind < 0.955 and not model.healthy:
            model.hangs = 1
        elif kind < 0.97:
            self.pools[model.name].limits = self._limits(least=int(model is self.models[0] and kind < 0.962))
            self.keeper.wake()
        elif kind < 0.975:
            self.keeper.budget = self._budget()
            self.keeper.set_budget(self.keeper.budget)

    def _come(self, model: Played) -> None:
        task = self.loop.create_task(self._ask(model))
        self.clients[task] = model.name
        task.add_done_callback(self._gone)

    async def _ask(self, model: Played) -> None:
        began = self.loop.time()
        try:
            await self.pools[model.name].answer(Job(Task.CHAT), began + PATIENCE_S)
        except QueueFull:
            self.ended["refused"] += 1
        except BackendError as error:
            self.ended[type(error).__name__] += 1
            if model.healthy:
                waited_s = self.loop.time() - began
                self.keeper.faults.append(f"{model.name} was not served after {waited_s:.0f} s: {error}")
        else:
            self.ended["served"] += 1

    def _gone(self, task: asyncio.Task[None]) -> None:
        del self.clients[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self.keeper.faults.append(f"a client ended with {error!r}")
