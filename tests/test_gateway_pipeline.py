"""The request's path over real pools and caches: hits, misses, joining, fallbacks, deadlines, leaving."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from backends.contract import (
    BadJob,
    DeadlineExceeded,
    Finish,
    Job,
    Message,
    Sampling,
    StartFailed,
    Task,
    Text,
    UpstreamFailed,
    Usage,
)
from backends.costs import ModelCosts
from backends.demand import Demand
from backends.keeper import Keeper
from backends.pool import Pool, PoolLimits
from cache.exact import ExactCache
from cache.flight import SingleFlight
from cache.memory import MemoryStore
from cache.semantic.fixed import FixedThreshold
from cache.semantic.lookup import SemanticCache
from gateway.analyze import CachePolicy
from gateway.caching.identity import scoped
from gateway.caching.meaning import Embedded, Embedder
from gateway.caching.recall import Recall
from gateway.callers.limits import Limiter
from gateway.catalog import Catalog
from gateway.counting.model_statistics import ModelStatistics
from gateway.counting.telemetry import Telemetry
from gateway.errors import NotCached, UnknownModel
from gateway.pipeline import Pipeline
from gateway.query import Outcome
from gateway.request import Caller, Directives, Request
from gateway.routes import Route, Routes
from tests.fakes import ANSWER, FakeEngine, VirtualClock, run_virtual

ANYONE = Caller(scope="")
PLAIN = Directives()


def ask(text: str = "hi", model: str = "a", **sampling: Any) -> Request:
    """Make a chat request."""
    job = Job(Task.CHAT, messages=(Message("user", text),), sampling=Sampling(**sampling))
    return Request(model, job, {"messages": [{"role": "user", "content": text}], **sampling}, asked=text)


class House:
    """A pipeline over fake engines, with the memory cache and, if vectors are given, the semantic one."""

    def __init__(self, engines: dict[str, FakeEngine], routes: dict[str, Route] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.engines = engines
        for name, engine in engines.items():
            engine.version = f"{name}-1"
        self.keeper = Keeper(None, loop.time)
        self.pools = {
            name: Pool(
                name,
                engine,
                PoolLimits(max_replicas=1, queue=4, start_timeout_s=30.0),
                costs=ModelCosts(),
                demand=Demand(loop.time()),
                clock=loop.time,
                wake_keeper=self.keeper.wake,
            )
            for name, engine in engines.items()
        }
        self.telemetry = Telemetry()
        self.statistics = ModelStatistics(lambda _: 0)
        self.vectors: dict[str, np.ndarray] = {}
        self.budget_s = 5.0
        self.wall = VirtualClock(1000.0)
        self.max_stale_s = 0.0
        self.exact = ExactCache(MemoryStore(1 << 20, clock=self.wall), None)
        self.semantic: SemanticCache | None = None
        self.flights: SingleFlight[Any] = SingleFlight()
        self.routes = {name: Route(name, (name,)) for name in engines} | (routes or {})
        self.pipeline = self.build()

    def build(self) -> Pipeline:
        """Make the pipeline anew, after a part was exchanged."""
        recall = Recall(
            self.exact,
            self.semantic,
            Embedder("e1", self.embed) if self.semantic else None,
            self.telemetry,
            clock=self.wall,
            exact_ttl_s=60,
            semantic_ttl_s=60,
            budget_s=self.budget_s,
            max_stale_s=self.max_stale_s,
        )
        clock = asyncio.get_running_loop().time
        return Pipeline(
            Routes(self.routes),
            self.pools,
            recall,
            self.flights,
            limiter=Limiter(clock),
            telemetry=self.telemetry,
            statistics=self.statistics,
            catalog=Catalog(self.pools, {}, {}, cached=True, clock=clock),
            deadline_s=100.0,
            clock=clock,
            wall_clock=self.wall,
        )

    async def embed(self, text: str) -> Embedded:
        """Return the vector that the test gave this text."""
        return Embedded(self.vectors[text].astype("<f4").tobytes())

    async def get(self, request: Request, directives: Directives = PLAIN, caller: Caller = ANYONE) -> Outcome:
        """Ask and wait for the whole answer."""
        return await self.pipeline.collect(await self.pipeline.answer(request, caller, directives))


@asynccontextmanager
async def house(engines: dict[str, FakeEngine], routes: dict[str, Route] | None = None) -> AsyncIterator[House]:
    """Run a house, and take it down."""
    built = House(engines, routes)
    for pool in built.pools.values():
        built.keeper.add(pool)
    built.keeper.start()
    try:
        yield built
    finally:
        await built.flights.close()
        await built.keeper.close()


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test in virtual time."""

    def run() -> None:
        run_virtual(test())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@virtual
async def test_repeat_is_an_exact_hit():
    """The same request again is answered from memory, and the model is not asked."""
    async with house({"a": FakeEngine()}) as built:
        first = await built.get(ask())
        again = await built.get(ask())

        assert first.status.header() == "warmgate; fwd=miss; stored"
        assert again.status.hit
        assert again.answer.events == ANSWER
        assert len(built.engines["a"].backends[0].jobs) == 1


@virtual
async def test_tenants_share_nothing():
    """Another scope asks the model itself."""
    async with house({"a": FakeEngine()}) as built:
        await built.get(ask(), caller=Caller("key:one"))
        other = await built.get(ask(), caller=Caller("key:two"))

        assert not other.status.hit


@virtual
async def test_sampled_answers_bypass_the_cache_unless_the_route_says_otherwise():
    """A temperature without a seed is neither stored nor found; a route may say that it is."""
    kept = Route("kept", ("a",), policy=CachePolicy(sampled=True))
    async with house({"a": FakeEngine()}, {"kept": kept}) as built:
        await built.get(ask(temperature=0.9))
        again = await built.get(ask(temperature=0.9))
        await built.get(ask(model="kept", temperature=0.9))
        on_route = await built.get(ask(model="kept", temperature=0.9))

        assert again.status.header() == "warmgate; fwd=bypass; detail=temperature"
        assert on_route.status.hit


@virtual
async def test_client_directives():
    """`no-store` neither reads nor writes, `no-cache` renews, `only-if-cached` never asks a model."""
    async with house({"a": FakeEngine()}) as built:
        with pytest.raises(NotCached):
            await built.get(ask(), Directives(only_if_cached=True))
        await built.get(ask(), Directives(no_store=True))
        assert not (await built.get(ask(), Directives(no_cache=True))).status.hit
        assert (await built.get(ask(), Directives(only_if_cached=True))).status.hit
        assert not (await built.get(ask(), Directives(no_store=True))).status.hit
        assert len(built.engines["a"].backends[0].jobs) == 3


@virtual
async def test_identical_requests_in_flight_share_one_run():
    """Two at a time make one job; the second is told that it was collapsed, and both get the whole answer."""
    engine = FakeEngine((Text("o"), 1.0, Text("k"), Usage(1, 2), Finish("stop")))
    async with house({"a": engine}) as built:
        one, two = await asyncio.gather(built.get(ask()), built.get(ask()))

        assert one.answer.text() == two.answer.text() == "ok"
        assert [one.status.collapsed, two.status.collapsed].count(True) == 1
        assert len(engine.backends[0].jobs) == 1


@virtual
async def test_last_one_to_leave_cancels_the_work():
    """While one waits the work goes on; when the last has left, the backend is told to stop, and nothing is stored."""
    engine = FakeEngine((Text("o"), asyncio.Event(), Finish("stop")))
    async with house({"a": engine}) as built:
        one = await built.pipeline.answer(ask(), ANYONE, PLAIN)
        two = await built.pipeline.answer(ask(), ANYONE, PLAIN)
        await one.seat.leave()
        await asyncio.sleep(1)
        assert engine.backends[0].running == 1

        await two.seat.leave()
        await asyncio.sleep(1)
        assert engine.backends[0].running == 0
        assert len(built.exact.memory) == 0


@virtual
async def test_error_mid_stream_is_raised_and_not_stored():
    """What was said before an error is not an answer."""
    engine = FakeEngine((Text("o"), UpstreamFailed("it broke")))
    async with house({"a": engine}) as built:
        with pytest.raises(UpstreamFailed):
            await built.get(ask())
        assert len(built.exact.memory) == 0


@virtual
async def test_fallback_answers_when_the_first_cannot():
    """A candidate that fails before it began gives way to the next; the answer names who gave it."""
    route = Route("r", ("a",), fallback=("b",))
    async with house({"a": FakeEngine((UpstreamFailed("down"),)), "b": FakeEngine()}, {"r": route}) as built:
        outcome = await built.get(ask(model="r"))

        assert outcome.head.model == "b"
        assert outcome.answer.text() == "yes"


@virtual
async def test_bad_job_is_not_tried_elsewhere():
    """What the client did wrong is told at once."""
    route = Route("r", ("a",), fallback=("b",))
    async with house({"a": FakeEngine((BadJob("too long", "messages"),)), "b": FakeEngine()}, {"r": route}) as built:
        with pytest.raises(BadJob):
            await built.get(ask(model="r"))
        assert not built.engines["b"].backends


@virtual
async def test_faster_candidate_is_preferred():
    """Of two candidates the one with a warm replica gets the request."""
    route = Route("r", ("a", "b"))
    async with house({"a": FakeEngine(start_s=20.0), "b": FakeEngine()}, {"r": route}) as built:
        await built.get(ask("warm b", model="b"))
        outcome = await built.get(ask(model="r"))

        assert outcome.head.model == "b"


@virtual
async def test_pool_that_cannot_start_is_an_error_and_not_a_hang():
    """When starts fail, the request ends with the reason."""
    async with house({"a": FakeEngine(failures=99)}) as built:
        with pytest.raises(StartFailed, match="told to fail"):
            await built.get(ask())


@virtual
async def test_answer_that_stalls_ends_at_the_deadline():
    """A model that falls silent in the middle cannot hold a request beyond its deadline."""
    engine = FakeEngine((Text("o"), asyncio.Event(), Finish("stop")))
    async with house({"a": engine}) as built:
        with pytest.raises(DeadlineExceeded):
            await built.get(ask())
        assert engine.backends[0].running == 0


@virtual
async def test_truncated_answer_is_not_stored():
    """An answer that hit its token limit is served and forgotten."""
    async with house({"a": FakeEngine((Text("o"), Usage(1, 1), Finish("length")))}) as built:
        assert (await built.get(ask())).status.header() == "warmgate; fwd=miss"
        assert not (await built.get(ask())).status.hit


@virtual
async def test_answer_with_a_choice_that_was_cut_off_is_not_stored():
    """Of several choices each must have ended by itself: another's end does not speak for it."""
    events = (Text("a", 0), Text("b", 1), Usage(1, 2), Finish("stop", 0))
    async with house({"a": FakeEngine(events)}) as built:
        assert not (await built.get(ask())).status.hit
        assert not (await built.get(ask())).status.hit


@virtual
async def test_answer_without_usage_is_remembered_with_a_guess():
    """Many streams tell no usage: who is given the same answer later reads a guess rather than zeros."""
    async with house({"a": FakeEngine((Text("four"), Text("letters more"), Finish("stop")))}) as built:
        made = await built.get(ask())
        again = await built.get(ask())

    assert again.status.hit
    assert again.answer is not None
    assert made.answer is not None
    assert again.answer.usage() == made.answer.usage() == Usage(made.features.tokens_in, 4)
    assert again.answer.finish() == "stop"


@virtual
async def test_unknown_model():
    """A name that nobody serves is refused with those that are."""
    async with house({"a": FakeEngine()}) as built:
        with pytest.raises(UnknownModel, match="there are: a"):
            await built.get(ask(model="zzz"))


@virtual
async def test_unreadable_record_is_a_miss():
    """Bytes in the cache that are no answer cost a look at the model, not an error."""
    async with house({"a": FakeEngine()}) as built:
        made = await built.get(ask())
        entry = built.exact.peek(scoped(made.features.fingerprint, "", "a-1"))
        assert entry is not None
        object.__setattr__(entry, "value", b"junk")

        outcome = await built.get(ask())

        assert not outcome.status.hit
        assert outcome.answer.text() == "yes"


async def test_same_meaning_is_a_semantic_hit_in_its_own_partition():
    """A close vector hits; another system prompt, tenant or model does not; an opposite meaning does not."""
    async with house({"a": FakeEngine(), "b": FakeEngine()}) as built:
        built.semantic = SemanticCache(built.exact, trust=FixedThreshold(0.9), clock=lambda: 1000.0)
        built.pipeline = built.build()
        near = np.zeros(8)
        near[:2] = (0.98, np.sqrt(1 - 0.98**2))
        built.vectors = {
            "what is the capital of france": np.eye(8)[0],
            "tell me the capital of france": near,
            "what is the capital of spain": np.eye(8)[3],
        }
        await built.get(ask("what is the capital of france"))

        hit = await built.get(ask("tell me the capital of france"))
        far = await built.get(ask("what is the capital of spain"))
        other_model = await built.get(ask("tell me the capital of france", model="b"))
        other_tenant = await built.get(ask("tell me the capital of france"), caller=Caller("key:x"))
        other_limit = await built.get(ask("tell me the capital of france", max_tokens=9))

        assert hit.status.header().startswith("warmgate; hit; ttl=")
        assert hit.status.detail == "semantic"
        assert hit.status.matched == "what is the capital of france"
        assert [other.status.hit for other in (far, other_model, other_tenant, other_limit)] == [False] * 4
        await built.semantic.close()


async def test_run_that_ended_during_a_look_up_is_not_repeated():
    """A request whose twin began and ended while it waited for its vector is answered from what the twin left."""
    async with house({"a": FakeEngine()}) as built:
        built.semantic = SemanticCache(built.exact, trust=FixedThreshold(0.9), clock=lambda: 1000.0)
        held, go_on = asyncio.Event(), asyncio.Event()

        async def embed(_: str) -> Embedded:
            held.set()
            await go_on.wait()
            return Embedded(np.eye(8)[0].astype("<f4").tobytes())

        built.embed = embed
        built.pipeline = built.build()
        slow = asyncio.create_task(built.get(ask()))
        await held.wait()
        await built.get(ask(), Directives(no_cache=True))
        go_on.set()

        assert (await slow).status.hit
        assert len(built.engines["a"].backends[0].jobs) == 1
        await built.semantic.close()
