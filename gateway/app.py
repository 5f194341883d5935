"""Runs the gateway: one generation of settings after the other over the same listener, pools and caches.

An edit is prepared beside what serves, and takes over at once or not at all.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from backends.forkserver.client import ForkServer
from backends.hints import Credits
from backends.keeper import Keeper
from backends.pool import Pool
from backends.snapshot import ReplicaState
from backends.warmers import Warmers
from cache.flight import SingleFlight
from config.settings import Settings
from gateway import learned
from gateway.batch.service import Batches
from gateway.building.batches import open_batches, policy_of
from gateway.building.caches import Caches, adjust, open_caches
from gateway.building.engines import (
    engine_of,
    fork_server,
    gpus_of,
    limits_of,
    pool_of,
    same_files,
    same_settings,
    seed_of,
)
from gateway.building.faults import blamed_on
from gateway.building.generation import Generation, Lasting, Parts, generation_of
from gateway.building.keys import keys_of
from gateway.building.listeners import Listeners, Opened
from gateway.building.reload import ConfigFile
from gateway.caching.weight import MOST_BYTES, weight
from gateway.callers.auth import Key
from gateway.callers.limits import Limiter
from gateway.counting import readings
from gateway.counting.model_statistics import ModelStatistics
from gateway.counting.telemetry import Reading, Telemetry
from gateway.request import Caller

_log = logging.getLogger(__name__)

_END_DEADLINE_S = 5.0


class Gateway:
    """A gateway that runs. `apply` gives it new settings; streams that flow go on under the old ones."""

    def __init__(self, config: ConfigFile) -> None:
        self._lasting = Lasting(
            keeper=Keeper(None, time.monotonic),
            flights=SingleFlight(MOST_BYTES, weight),
            limiter=Limiter(),
            telemetry=Telemetry(),
            statistics=ModelStatistics(self._max_batch),
            credits=Credits(),
            config_state=config.state,
        )
        self._warmers = Warmers.of(self._lasting.keeper.room_bytes)
        self._lasting.keeper.transient_bytes = self._warmers.transient_bytes
        self._lasting.keeper.on_wait = self._warmers.standby.give_way
        self._lasting.telemetry.read_from(self._readings)
        self._lasting.telemetry.read_from(config.readings)
        self.access_log = self._lasting.telemetry.access
        self._changing = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self._closing_queues: set[asyncio.Task[None]] = set()
        self._generation: Generation | None = None
        self._newest_keys: Sequence[Key] | None = None
        self.listeners = Listeners(lambda: self.generation, self._lasting)

    @property
    def generation(self) -> Generation:
        """What answers now."""
        assert self._generation is not None, "`apply` comes first"
        return self._generation

    def withdraw(self, newest: Settings) -> None:
        """Take from callers at once what these settings give them no more; `apply` gives what they add.

        That holds for what serves now and for what is being prepared, until newer settings say otherwise.
        """
        self._newest_keys = keys_of(newest.server)
        self.generation.narrow(self._newest_keys)

    async def apply(self, settings: Settings) -> None:
        """Serve what these settings say. Raises `CannotServe`; then all stays as it is."""
        async with self._changing:
            former = self._generation
            coming, opened = await self._prepare(settings, former)
            self._take_over(coming, opened, former)
            if former is not None:
                self._in_background(self._end(former, coming), "end of a generation")
            if coming.parts.caches is not None:
                await adjust(coming.parts.caches)

    async def drain(self, deadline_s: float) -> None:
        """Take no new requests and let those in progress end within the deadline."""
        await self.listeners.drain(deadline_s)

    async def close(self) -> None:
        """End everything at once; `drain` first where requests matter. An edit that is being applied comes first."""
        async with self._changing:
            await self.listeners.close()
            if self._generation is not None and self._generation.parts.batches is not None:
                await self._generation.parts.batches.close(0.0)
            if self._generation is not None:
                await self._generation.pipeline.close()
            await self._lasting.flights.close()
            await self._warmers.close()
            await self._lasting.keeper.close()
            await self._close_retiring()
            if self._generation is not None:
                if self._generation.parts.caches is not None:
                    await self._generation.parts.caches.close(None)
                await self._generation.parts.forks.close(self._generation.settings.server.shutdown_timeout_s)

    def learned(self) -> learned.Learned:
        """Return where what the pools learn is kept: beside the cache, or nowhere where nothing is remembered."""
        settings = self.generation.settings
        return learned.Learned(_learned_file(settings), self.generation.parts.pools)

    async def _prepare(self, settings: Settings, former: Generation | None) -> tuple[Generation, Opened]:
        """Bring up what is new, beside what serves; what was begun is undone where any of it fails."""
        async with AsyncExitStack() as undo:
            await self._use_gpus(settings, undo)
            forks = former.parts.forks if former and former.settings.devices.gpus == settings.devices.gpus else None
            if forks is None:
                forks = fork_server(settings.devices.gpus)
                undo.push_async_callback(forks.close, settings.server.shutdown_timeout_s)
            pools = await self._pools(settings, forks, former, undo)
            former_caches = former.parts.caches if former is not None else None
            with blamed_on("cache", "directory"):
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
            opened = await self.listeners.open(settings.server, coming)
            undo.pop_all()
            await self._keep_graphs(settings, forks)
            return coming, opened

    async def _keep_graphs(self, settings: Settings, forks: ForkServer) -> None:
        """Keep optimised graphs beside the cache, or none where nothing is remembered."""
        gpus = [device.name for device in self._lasting.keeper.devices.seen]
        directory = None if settings.cache is None else settings.cache.directory / "graphs"
        limit = 0 if settings.cache is None else settings.cache.graphs_bytes
        await self._warmers.use(directory, limit, forks, gpus)

    async def _use_gpus(self, settings: Settings, undo: AsyncExitStack) -> None:
        """Have the keeper look after the GPUs of these settings."""
        devices = self._lasting.keeper.devices
        undo.callback(devices.use, devices.gpus)
        devices.use(await asyncio.to_thread(gpus_of, settings.devices))

    async def _pools(
        self, settings: Settings, forks: ForkServer, former: Generation | None, undo: AsyncExitStack
    ) -> dict[str, Pool]:
        """Return a pool for each model: the former one where its replicas may run on."""
        pools: dict[str, Pool] = {}
        for name, model in settings.models.items():
            old = former.parts.pools.get(name) if former is not None else None
            if former is not None and old is not None and same_settings(name, former.settings, settings):
                if await same_files(old.engine):
                    pools[name] = old
                    continue
                _log.info("models.%s: its files have changed: its replicas are replaced", name)
            with blamed_on("models", name):
                engine = await engine_of(name, model, forks, settings.devices.gpus, self._warmers)
            pools[name] = pool_of(name, settings, engine, self._lasting.keeper, old)
            undo.push_async_callback(self._abandon, pools[name])
        return pools

    async def _batches(self, settings: Settings, former: Generation | None) -> Batches | None:
        if settings.batch is not None and former is not None and self._closing_queues:
            # Two that work on one directory would do all twice: one that does not end in time is an error below.
            limit_s = former.settings.server.shutdown_timeout_s + _END_DEADLINE_S
            await asyncio.wait(self._closing_queues, timeout=limit_s)
        where = "" if settings.batch is None else f"the queue in {settings.batch.directory} cannot be opened"
        with blamed_on("batch", "directory", trouble=where):
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
            self._bring_up(name, pool, min(count, pool.limits.max_replicas))
            for name, pool in pools.items()
            if pool is not former.parts.pools.get(name) and (count := serving.get(name, 0))
        ]
        for outcome in await asyncio.gather(*starts, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def _bring_up(self, name: str, pool: Pool, count: int) -> None:
        with blamed_on("models", name):
            await self._lasting.keeper.bring_up(pool, count, pool.limits.start_timeout_s)

    def _take_over(self, coming: Generation, opened: Opened, former: Generation | None) -> None:
        """Let the new generation serve: from here on nothing waits and nothing fails."""
        settings, keeper = coming.settings, self._lasting.keeper
        if self._newest_keys is not None:  # an edit that was saved meanwhile takes from this one too
            coming.narrow(self._newest_keys)
        keeper.set_budget(settings.devices.host_memory.of(psutil.virtual_memory().total))
        self._lasting.credits.bytes_for_an_hour = settings.devices.hint_memory_bytes
        for name, pool in coming.parts.pools.items():
            pool.limits = limits_of(name, settings)
            pool.costs.believe(seed_of(settings.models[name]))
            pool.price()
            keeper.add(pool)
        for name, pool in former.parts.pools.items() if former is not None else ():
            if name not in coming.parts.pools:
                keeper.retire(pool)
        self.access_log.file = settings.server.access_log
        self.listeners.exchange(opened, coming)
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
        leaving = [pool for name, pool in former.parts.pools.items() if coming.parts.pools.get(name) is not pool]
        async with asyncio.TaskGroup() as ends:
            if former.parts.batches is not None and former.parts.batches is not coming.parts.batches:
                ends.create_task(self._close_queue(former.parts.batches, former.settings.server.shutdown_timeout_s))
            await former.pipeline.accounts.until_idle()
            deadline = time.monotonic() + former.settings.server.request_timeout_s
            for pool in leaving:
                ends.create_task(self._close_pool(pool, deadline))
        await former.pipeline.close()
        if former.parts.caches is not None and former.parts.caches is not coming.parts.caches:
            await former.parts.caches.close(coming.parts.caches)
        if former.parts.forks is not coming.parts.forks:
            await former.parts.forks.close(former.settings.server.shutdown_timeout_s)

    async def _close_queue(self, batches: Batches, deadline_s: float) -> None:
        closing = asyncio.create_task(batches.close(deadline_s), name="end of a queue of batches")
        self._closing_queues.add(closing)
        closing.add_done_callback(self._closing_queues.discard)
        await closing

    async def _close_retiring(self) -> None:
        """Let what was replaced end: with the requests gone and the replicas ended, that takes no time."""
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=_END_DEADLINE_S)
        for task in self._retiring:
            task.cancel()
        if self._retiring:
            await asyncio.wait(self._retiring)

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
        yield from readings.of_ledgers(self._lasting.keeper.ledgers, generation.parts.pools)
        yield from readings.of_contest(self._lasting.keeper.contest)
        yield from readings.of_graphs(self._warmers.graphs)
        yield from readings.of_standby(self._warmers.standby)
        yield from readings.of_flights(self._lasting.flights)
        yield from readings.of_access_log(self.access_log)
        if generation.parts.caches is not None:
            yield from readings.of_cache(generation.parts.caches.exact, generation.parts.caches.semantic)
            if (trusting := generation.parts.caches.trusting) is not None:
                yield from readings.of_trust(trusting.trust, trusting.audits, time.time)
        if generation.parts.batches is not None:
            yield from generation.parts.batches.readings()


async def _caches(settings: Settings, pools: dict[str, Pool], former: Caches | None) -> Caches | None:
    if settings.cache is None:
        return None
    semantic = settings.cache.semantic
    embedder_version = None if semantic is None else pools[semantic.embedder].engine.version
    verifier = None if semantic is None else semantic.verifier
    verifier_version = None if verifier is None else pools[verifier].engine.version
    return await open_caches(settings.cache, embedder_version, former, verifier_version)


def _learned_file(settings: Settings) -> Path | None:
    return settings.cache.directory / "learned.json" if settings.cache is not None else None


@asynccontextmanager
async def running(settings: Settings, config: ConfigFile) -> AsyncIterator[Gateway]:
    """Run a gateway for as long as the context lasts. Raises `CannotServe`."""
    gateway = Gateway(config)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(gateway.close)
        await gateway.apply(settings)
        await stack.enter_async_context(gateway.access_log.kept())
        await stack.enter_async_context(learned.kept(gateway.learned))
        yield gateway
