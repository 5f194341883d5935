"""Times the whole decision of the semantic cache on real workers: embedding, guards and verifier. Knows no truth."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np

from backends.contract import Job, Task, Tensor, Tensors, Vectors
from backends.forkserver.client import ForkServer
from backends.onnx import OnnxEngine, OnnxReplica
from cache.contract import Meaning
from cache.semantic.guards import find_veto
from cache.semantic.judging import weigh_with_guards
from gateway.trust.verifier import CONFIDENCE, PairVerifier
from scripts.pairs.sets import Pair

IN_FLIGHT = (1, 32)
_DECISIONS = 400


class Workers:
    """One worker of the embedder and one of the verifier."""

    def __init__(self, embedder: OnnxReplica, verifier: OnnxReplica, version: str) -> None:
        self._embedder = embedder
        self._verifier = verifier
        self.judge = PairVerifier(version, self._infer, deadline_s=60.0)

    async def embed(self, text: str) -> Meaning:
        """Return what the cache keeps of a text."""
        job = Job(Task.EMBED, inputs=(text,), token_vectors=True)
        async with aclosing(self._embedder.stream(job)) as events:
            found = [event async for event in events if isinstance(event, Vectors)]
        return Meaning(b"", text, found[0].data, *found[0].tokens)

    async def decide(self, text: str, stored: Meaning) -> None:
        """Do what a look-up does once its candidate is found."""
        asked = await self.embed(text)
        if find_veto(stored.text, text, only_sure=True) is None:
            confidence = (await self.judge.verify(asked, [stored]))[0]
            weigh_with_guards(confidence, agreed=find_veto(stored.text, text) is None)

    async def _infer(self, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        job = Job(Task.INFER, tensors=given, outputs=(CONFIDENCE,))
        async with aclosing(self._verifier.stream(job)) as events:
            found = [event.outputs async for event in events if isinstance(event, Tensors)]
        return found[0]


def measure(pairs: Sequence[Pair], models: Path) -> dict[str, Any]:
    """Return p50 and p99 in milliseconds, for each number of decisions in flight, embedding included and apart."""
    return asyncio.run(_measure(list(pairs)[:_DECISIONS], models))


async def _measure(pairs: Sequence[Pair], models: Path) -> dict[str, Any]:
    forks = ForkServer({**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    try:
        engines = [await OnnxEngine.open(models / name, forks, threads=1) for name in ("minilm", "verifier")]
        replicas = [await engine.start() for engine in engines]
        try:
            return await _timings(pairs, Workers(replicas[0], replicas[1], engines[1].version))
        finally:
            for replica in replicas:
                await replica.close()
    finally:
        await forks.close(5.0)


async def _timings(pairs: Sequence[Pair], workers: Workers) -> dict[str, Any]:
    stored = {pair.b: await workers.embed(pair.b) for pair in pairs}
    asked = {pair.a: await workers.embed(pair.a) for pair in pairs}

    async def whole(pair: Pair) -> None:
        await workers.decide(pair.a, stored[pair.b])

    async def embedding(pair: Pair) -> None:
        await workers.embed(pair.a)

    async def judging(pair: Pair) -> None:
        if find_veto(pair.b, pair.a, only_sure=True) is None:
            await workers.judge.verify(asked[pair.a], [stored[pair.b]])

    told: dict[str, Any] = {}
    for in_flight in IN_FLIGHT:
        steps = {"decision": whole, "embedding": embedding, "judging": judging}
        told[str(in_flight)] = {name: await _percentiles(step, pairs, in_flight) for name, step in steps.items()}
    return told


async def _percentiles(
    step: Callable[[Pair], Awaitable[None]], pairs: Sequence[Pair], in_flight: int
) -> dict[str, float]:
    taken: list[float] = []
    waiting = iter(pairs)

    async def client() -> None:
        for pair in waiting:
            began = time.perf_counter()
            await step(pair)
            taken.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(in_flight)))
    spent_s = time.perf_counter() - began
    p50, p99 = (float(each) * 1e3 for each in np.percentile(taken, [50, 99]))
    return {"p50_ms": p50, "p99_ms": p99, "per_second": len(taken) / spent_s}
