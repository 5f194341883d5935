"""Builds the gateway from its settings, starts it and takes it down: the one place that makes concrete things."""

import logging
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from backends.command import CommandEngine
from backends.contract import Engine, Job, Task, Vectors
from backends.costs import CostSeed, ModelCosts
from backends.demand import Demand
from backends.forkserver.client import ForkServer
from backends.keeper import Keeper
from backends.onnx import OnnxEngine
from backends.pool import Pool, PoolLimits
from backends.upstream import HttpEngine
from cache.disk.store import DiskStore
from cache.exact import ExactCache
from cache.flight import SingleFlight
from cache.memory import MemoryStore
from cache.semantic.lookup import DEFAULT_THRESHOLD, SemanticCache
from config.fields import Gpus
from config.settings import CacheSettings, ModelSettings, PoolSettings, RouteSettings, Settings
from gateway import learned, readings
from gateway.analyze import CachePolicy
from gateway.auth import Gatekeeper
from gateway.explain import Explainer
from gateway.front import Front
from gateway.limits import Limiter
from gateway.pages import Pages
from gateway.pipeline import Item, Pipeline
from gateway.recall import Embedder, Recall
from gateway.routes import Route, Routes
from gateway.server import Server
from gateway.surfaces.native import NativeSurface
from gateway.surfaces.openai import OpenAISurface
from gateway.telemetry import Telemetry

_log = logging.getLogger(__name__)

# The semantic look-up may cost this much before a request goes on without it.
_EMBED_DEADLINE_S = 0.25


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that runs: where it listens, and how to end it well."""

    host: str
    port: int
    server: Server

    async def drain(self, deadline_s: float) -> None:
        """Take no new requests and let those in progress end within the deadline."""
        await self.server.drain(deadline_s)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Gateway]:
    """Run a gateway for as long as the context lasts.

    Raises `OSError` where it cannot listen, and `StartFailed` where a model's files are missing or wrong.
    """
    async with AsyncExitStack() as stack:
        telemetry = Telemetry()
        fork_server = ForkServer(_worker_environment(settings.devices.gpus))
        stack.push_async_callback(fork_server.close, settings.server.shutdown_timeout_s)
        keeper = Keeper(settings.devices.host_memory.of(psutil.virtual_memory().total), time.monotonic)
        pools = {
            name: _pool(name, model, engine, keeper, _is_embedder(settings, name))
            for name, model in settings.models.items()
            for engine in [await _engine(name, model, fork_server, _providers(settings.devices.gpus))]
        }
        await stack.enter_async_context(learned.kept(_learned_file(settings), pools))
        recall = await _recall(settings.cache, pools, telemetry, stack)
        flights: SingleFlight[Item] = SingleFlight()
        routes = _routes(settings)
        deadline_s = settings.server.request_timeout_s
        pipeline = Pipeline(
            routes, pools, recall, flights, limiter=Limiter(), telemetry=telemetry, deadline_s=deadline_s
        )
        explainer = Explainer(routes, pipeline, recall, deadline_s=deadline_s, clock=time.monotonic)
        gatekeeper = Gatekeeper([(key.name, key.sha256, key.models) for key in settings.server.keys])
        surfaces = (OpenAISurface(), NativeSurface())
        pages = Pages(
            routes=routes,
            pools=pools,
            keeper=keeper,
            telemetry=telemetry,
            gatekeeper=gatekeeper,
            explainer=explainer,
            surfaces={path: surface for surface in surfaces for path in surface.paths},
            clock=time.monotonic,
        )
        telemetry.read_from(lambda: readings.of_pools(pools, time.monotonic()))
        front = Front(surfaces, pages.table(), pipeline, gatekeeper, telemetry)
        server = Server(front.serve, front.refuse, max_body_bytes=settings.server.max_body_bytes)
        listen = settings.server.listen
        host, port = await server.listen(listen.host, listen.port)
        for pool in pools.values():
            keeper.add(pool)
        keeper.start()
        stack.push_async_callback(keeper.close)
        stack.push_async_callback(flights.close)
        stack.push_async_callback(server.drain, 0.0)
        yield Gateway(host, port, server)


def _worker_environment(gpus: Gpus) -> dict[str, str]:
    """Return our environment with the GPUs that our workers may see; a worker uses the first of them."""
    if gpus == "all":
        return dict(os.environ)
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "" if gpus == "none" else ",".join(str(index) for index in gpus)}


def _providers(gpus: Gpus) -> tuple[str, ...]:
    """Return the execution providers of our workers, best first; the runtime takes the first that works."""
    return ("CPUExecutionProvider",) if gpus == "none" else ("CUDAExecutionProvider", "CPUExecutionProvider")


async def _engine(name: str, model: ModelSettings, fork_server: ForkServer, providers: tuple[str, ...]) -> Engine:
    if model.onnx is not None:
        onnx = model.onnx
        return await OnnxEngine.open(onnx.path, fork_server, threads=onnx.threads, providers=providers)
    if model.command is not None:
        command = model.command
        return CommandEngine(
            command.run,
            fork_server=fork_server,
            ready=command.ready,
            model=command.model or name,
            env={key: value.get_secret_value() for key, value in command.env.items()},
            concurrency=command.concurrency,
        )
    assert model.http is not None, "the config room allows exactly one engine"
    http = model.http
    return HttpEngine(
        http.url,
        http.model or name,
        key=None if http.key is None else http.key.get_secret_value(),
        concurrency=http.concurrency,
    )


def _pool(name: str, model: ModelSettings, engine: Engine, keeper: Keeper, is_embedder: bool) -> Pool:
    now = time.monotonic()
    return Pool(
        name,
        engine,
        _limits(model.pool, upstream=model.http is not None, is_embedder=is_embedder),
        costs=ModelCosts(_seed(model)),
        demand=Demand(now),
        clock=time.monotonic,
        wake_keeper=keeper.wake,
    )


def _seed(model: ModelSettings) -> CostSeed:
    """Return what to believe of a model before it was measured: a session holds at least its graph."""
    if model.onnx is None:
        return CostSeed()
    return CostSeed(memory_bytes=(model.onnx.path / "model.onnx").stat().st_size)


def _limits(pool: PoolSettings, *, upstream: bool, is_embedder: bool) -> PoolLimits:
    # An upstream is not started by us: its pool has the one replica that stands for it.
    return PoolLimits(
        min_replicas=1 if upstream else max(pool.min, int(is_embedder)),
        max_replicas=1 if upstream else pool.max,
        queue=pool.queue,
        start_timeout_s=pool.start_timeout_s,
        keep_warm_s=pool.keep_warm_s,
    )


def _is_embedder(settings: Settings, name: str) -> bool:
    """Tell whether the semantic cache asks this model on every miss: then one replica always runs."""
    cache = settings.cache
    return cache is not None and cache.semantic is not None and cache.semantic.embedder == name


async def _recall(
    settings: CacheSettings | None, pools: Mapping[str, Pool], telemetry: Telemetry, stack: AsyncExitStack
) -> Recall | None:
    if settings is None:
        return None
    disk = None
    if settings.exact.disk_bytes:
        disk = DiskStore(settings.directory, settings.exact.disk_bytes)
        await disk.open()
        stack.push_async_callback(disk.close)
    exact = ExactCache(MemoryStore(settings.exact.memory_bytes), disk)
    semantic = embedder = None
    if settings.semantic is not None:
        semantic = SemanticCache(exact, threshold=settings.semantic.threshold or DEFAULT_THRESHOLD)
        stack.callback(semantic.close)
        embedder = _embedder(pools[settings.semantic.embedder])
        if disk is not None:
            _log.info("%d answers can be found by meaning", await semantic.load(disk.meanings()))
    telemetry.read_from(lambda: readings.of_cache(exact, semantic))
    return Recall(
        exact,
        semantic,
        embedder,
        telemetry,
        clock=time.time,
        exact_ttl_s=settings.exact.ttl_s,
        semantic_ttl_s=settings.semantic.ttl_s if settings.semantic else settings.exact.ttl_s,
        embed_deadline_s=_EMBED_DEADLINE_S,
    )


def _embedder(pool: Pool) -> Embedder:
    async def embed(text: str) -> bytes:
        async with aclosing(pool.stream(Job(Task.EMBED, inputs=(text,)))) as events:
            vectors = [event.data async for event in events if type(event) is Vectors]
        return vectors[0]

    return Embedder(pool.engine.version, embed)


def _routes(settings: Settings) -> Routes:
    own = {name: Route(name, (name,)) for name, model in settings.models.items()}
    return Routes(own | {name: _route(name, route) for name, route in settings.routes.items()})


def _route(name: str, route: RouteSettings) -> Route:
    split = route.split or {}
    return Route(
        name,
        candidates=route.candidates or tuple(split),
        weights=tuple(float(weight) for weight in split.values()),
        fallback=route.fallback,
        policy=CachePolicy(
            enabled=route.cache.enabled,
            sampled=route.cache.sampled == "store",
            unstated=route.cache.unstated == "store",
        ),
    )


def _learned_file(settings: Settings) -> Path | None:
    """Return where the learned costs are kept: beside the cache, or nowhere where nothing is to be remembered."""
    return settings.cache.directory / "learned.json" if settings.cache is not None else None
