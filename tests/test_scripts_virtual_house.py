"""The simulator decides as the keeper did: a log of what came and what it took gives the same decisions again."""

import asyncio
import json
import random
from collections import defaultdict, deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest

from backends.contract import BackendError, Event, Finish, Job, Task
from backends.costs import CostSeed, ModelCosts
from backends.demand import Demand
from backends.keeper import Decision, Keeper
from backends.pool import Pool
from backends.pool_limits import PoolLimits
from backends.warmth.keeping import Keeping
from scripts.tuning.virtual_house import Nature, replay
from tests.fakes import run_virtual

MIB = 2**20
MODELS = [f"model-{number}" for number in range(5)]
BUDGET = 260 * MIB
SEED = CostSeed(start_s=2.0, memory_bytes=100 * MIB)
LIMITS = PoolLimits(max_replicas=2, queue=50)


@dataclass
class Log:
    """What a live keeper's models told, line by line, as one would write it to a file."""

    lines: list[str] = field(default_factory=list)

    def note(self, what: str, model: str, value: float) -> None:
        """Write a line."""
        self.lines.append(json.dumps({"what": what, "model": model, "value": value}))

    def by_model(self, what: str) -> dict[str, list[float]]:
        """Read the lines of one kind."""
        found: dict[str, list[float]] = defaultdict(list)
        for line in map(json.loads, self.lines):
            if line["what"] == what:
                found[line["model"]].append(line["value"])
        return found


class LiveEngine:
    """An engine that takes as long as chance has it, and measures it as one does that runs processes."""

    version = "live"
    concurrency = 1

    def __init__(self, model: str, rng: random.Random, log: Log) -> None:
        self.model, self.rng, self.log = model, rng, log

    async def start(self) -> "LiveEngine":
        """Come up."""
        took_s = self.rng.lognormvariate(0.5, 0.7)
        self.log.note("start", self.model, took_s)
        await asyncio.sleep(took_s)
        return self

    async def stream(self, job: Job) -> AsyncGenerator[Event, None]:
        """Answer."""
        took_s = self.rng.expovariate(1.0)
        self.log.note("service", self.model, took_s)
        await asyncio.sleep(took_s)
        yield Finish("stop")

    async def wait_exit(self) -> str:
        """Never end."""
        await asyncio.Event().wait()
        return ""

    async def close(self) -> None:
        """End."""

    def memory_bytes(self) -> int:
        """Hold as much as the seed says."""
        return SEED.memory_bytes


def traffic(rng: random.Random) -> list[tuple[float, str]]:
    """Make bursts and silences of half an hour, the first models the most."""
    at, arrivals = 0.0, []
    while at < 1800.0:
        at += rng.expovariate(0.5) if rng.random() < 0.95 else rng.uniform(60.0, 240.0)
        arrivals.append((at, rng.choices(MODELS, [8, 4, 3, 2, 1])[0]))
    return arrivals


async def live(seed: int, log: Log) -> list[Decision]:
    """Run a keeper by itself, write down what happens to it, and return its decisions."""
    rng, clock = random.Random(seed), asyncio.get_running_loop().time
    keeper = Keeper(BUDGET, clock)
    keeper.decisions = decisions = deque()
    pools: dict[str, Pool] = {}
    for model in MODELS:
        pools[model] = Pool(
            model,
            LiveEngine(model, rng, log),
            LIMITS,
            costs=ModelCosts(SEED),
            demand=Demand(clock(), Keeping(keeper.habits)),
            clock=clock,
            wake_keeper=keeper.wake,
        )
        keeper.add(pools[model])
    keeper.start()
    began, asking = clock(), []

    async def ask(model: str) -> None:
        try:
            await pools[model].answer(Job(Task.CHAT), clock() + 600.0)
        except BackendError as error:
            log.note(f"failed: {error}", model, 0.0)

    for at, model in traffic(rng):
        await asyncio.sleep(began + at - clock())
        log.note("asked", model, clock() - began)
        asking.append(asyncio.create_task(ask(model)))
    await asyncio.gather(*asking)
    await asyncio.sleep(600.0)
    await keeper.close()
    return list(decisions)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_live_log_gives_the_same_decisions_in_the_simulator(seed):
    """Every start, stop and wait at the same time, for the same reason in the same words."""
    log = Log()
    decided = run_virtual(live(seed, log))
    asked, starts, services = (log.by_model(what) for what in ("asked", "start", "service"))
    assert not [line for line in log.lines if "failed" in line]
    natures = {
        model: Nature(
            tuple(starts[model]) or (1.0,), tuple(services[model]) or (1.0,), SEED.memory_bytes, 1, LIMITS, SEED
        )
        for model in MODELS
    }
    arrivals = sorted((at, model) for model, times in asked.items() for at in times)

    simulated = replay(arrivals, natures, BUDGET, settle_s=600.0, deadline_s=600.0)

    assert len(decided) > 100
    assert [each.action for each in simulated.decisions] == [each.action for each in decided]
    assert [each.at for each in simulated.decisions] == pytest.approx([each.at for each in decided])
    assert simulated.most_bytes <= BUDGET
