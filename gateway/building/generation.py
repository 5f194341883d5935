"""Builds one generation of the gateway: all that a set of settings stands for, over what it shares with the last."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.contract import Task
from backends.forkserver.client import ForkServer
from backends.hints import Credits
from backends.keeper import Keeper
from backends.pool import Pool
from cache.flight import SingleFlight
from config.settings import RouteSettings, Settings
from gateway.analyze import CachePolicy
from gateway.batch.service import Batches
from gateway.building.batches import batch_table
from gateway.building.caches import Caches, cache_table, recall_of
from gateway.building.keys import keys_of
from gateway.building.trusting import auditor_of
from gateway.callers.auth import Gatekeeper, Key
from gateway.callers.limits import Limiter
from gateway.catalog import Catalog
from gateway.counting.model_statistics import ModelStatistics
from gateway.counting.telemetry import Telemetry
from gateway.front import Front
from gateway.lane.heads import Heads
from gateway.lane.hits import Hits
from gateway.lane.lane import Lane
from gateway.lane.passing import Passage
from gateway.openapi.document import document
from gateway.pages.explain import Explainer
from gateway.pages.hinting import Hinting, HintPages
from gateway.pages.oip_pages import OipPages
from gateway.pages.pages import Pages
from gateway.pages.token_counts import TokenCounts
from gateway.paths import Paths
from gateway.pipeline import Pipeline
from gateway.routes import Route, Routes
from gateway.running import Item
from gateway.surfaces.anthropic import AnthropicSurface
from gateway.surfaces.native import NativeSurface
from gateway.surfaces.oip.surface import OipSurface
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.relays import RelaySurface
from gateway.surfaces.responses import ResponsesSurface
from gateway.surfaces.wire import JSON, Call, Reply, Surface
from gateway.trust.audit import Auditor


@dataclass(frozen=True, slots=True)
class Lasting:
    """What outlives every generation. `config_state` tells the operator of the file and its last edit."""

    keeper: Keeper
    flights: SingleFlight[Item]
    limiter: Limiter
    telemetry: Telemetry
    statistics: ModelStatistics
    credits: Credits
    config_state: Callable[[], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a generation may take over from the one before."""

    forks: ForkServer
    pools: Mapping[str, Pool]
    caches: Caches | None
    batches: Batches | None


@dataclass(frozen=True, slots=True)
class Generation:
    """What answers under one set of settings."""

    settings: Settings
    parts: Parts
    gatekeeper: Gatekeeper
    catalog: Catalog
    pipeline: Pipeline
    front: Front
    lane: Lane

    def narrow(self, newest: Sequence[Key]) -> None:
        """Let no key open more than these do from the next request on, be its head known or not."""
        self.gatekeeper.narrow(newest)
        self.lane.heads.forget()


def generation_of(settings: Settings, parts: Parts, lasting: Lasting) -> Generation:
    """Put the parts together; nothing is started, and nothing can fail."""
    pools, caches = parts.pools, parts.caches
    embedder = _embedder(settings, pools)
    recall = None if caches is None else recall_of(caches, embedder, lasting.telemetry, _verifier(settings, pools))
    routes = _routes(settings)
    deadline_s = settings.server.request_timeout_s
    catalog = _catalog(settings, pools, routes)
    pipeline = Pipeline(
        routes,
        pools,
        recall,
        lasting.flights,
        limiter=lasting.limiter,
        telemetry=lasting.telemetry,
        statistics=lasting.statistics,
        catalog=catalog,
        deadline_s=deadline_s,
        auditor=_auditor(settings, parts, lasting),
    )
    server = settings.server
    gatekeeper = Gatekeeper(keys_of(server), hosts=(server.listen.host, *server.hosts))
    openai, anthropic, oip = OpenAISurface(), AnthropicSurface(), OipSurface(catalog.find)
    surfaces: Sequence[Surface] = (openai, ResponsesSurface(), anthropic, oip, RelaySurface(), NativeSurface())
    pages = Pages(
        routes=routes,
        pools=pools,
        catalog=catalog,
        keeper=lasting.keeper,
        telemetry=lasting.telemetry,
        gatekeeper=gatekeeper,
        explainer=Explainer(routes, pipeline, recall, catalog, deadline_s=deadline_s, clock=time.monotonic),
        config_state=lasting.config_state,
        surfaces=Paths({path: surface for surface in surfaces for path in surface.paths}),
        clock=time.monotonic,
    )
    counting = [name for name, model in settings.models.items() if model.http and model.http.api == "anthropic"]
    counts = TokenCounts(routes, pipeline, gatekeeper, counting)
    protocol = OipPages(catalog=catalog, statistics=lasting.statistics, gatekeeper=gatekeeper, surface=oip)
    upstreams = [name for name, model in settings.models.items() if model.http]
    hinting = Hinting(routes, pools, lasting.credits, lasting.telemetry, upstreams=upstreams)
    table = {
        **pages.table(),
        **HintPages(hinting, gatekeeper).table(),
        **protocol.table(),
        **batch_table(parts.batches, settings, routes, gatekeeper),
        **cache_table(caches, lasting.telemetry, settings.models),
        ("POST", "/v1/messages/count_tokens"): counts.page,
        ("GET", "/openapi.json"): _described,
    }
    front = Front(surfaces, table, pipeline, gatekeeper, lasting.telemetry)
    front.on_next = hinting.next_of
    if caches is not None:
        front.on_outcome = caches.recent.note
    lane = _lane(settings, parts, lasting, routes=routes, front=front, surface=openai)
    return Generation(settings, parts, gatekeeper, catalog, pipeline, front, lane)


def _auditor(settings: Settings, parts: Parts, lasting: Lasting) -> Auditor | None:
    trusting = None if parts.caches is None else parts.caches.trusting
    if trusting is None or settings.cache is None or settings.cache.semantic is None:
        return None
    return auditor_of(trusting, settings.cache.semantic, parts.pools, lasting.telemetry)


def _lane(
    settings: Settings, parts: Parts, lasting: Lasting, *, routes: Routes, front: Front, surface: Surface
) -> Lane:
    """Make what answers and passes on by bytes; models of our own workers are sent no request as it came."""
    statistics, caches, hits, passage = lasting.statistics, parts.caches, None, None
    if caches is not None:
        hits = Hits(
            routes,
            parts.pools,
            caches.exact,
            limiter=lasting.limiter,
            telemetry=lasting.telemetry,
            statistics=statistics,
        )
        front.on_hit = hits.learn
        caches.recent.served_by_bytes = hits.key_of
    if others := {name: parts.pools[name] for name, model in settings.models.items() if model.onnx is None}:
        deadline_s = settings.server.request_timeout_s
        passage = Passage(surface, routes, others, front, statistics=statistics, deadline_s=deadline_s)
    return Lane(Heads(front.gatekeeper, settings.server.max_body_bytes), hits, passage)


async def _described(call: Call) -> Reply:
    del call
    return Reply(200, {"Content-Type": JSON}, document())


def _catalog(settings: Settings, pools: Mapping[str, Pool], routes: Routes) -> Catalog:
    semantic = None if settings.cache is None else settings.cache.semantic
    return Catalog(
        pools,
        {name: Task(model.task) for name, model in settings.models.items()},
        {name: (*routes.named(name).candidates, *routes.named(name).fallback) for name in routes.names},
        cached=settings.cache is not None,
        needed=() if semantic is None else {semantic.embedder, semantic.verifier or semantic.embedder},
    )


def _verifier(settings: Settings, pools: Mapping[str, Pool]) -> Pool | None:
    semantic = None if settings.cache is None else settings.cache.semantic
    return None if semantic is None or semantic.verifier is None else pools[semantic.verifier]


def _embedder(settings: Settings, pools: Mapping[str, Pool]) -> Pool | None:
    cache = settings.cache
    return None if cache is None or cache.semantic is None else pools[cache.semantic.embedder]


def _routes(settings: Settings) -> Routes:
    own = {name: Route(name, (name,)) for name in settings.models}
    semantic = None if settings.cache is None else settings.cache.semantic
    # A verifier weighs pairs of questions for us: it has no answer that a client would ask for.
    verifier = None if semantic is None else semantic.verifier
    unlisted = () if verifier is None or verifier in settings.routes else (verifier,)
    return Routes(own | {name: _route(name, route) for name, route in settings.routes.items()}, unlisted)


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
            truncated=route.cache.truncated == "store",
            ttl_s=route.cache.ttl_s,
            tags=route.cache.tags,
            fallback=route.cache.fallback,
            items=route.cache.items,
            semantic=route.cache.semantic,
            obey_upstream=route.cache.obey_upstream,
        ),
    )
