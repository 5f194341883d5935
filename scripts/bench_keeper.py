#!/usr/bin/env python
"""Measures what one look of the keeper takes with many models: the pools' snapshots, and the plan made of them.

Most models are idle, some are up, some have a queue that must push others out of a budget that is full. Nothing is
started: the look's actions are dropped, so that each look sees the same house. The goal is 5 ms for 500 models.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator

import numpy as np

from backends.contract import Job, Made, StartFailed
from backends.costs import CostSeed, ModelCosts
from backends.demand import Demand
from backends.keeper import Keeper
from backends.planning import Action
from backends.pool import Pool, PoolLimits
from backends.warmth.keeping import Keeping

_MIB = 2**20
_HOUR_S = 3600.0
_GOAL_MS = 5.0
_RESIDENCE_S = 300.0  # as long as any replica must have been up before it may be pushed out


class Idle:
    """A backend that is never asked."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes

    async def stream(self, job: Job) -> AsyncGenerator[Made, None]:
        """Answer nothing."""
        raise StartFailed(f"nobody asks here, and {job!r} came")
        yield

    async def wait_exit(self) -> str:
        """Never return."""
        await asyncio.Event().wait()
        return ""

    async def close(self) -> None:
        """End."""

    def memory_bytes(self) -> int:
        """Return what it is said to hold."""
        return self._memory_bytes


class Absent:
    """An engine whose replicas are there at once."""

    version = "none"
    concurrency = 4

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes

    async def start(self) -> Idle:
        """Return a backend."""
        return Idle(self._memory_bytes)


class Onlooker(Keeper):
    """A keeper that decides and does nothing, so that each look sees the same."""

    def _act(self, action: Action) -> None:
        """Drop it."""


class House:
    """A keeper that plans and does not act, over pools that were asked at random for a day."""

    def __init__(self, models: int, budget_bytes: int | None, seed: int) -> None:
        self.now = 1e6
        self.keeper = Onlooker(budget_bytes, lambda: self.now)
        self.random = random.Random(seed)
        self.pools = [self._pool(number) for number in range(models)]
        for pool in self.pools:
            self.keeper.add(pool)

    def _pool(self, number: int) -> Pool:
        size = self.random.randrange(20, 400) * _MIB
        demand = Demand(self.now, Keeping(self.keeper.habits))
        costs = ModelCosts(CostSeed(start_s=self.random.uniform(0.2, 60.0), memory_bytes=size))
        for _ in range(20):
            costs.learn_start(self.random.lognormvariate(0.0, 1.0))
        limits = PoolLimits(max_replicas=self.random.choice((1, 1, 4)))
        return Pool(
            f"model-{number}",
            Absent(size),
            limits,
            costs=costs,
            demand=demand,
            clock=lambda: self.now,
            wake_keeper=self.keeper.wake,
        )

    def live_a_day(self) -> None:
        """Let requests come: the first models are asked often, the last ones hardly ever."""
        requests = [
            (self.now + self.random.random() * 24 * _HOUR_S, pool)
            for rank, pool in enumerate(self.pools, 1)
            for _ in range(1 + 2000 // rank)
        ]
        for at, pool in sorted(requests, key=lambda request: request[0]):
            pool.demand.record(at)
            pool.demand.rest(at + 0.5)
        self.now += 24 * _HOUR_S

    async def start_some(self, share: float) -> list[asyncio.Task[None]]:
        """Bring up a replica of this share of the models."""
        chosen = self.random.sample(self.pools, int(len(self.pools) * share))
        lives = [asyncio.create_task(pool.fleet.live(pool.fleet.start())) for pool in chosen]
        for pool in chosen:
            await pool.warm_up(self.now + _HOUR_S)
        return lives

    def queue_some(self, count: int) -> list[asyncio.Task[None]]:
        """Let a request wait for this many models that are not up."""
        down = [pool for pool in self.pools if not pool.snapshot(self.now).replicas]
        return [asyncio.create_task(pool.warm_up(self.now + _HOUR_S)) for pool in down[:count]]

    def look(self) -> tuple[float, tuple[Action, ...]]:
        """Look once; return the milliseconds of the core that it took, and what would have been done."""
        began = time.thread_time()
        actions = self.keeper.step(self.now)
        return (time.thread_time() - began) * 1e3, actions


async def measure(models: int, waiting: int, looks: int, seed: int) -> dict[str, object]:
    """Return the quantiles of a look's time, and what one of them decided."""
    house = House(models, None, seed)
    house.live_a_day()
    lives = await house.start_some(0.1)
    house.now += _RESIDENCE_S
    queued = house.queue_some(waiting)
    await asyncio.sleep(0)
    snapshots = [pool.snapshot(house.now) for pool in house.pools]
    held = sum(replica.memory_bytes for pool in snapshots for replica in pool.replicas)
    house.keeper.set_budget(held + _MIB)
    took: list[float] = []
    actions: tuple[Action, ...] = ()
    for _ in range(looks):
        house.now += 0.001
        milliseconds, actions = house.look()
        took.append(milliseconds)
    for task in (*lives, *queued):
        task.cancel()
    await asyncio.gather(*lives, *queued, return_exceptions=True)
    kinds = [type(action).__name__.lower() for action in actions]
    p50, p99 = (round(float(np.quantile(took, share)), 2) for share in (0.5, 0.99))
    counted = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    return {"models": models, "waiting": waiting, "p50_ms": p50, "p99_ms": p99, "actions": counted}


def main() -> None:
    """Measure, and print a JSON line for each number of models that wait."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--waiting", type=int, nargs="+", default=[0, 10, 50])
    parser.add_argument("--looks", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for waiting in options.waiting:
        measured = asyncio.run(measure(options.models, waiting, options.looks, options.seed))
        print(json.dumps({**measured, "goal_ms": _GOAL_MS}))


if __name__ == "__main__":
    main()
