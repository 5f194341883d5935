"""The gateway's own keeper and pools in virtual time, over models of which only the costs are real.

It decides with the code that runs live; only clock, processes and answers are played. Knows no policy of its own.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from backends.contract import BackendError, Finish, Job, Made, Task, Text
from backends.costs import CostSeed, ModelCosts
from backends.demand import Demand
from backends.keeper import Decision, Keeper
from backends.pool import Pool, PoolLimits
from backends.warmth.keeping import Keeping
from tests.fakes import VirtualLoop

Arrival = tuple[float, str]
"""When a model is asked, in seconds from the start."""


@dataclass(frozen=True, slots=True)
class Nature:
    """What a model costs, and how far its pool may go.

    `starts_s` are the times of its starts, one after the other (the last one counts for all that follow), `services_s`
    those of its answers likewise, `memory_bytes` is what a replica holds of the host.
    """

    starts_s: tuple[float, ...]
    services_s: tuple[float, ...]
    memory_bytes: int
    concurrency: int = 1
    limits: PoolLimits = field(default_factory=PoolLimits)
    seed: CostSeed = field(default_factory=CostSeed)


@dataclass(frozen=True, slots=True)
class Wait:
    """What a request waited for a slot, and how much of it for a start; `error` where it was not served."""

    at: float
    model: str
    waited_s: float
    start_s: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a replay: each request's wait, the decisions, and the most bytes held at any time."""

    waits: Sequence[Wait]
    decisions: Sequence[Decision]
    most_bytes: int


class _Played:
    """A backend whose answers take as long as they are said to."""

    def __init__(self, engine: "_Engine") -> None:
        self._engine = engine

    async def stream(self, job: Job) -> AsyncGenerator[Made, None]:
        """Answer after the service time."""
        del job
        await asyncio.sleep(self._engine.next_service_s())
        yield Text("")
        yield Finish("stop")

    async def wait_exit(self) -> str:
        """Never end."""
        await asyncio.Event().wait()
        return ""

    async def close(self) -> None:
        """End at once."""

    def memory_bytes(self) -> int:
        """Return what the model is said to hold."""
        return self._engine.nature.memory_bytes


class _Engine:
    """Starts that take as long as they are said to."""

    version = "played"

    def __init__(self, nature: Nature) -> None:
        self.nature = nature
        self.concurrency = nature.concurrency
        self._starts = 0
        self._services = 0

    async def start(self) -> _Played:
        """Return a backend after the start's time."""
        start_s = _nth(self.nature.starts_s, self._starts)
        self._starts += 1
        await asyncio.sleep(start_s)
        return _Played(self)

    def next_service_s(self) -> float:
        """Return how long the next answer takes."""
        self._services += 1
        return _nth(self.nature.services_s, self._services - 1)


class House:
    """A keeper over pools of played models, on the running loop."""

    def __init__(
        self, natures: Mapping[str, Nature], budget_bytes: int | None, keeper: Callable[..., Keeper] = Keeper
    ) -> None:
        self._clock = asyncio.get_running_loop().time
        self.keeper = keeper(budget_bytes, self._clock)
        self.keeper.decisions = self.decisions = deque()  # all of them, not the last hundred
        self.waits: list[Wait] = []
        self.most_bytes = 0
        self.pools: dict[str, Pool] = {}
        self.pools |= {model: self._pool(model, nature) for model, nature in natures.items()}
        for pool in self.pools.values():
            self.keeper.add(pool)

    def _pool(self, model: str, nature: Nature) -> Pool:
        return Pool(
            model,
            _Engine(nature),
            nature.limits,
            costs=ModelCosts(nature.seed),
            demand=Demand(self._clock(), Keeping(self.keeper.habits)),
            clock=self._clock,
            wake_keeper=self._stirred,
        )

    async def replay(self, arrivals: Sequence[Arrival], *, settle_s: float, deadline_s: float) -> Replayed:
        """Let the requests come, and return when the last one is answered and `settle_s` have passed."""
        began = self._clock()
        self.keeper.start()
        asking = []
        for at, model in arrivals:
            await asyncio.sleep(began + at - self._clock())
            asking.append(asyncio.create_task(self._ask(at, model, deadline_s)))
        await asyncio.gather(*asking)
        await asyncio.sleep(settle_s)
        await self.keeper.close()
        return Replayed(self.waits, tuple(self.decisions), self.most_bytes)

    async def _ask(self, at: float, model: str, deadline_s: float) -> None:
        arrived = self._clock()
        try:
            answered = await self.pools[model].answer(Job(Task.CHAT), arrived + deadline_s)
        except BackendError as error:
            self.waits.append(Wait(at, model, self._clock() - arrived, 0.0, f"{type(error).__name__}: {error}"))
            return
        told = answered.dispatched
        self.waits.append(Wait(at, model, told.queue_s + told.start_s, told.start_s))

    def _stirred(self) -> None:
        """Note what is held whenever that may have changed, then let the keeper look."""
        replicas = (r for pool in self.pools.values() for r in pool.snapshot(self._clock()).replicas)
        self.most_bytes = max(self.most_bytes, sum(r.memory_bytes for r in replicas))
        self.keeper.wake()


def replay(
    arrivals: Sequence[Arrival],
    natures: Mapping[str, Nature],
    budget_bytes: int | None,
    *,
    settle_s: float = 0.0,
    deadline_s: float = 600.0,
    keeper: Callable[..., Keeper] = Keeper,
) -> Replayed:
    """Replay in virtual time, which takes no time but what the decisions take."""
    loop = VirtualLoop()
    try:

        async def run() -> Replayed:
            return await House(natures, budget_bytes, keeper).replay(arrivals, settle_s=settle_s, deadline_s=deadline_s)

        return loop.run_until_complete(run())
    finally:
        loop.close()


def _nth(values: Sequence[float], place: int) -> float:
    return values[min(place, len(values) - 1)]
