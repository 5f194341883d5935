"""Runs the gateway: one generation of settings after the other over the same listener, pools and caches.

An edit is prepared beside what serves, and takes over at once or not at all.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from backends.keeper import Keeper
from backends.pool import Pool
from backends.snapshot import ReplicaState
from cache.flight import SingleFlight
from config.settings import Settings
from gateway import learned, readings
from gateway.batch.service import Batches
from gateway.building.batches import open_batches, policy_of
from gateway.building.caches import Caches, adjust, open_caches
from gateway.building.engines import engine_of, fork_server, limits_of, pool_of, same_engine
from gateway.building.generation import Generation, Lasting, Parts, generation_of
from gateway.building.listeners import Listeners
from gateway.building.reload import ConfigFile
from gateway.limits import Limiter
from gateway.model_statistics import ModelStatistics
from gateway.request import Caller
from gateway.telemetry import Reading, Telemetry

_log = logging.getLogger(__name__)


class Gateway:
    """A gateway that runs. `apply` gives it new settings; streams that flow go on under the old ones."""

    def __init__(self, config: ConfigFile) -> None:
        self._lasting = Lasting(
            keeper=Keeper(None, time.monotonic),
            flights=SingleFlight(),
            limiter=Limiter(),
            telemetry=Telemetry(),
            statistics=ModelStatistics(self._max_batch),
            config_state=config.state,
        )
        self._lasting.telemetry.read_from(self._readings)
        self._lasting.telemetry.read_from(config.readings)
        self._changing = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self._generation: Generation | None = None
        self.listeners = Listeners(lambda: self.generation, self._lasting)

    @property
    def generation(self) -> Generation:
        """What answers now."""
        assert self._generation is not None, "`apply` comes first"
        return self._generation

    async def apply(self, settings: Settings) -> None:
        """Serve what these settings say. Where that fails all stays as it is.

        Raises `OSError` where it cannot listen, and `StartFailed` where a model's files are missing or wrong, or the
        replicas that should take over from others do not start.
        """
        async with self._changing:
            former = self._generation
            coming = await self._prepare(settings, former)
            self._take_over(coming, former)
            if coming.parts.caches is not None:
                await adjust(coming.parts.caches)
            if former is not None:
                self._in_background(self._end(former, coming), "end of a generation")

    async def drain(self, deadline_s: float) -> None:
        """Take no new requests and let those in progress end within the deadline."""
        await self.listeners.drain(deadline_s)

    async def close(self) -> None:
        """End everything at once; `drain` first where requests matter."""
        await self.listeners.close()
        if self._generation is not None and self._generation.parts.batches is not None:
            await self._generation.parts.batches.close(0.0)
        await self._lasting.flights.close()
        await self._lasting.keeper.close()
        for task in self._retiring:
            task.cancel()
        if self._retiring:
            await asyncio.wait(self._retiring)
        if self._generation is not None:
            if self._generation.parts.caches is not None:
                await self._generation.parts.caches.close(None)
            await self._generation.parts.forks.close(self._generation.settings.server.shutdown_timeout_s)

    def learned(self) -> learned.Learned:
        """Return where what the pools learn is kept: beside the cache, or nowhere where nothing is remembered."""
        settings = self.generation.settings
        return learned.Learned(_learned_file(settings), self.generation.parts.pools)

    async def _prepare(self, settings: Settings, former: Generation | None) -> Generation:
        """Bring up what is new, beside what serves; what was begun is undone where any of it fails."""
        async with AsyncExitStack() as undo:
            forks = former.parts.forks if former and former.settings.devices.gpus == settings.devices.gpus else None
            if forks is None:
                forks = fork_server(settings.devices.gpus)
                undo.push_async_callback(forks.close, settings.server.shutdown_timeout_s)
            pools: dict[str, Pool] = {}
            for name, model in settings.models.items():
                if former is not None and same_engine(name, former.settings, settings):
                    pools[name] = former.parts.pools[name]
                    continue
                engine = await engine_of(name, model, forks, settings.devices.gpus)
                pools[name] = pool_of(name, settings, engine, self._lasting.keeper)
                undo.push_async_callback(self._abandon, pools[name])
            former_caches = former.parts.caches if former is not None else None
            caches = await _caches(settings, pools, former_caches)
            if caches is not None:
                undo.push_async_callback(caches.close, former_caches)
            await self._replace_replicas(pools, former)
            if former is None:
                await learned.load(_learned_file(settings), pools)
            batches = await self._batches(settings, former)
            if batches is not None and (former is None or batches is not former.parts.batches):
                undo.push_async_callback(batches.close, 0.0)
            coming = generation_of(settings, Parts(forks, pools, caches, batches), self._lasting)
            former_server = None if former is None else former.settings.server
            await self.listeners.open(settings.server, former_server, coming)
            undo.pop_all()
            return coming

    async def _batches(self, settings: Settings, former: Generation | None) -> Batches | None:
        return await open_batches(
            settings.batch,
            None if former is None else former.parts.batches,
            None if former is None else former.settings.batch,
            pipeline=lambda: self.generation.pipeline,
            caller_of=self._caller_of,
        )

    def _caller_of(self, scope: str) -> Caller | None:
        return self.generation.gatekeeper.of_scope(scope)

    async def _replace_replicas(self, pools: dict[str, Pool], former: Generation | None) -> None:
        """Start new replicas where others serve, so that nobody waits for them after the change."""
        if former is None:
            return
        serving = {
            name: sum(replica.state is ReplicaState.READY for replica in old.snapshot(time.monotonic()).replicas)
            for name, old in former.parts.pools.items()
        }
        starts = [
            self._lasting.keeper.bring_up(pool, min(count, pool.limits.max_replicas), pool.limits.start_timeout_s)
            for name, pool in pools.items()
            if pool is not former.parts.pools.get(name) and (count := serving.get(name, 0))
        ]
        for outcome in await asyncio.gather(*starts, return_exceptions=True):
            if outcome is not None:
                raise outcome

    def _take_over(self, coming: Generation, former: Generation | None) -> None:
        """Let the new generation serve: from here on nothing waits and nothing fails."""
        settings, keeper = coming.settings, self._lasting.keeper
        keeper.set_budget(settings.devices.host_memory.of(psutil.virtual_memory().total))
        for name, pool in coming.parts.pools.items():
            pool.limits = limits_of(name, settings)
            keeper.add(pool)
        for name, pool in former.parts.pools.items() if former is not None else ():
            if name not in coming.parts.pools:
                keeper.retire(pool)
        self.listeners.exchange(coming)
        self._generation = coming
        if former is None:
            keeper.start()
        batches = coming.parts.batches
        if batches is not None and settings.batch is not None:
            batches.adjust(policy_of(settings.batch))
            if former is None or former.parts.batches is not batches:
                batches.start()

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _end(self, former: Generation, coming: Generation) -> None:
        """End what the new generation has not taken over, once nobody can reach it any more."""
        await former.pipeline.until_idle()
        leaving = [pool for name, pool in former.parts.pools.items() if coming.parts.pools.get(name) is not pool]
        deadline = time.monotonic() + former.settings.server.request_timeout_s
        async with asyncio.TaskGroup() as ends:
            for pool in leaving:
                ends.create_task(self._close_pool(pool, deadline))
        if former.parts.batches is not None and former.parts.batches is not coming.parts.batches:
            await former.parts.batches.close(former.settings.server.shutdown_timeout_s)
        if former.parts.caches is not None and former.parts.caches is not coming.parts.caches:
            await former.parts.caches.close(coming.parts.caches)
        if former.parts.forks is not coming.parts.forks:
            await former.parts.forks.close(former.settings.server.shutdown_timeout_s)

    async def _close_pool(self, pool: Pool, deadline: float) -> None:
        await pool.close(deadline)
        self._lasting.keeper.forget(pool)

    async def _abandon(self, pool: Pool) -> None:
        self._lasting.keeper.retire(pool)
        await self._close_pool(pool, time.monotonic())

    def _max_batch(self, model: str) -> int:
        return self.generation.catalog.max_batch(model)

    def _readings(self) -> Iterable[Reading]:
        generation = self._generation
        if generation is None:
            return
        yield from readings.of_pools(generation.parts.pools, time.monotonic())
        if generation.parts.caches is not None:
            yield from readings.of_cache(generation.parts.caches.exact, generation.parts.caches.semantic)
        if generation.parts.batches is not None:
            yield from generation.parts.batches.readings()


async def _caches(settings: Settings, pools: dict[str, Pool], former: Caches | None) -> Caches | None:
    if settings.cache is None:
        return None
    semantic = settings.cache.semantic
    embedder_version = None if semantic is None else pools[semantic.embedder].engine.version
    return await open_caches(settings.cache, embedder_version, former)


def _learned_file(settings: Settings) -> Path | None:
    return settings.cache.directory / "learned.json" if settings.cache is not None else None


@asynccontextmanager
async def running(settings: Settings, config: ConfigFile) -> AsyncIterator[Gateway]:
    """Run a gateway for as long as the context lasts. Raises what `Gateway.apply` raises."""
    gateway = Gateway(config)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(gateway.close)
        await gateway.apply(settings)
        await stack.enter_async_context(learned.kept(gateway.learned))
        yield gateway
