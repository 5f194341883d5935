#!/usr/bin/env python
"""Serves many models out of memory for a few, live, under Zipf traffic; beside it what LRU would have done.

    .venv/bin/python -m scripts.soak_warm_pools [--models 50] [--fits 10] [--seconds 600] [--rate 2] [--json FILE]

The models are copies of `intents` under names of their own. What the workers hold is measured every half second, beside
what the gateway accounts for. LRU is not run live: the same arrivals are replayed in virtual time through the gateway's
own keeper and pools, with the starts that were measured live, once as it is and once with the longest unused giving
way and nothing let go for idleness. The first of the two tells how far the replay may be trusted. Ends with 1 after an
error, or where the budget was broken.
"""

import argparse
import asyncio
import itertools
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest.mock import patch

import aiohttp
import numpy as np
import psutil
from rich.console import Console
from rich.progress import track

from backends.costs import CostSeed
from backends.lowering import Descent
from backends.pool import PoolLimits
from backends.warmth.giving_way import Resident
from scripts.running_gateway import ROOT, RunningGateway, running
from scripts.tuning.virtual_house import Arrival, Nature, Wait, replay

INTENTS = ROOT / "var/models/intents"
_SAMPLE_S = 0.5
_DEADLINE_S = 120.0
_COLD_S = 0.001
_SPARE = 0.5
"""Room beside the models that fit, in replicas."""
_FOREVER_S = 1e9
_PARTS = re.compile(r"\b(queue|start|infer);dur=([\d.]+)")


@dataclass(frozen=True, slots=True)
class Sample:
    """What the workers held at one moment, in bytes: as the gateway accounts for it, and as measured."""

    at: float
    accounted: int
    measured: int
    workers: int
    books: tuple[str, ...]


@dataclass(slots=True)
class Run:
    """What came of a live run."""

    waits: list[Wait] = field(default_factory=list)
    services_s: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def zipf_arrivals(models: int, rate: float, seconds: float, seed: int) -> list[Arrival]:
    """Return Poisson arrivals: the model of rank n is asked n times less often than the first."""
    rng = random.Random(seed)
    names = [_name(number) for number in range(models)]
    weights = [1 / rank for rank in range(1, models + 1)]
    gaps = iter(lambda: rng.expovariate(rate), None)
    at = itertools.takewhile(lambda each: each < seconds, itertools.accumulate(gaps))
    return [(each, rng.choices(names, weights)[0]) for each in at]


def main() -> int:
    """Run, replay, print; return 1 where anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--fits", type=int, default=10, help="replicas that the budget has room for")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=2.0, help="requests a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="warmgate-soak-") as name:
        directory = Path(name)
        console.print("measuring one replica")
        one = asyncio.run(_live(directory / "one", 1, None, [(0.1 * place, _name(0)) for place in range(100)], console))
        size = one.samples[-1].measured
        budget = int(size * (options.fits + _SPARE)) >> 20 << 20
        arrivals = zipf_arrivals(options.models, options.rate, options.seconds, options.seed)
        console.print(f"{len(arrivals)} requests to {options.models} models, {budget >> 20} MiB for all")
        live = asyncio.run(_live(directory / "many", options.models, budget, arrivals, console))
    report = {
        "models": options.models,
        "replica_mib": size >> 20,
        "budget_mib": budget >> 20,
        "most_accounted_mib": max(sample.accounted for sample in live.samples) >> 20,
        "most_measured_mib": max(sample.measured for sample in live.samples) >> 20,
        "most_workers": max(sample.workers for sample in live.samples),
        "live": _figures(live.waits),
        **_replayed(live, arrivals, size, budget, options.models),
    }
    broken = [asdict(sample) for sample in live.samples if max(sample.accounted, sample.measured) > budget]
    errors = [asdict(wait) for wait in live.waits if wait.error]
    report |= {"samples": len(live.samples), "samples_beyond_budget": broken[:20], "errors": errors[:20]}
    print(json.dumps(report, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2))
    return int(bool(broken or errors))


async def _live(directory: Path, models: int, budget: int | None, arrivals: Sequence[Arrival], console: Console) -> Run:
    """Serve the models and let the requests come."""
    run = Run()
    with running(_config(directory, models, budget), directory, log_level="warning") as gateway:
        timeout = aiohttp.ClientTimeout(total=_DEADLINE_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(gateway.url, timeout=timeout, connector=connector) as client:
            sampling = asyncio.create_task(_sample(client, gateway, run))
            began = time.monotonic()
            asking = []
            for at, model in track(arrivals, "asking", console=console):
                await asyncio.sleep(began + at - time.monotonic())
                asking.append(asyncio.create_task(_ask(client, at, model, run)))
            await asyncio.gather(*asking)
            sampling.cancel()
            await asyncio.wait({sampling})
            if not sampling.cancelled():
                sampling.result()
    return run


def _config(directory: Path, models: int, budget: int | None) -> str:
    """Return a config without a cache, over a copy of the model for each name."""
    directory.mkdir()
    lines = ["server: {listen: 127.0.0.1:0}", "models:"]
    for number in range(models):
        copy = directory / _name(number)
        copy.mkdir()
        for file in INTENTS.iterdir():
            (copy / file.name).hardlink_to(file)
        lines.append(f"  {_name(number)}: {{task: predict, onnx: {{path: {copy}}}}}")
    if budget is not None:
        lines.append(f"devices: {{host_memory: {budget >> 20}MiB}}")
    return "\n".join(lines) + "\n"


async def _ask(client: aiohttp.ClientSession, at: float, model: str, run: Run) -> None:
    body = {"model": model, "input": f"I was charged twice, {at:.6f} seconds ago"}
    began = time.monotonic()
    try:
        async with client.post("/api/v1/predict", json=body) as response:
            text = await response.text()
            told = {part: float(ms) / 1000 for part, ms in _PARTS.findall(response.headers.get("Server-Timing", ""))}
            error = "" if response.status == 200 else f"{response.status}: {text}"
    except (aiohttp.ClientError, TimeoutError) as trouble:
        told, error = {}, f"{type(trouble).__name__}: {trouble}"
    if error:
        run.waits.append(Wait(at, model, time.monotonic() - began, 0.0, error))
        return
    run.waits.append(Wait(at, model, told["queue"] + told["start"], told["start"]))
    run.services_s.append(told["infer"])


async def _sample(client: aiohttp.ClientSession, gateway: RunningGateway, run: Run) -> None:
    """Look again and again at what the workers hold, by the gateway's books and by the system's."""
    program = psutil.Process(gateway.process.pid)
    while True:
        measured = await asyncio.to_thread(_measured, program)
        async with client.get("/admin/pools") as response:
            told = await response.json()
        replicas = [r for pool in told["pools"].values() for r in pool["replicas"]]
        accounted = sum(r["memory_bytes"] for r in replicas)
        books = tuple(f"{r['name']} {r['state']} {r['memory_bytes'] >> 20}" for r in replicas)
        run.samples.append(Sample(time.monotonic(), accounted, sum(measured), len(measured), books))
        await asyncio.sleep(_SAMPLE_S)


def _measured(program: psutil.Process) -> list[int]:
    """Return what each worker holds of its own: resident, less what it shares with the fork server's files."""
    sizes = []
    for fork_server in program.children():
        for worker in fork_server.children():
            try:
                memory = worker.memory_info()
            except psutil.NoSuchProcess:
                continue
            sizes.append(memory.rss - memory.shared)
    return [size for size in sizes if size]


def _replayed(live: Run, arrivals: Sequence[Arrival], size: int, budget: int, models: int) -> dict[str, object]:
    """Replay the arrivals in virtual time, as the gateway decides and as LRU does."""
    starts = [wait.start_s for wait in live.waits if wait.start_s > _COLD_S]
    starts_s = tuple(random.Random(1).choices(starts, k=200)) if starts else (0.5,)
    services_s = tuple(live.services_s) or (0.01,)

    def natures(keep_warm_s: float | None) -> dict[str, Nature]:
        limits = PoolLimits(keep_warm_s=keep_warm_s, queue=256)
        seed = CostSeed(start_s=float(np.median(starts_s)), memory_bytes=size)
        nature = Nature(starts_s, services_s, size, concurrency=32, limits=limits, seed=seed)
        return {_name(number): nature for number in range(models)}

    ours = replay(arrivals, natures(None), budget, deadline_s=_DEADLINE_S)
    with patch("backends.planning._resident", _by_last_use), patch("backends.planning.first_to_go", _least):
        lru = replay(arrivals, natures(_FOREVER_S), budget, deadline_s=_DEADLINE_S)
    return {"replayed_as_live": _figures(ours.waits), "replayed_with_lru": _figures(lru.waits)}


def _by_last_use(name: str, way: Descent) -> Resident:
    return Resident(name, way.pool.last_arrival or 0.0, way.replica.since)


def _least(residents: Iterable[Resident]) -> Resident:
    key: Callable[[Resident], float] = lambda resident: resident.value  # noqa: E731 - the type checker wants its type
    return min(residents, key=key)


def _figures(waits: Sequence[Wait]) -> dict[str, float]:
    """Return what people ask about waits."""
    waited = np.array([wait.waited_s for wait in waits])
    cold = [wait for wait in waits if wait.start_s > _COLD_S]
    quantiles = {f"wait_p{share * 100:.0f}_s": float(np.quantile(waited, share)) for share in (0.5, 0.95, 0.99)}
    return {
        "requests": len(waits),
        "errors": sum(bool(wait.error) for wait in waits),
        "cold_share": round(len(cold) / len(waits), 4),
        "wait_mean_s": round(float(waited.mean()), 3),
        **{name: round(value, 3) for name, value in quantiles.items()},
        "wait_most_s": round(float(waited.max()), 3),
    }


def _name(number: int) -> str:
    return f"intents-{number:02}"


if __name__ == "__main__":
    sys.exit(main())
