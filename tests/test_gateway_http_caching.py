"""What clients say of the caches, over the whole path: stale answers, renewals, routes' times, tags and fallbacks."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from backends.contract import BadJob, Dispatched, Finish, Text, UpstreamFailed, Usage
from cache.semantic.fixed import FixedThreshold
from cache.semantic.lookup import SemanticCache
from gateway.analyze import CachePolicy
from gateway.caching.cache_control import parse
from gateway.caching.identity import scoped
from gateway.catalog import Catalog
from gateway.errors import NotCached
from gateway.pages.explain import Explainer
from gateway.query import Outcome
from gateway.request import Caller, Directives, Limits
from gateway.routes import Route, Routes
from tests.fakes import FakeEngine
from tests.test_gateway_neighbours import ALIKE, FIRST, VECTORS
from tests.test_gateway_pipeline import ANYONE, House, ask, house, virtual


def said(text: str) -> tuple[Any, ...]:
    """Return the script of a model that says this."""
    return (Text(text), Usage(3, 1), Finish("stop"))


def keeping(built: House, max_stale_s: float = 50.0) -> House:
    """Let a house keep stale answers; they are fresh for 60 seconds."""
    built.max_stale_s = max_stale_s
    built.pipeline = built.build()
    return built


def entry_of(built: House, made: Outcome) -> Any:
    """Return what is in memory of an answer."""
    return built.exact.peek(scoped(made.features.fingerprint, made.features.scope, made.head.version))


def script(built: House, *steps: object) -> None:
    """Have the model do this from now on."""
    built.engines["a"].backends[0].script = steps


async def settled(built: House) -> None:
    """Wait until nothing is made any more."""
    await built.pipeline.accounts.until_idle()


@virtual
async def test_stale_answer_is_served_to_who_accepts_it():
    """Past its time an answer is a miss, which says so; with `max-stale` it is served, with a negative `ttl`."""
    async with house({"a": FakeEngine()}) as built:
        keeping(built)
        await built.get(ask())
        built.wall.advance(70)

        old = await built.get(ask(), parse("max-stale=20"))
        with pytest.raises(NotCached):
            await built.get(ask(), parse("only-if-cached"))
        missed = await built.get(ask())

        assert old.status.header() == "warmgate; hit; ttl=-10; detail=exact"
        assert old.status.age_s == 70
        assert missed.status.header() == "warmgate; fwd=stale; stored"


@virtual
async def test_operator_sets_the_limit_of_what_is_stale():
    """What a client accepts does not matter where the operator keeps nothing past its time, or not for so long."""
    async with house({"a": FakeEngine()}) as built:
        await built.get(ask())
        built.wall.advance(61)
        assert (await built.get(ask(), parse("max-stale"))).status.header() == "warmgate; fwd=miss; stored"

        keeping(built)
        await built.get(ask(), Directives(no_cache=True))
        keeping(built, 5.0)
        built.wall.advance(70)
        assert (await built.get(ask(), parse("max-stale"))).status.header() == "warmgate; fwd=stale; stored"


@virtual
async def test_an_answer_that_is_too_old_for_a_client_is_told_from_none():
    """`fwd=request` says that the client's own words kept it from a fresh answer."""
    async with house({"a": FakeEngine()}) as built:
        await built.get(ask())
        built.wall.advance(10)
        assert (await built.get(ask(), parse("max-age=5"))).status.forward == "request"
        assert (await built.get(ask(), parse("min-fresh=70"))).status.forward == "request"


@virtual
async def test_stale_while_revalidate_serves_at_once_and_renews_once():
    """The stale answer goes out without waiting for the model, which is asked once however many ask meanwhile."""
    async with house({"a": FakeEngine(said("old"))}) as built:
        keeping(built)
        await built.get(ask())
        gate = asyncio.Event()
        script(built, gate, *said("new"))
        built.wall.advance(70)

        served = [await built.get(ask(), parse("stale-while-revalidate=20")) for _ in range(3)]
        await asyncio.sleep(1)
        jobs = built.engines["a"].backends[0].jobs
        assert [each.answer.text() for each in served if each.answer] == ["old"] * 3
        assert served[0].status.header() == "warmgate; hit; ttl=-10; detail=exact"
        assert len(jobs) == 2
        assert jobs[1].background

        gate.set()
        await settled(built)
        renewed = await built.get(ask())
        assert renewed.status.hit
        assert renewed.answer is not None
        assert (renewed.answer.text(), renewed.status.age_s) == ("new", 0)
        assert built.telemetry.exposition().count(b'warmgate_cache_renewals_total{result="renewed"} 1.0') == 1


@virtual
async def test_renewal_that_fails_leaves_the_stale_answer():
    """Nobody is told of its error: it is counted."""
    async with house({"a": FakeEngine(said("old"))}) as built:
        keeping(built)
        await built.get(ask())
        script(built, UpstreamFailed("down"))
        built.wall.advance(70)

        for _ in range(2):
            outcome = await built.get(ask(), parse("stale-while-revalidate=20"))
            assert outcome.status.hit
            await settled(built)
            await asyncio.sleep(0.1)

        assert b'warmgate_cache_renewals_total{result="UpstreamFailed"} 2.0' in built.telemetry.exposition()


@virtual
async def test_renewal_is_on_the_account_of_who_was_served():
    """A caller whose limits leave no room for it is served what is stale, and nothing is made anew."""
    caller = Caller("key:a", limits=Limits(requests_per_minute=3))
    async with house({"a": FakeEngine(said("old"))}) as built:
        keeping(built)
        await built.get(ask(), caller=caller)
        built.wall.advance(70)
        await built.get(ask(), parse("stale-while-revalidate=20"), caller=caller)
        await settled(built)
        await asyncio.sleep(0.1)

        assert len(built.engines["a"].backends[0].jobs) == 1
        assert b'warmgate_cache_renewals_total{result="RateLimited"} 1.0' in built.telemetry.exposition()


@virtual
async def test_renewal_that_hangs_ends_when_the_pipeline_is_closed():
    """No task outlives its owner."""
    async with house({"a": FakeEngine(said("old"))}) as built:
        keeping(built)
        await built.get(ask())
        script(built, asyncio.Event())
        built.wall.advance(70)
        await built.get(ask(), parse("stale-while-revalidate=20"))
        await asyncio.sleep(1)
        assert built.engines["a"].backends[0].running == 1

        await built.pipeline.close()
        await settled(built)
        await asyncio.sleep(1)
        assert built.engines["a"].backends[0].running == 0


@pytest.mark.parametrize("failing", [(UpstreamFailed("down"),), (Text("o"), UpstreamFailed("down", 503))])
@pytest.mark.parametrize("words", ["stale-if-error=20", "no-cache, stale-if-error=20"])
def test_stale_if_error_stands_in_for_an_outage(failing, words):
    """Where no model can answer, the stale answer does; the header tells that, and which error it was."""

    @virtual
    async def run() -> None:
        async with house({"a": FakeEngine(said("old"))}) as built:
            keeping(built)
            await built.get(ask())
            script(built, *failing)
            built.wall.advance(70)
            with pytest.raises(UpstreamFailed):
                await built.get(ask())

            outcome = await built.get(ask(), parse(words))

            assert outcome.answer is not None
            assert outcome.answer.text() == outcome.answer.text() == "old"
            status = failing[-1].status or 502
            expected = f"warmgate; fwd=stale; fwd-status={status}; ttl=-10; detail=stale-if-error"
            assert outcome.status.header() == expected

    run()


@virtual
async def test_streams_are_served_stale_too():
    """A client that wants pieces gets the stale ones at once, or in place of an error that comes before any piece."""
    streamed = ask()
    streamed = replace(streamed, job=replace(streamed.job, stream=True))
    async with house({"a": FakeEngine(said("old"))}) as built:
        keeping(built)
        await built.get(streamed)
        built.wall.advance(70)

        at_once = await built.pipeline.answer(streamed, ANYONE, parse("stale-while-revalidate=20"))
        assert at_once.status.header() == "warmgate; hit; ttl=-10; detail=exact"
        script(built, UpstreamFailed("down"))
        await asyncio.sleep(0.1)
        await settled(built)
        instead = await built.pipeline.answer(streamed, ANYONE, parse("stale-if-error=60, no-cache"))
        assert instead.answer is not None
        assert instead.answer.text() == "old"
        assert instead.status.forward == "stale"


@virtual
async def test_stale_if_error_does_not_hide_what_the_client_did_wrong():
    """A refusal is none of the errors that RFC 5861 means."""
    async with house({"a": FakeEngine()}) as built:
        keeping(built)
        await built.get(ask())
        script(built, BadJob("too long"))
        built.wall.advance(70)
        with pytest.raises(BadJob):
            await built.get(ask(), parse("stale-if-error=20"))


@virtual
async def test_reading_does_not_prolong():
    """However often an answer is served, it ends when it was to end."""
    async with house({"a": FakeEngine()}) as built:
        await built.get(ask())
        for _ in range(5):
            built.wall.advance(11)
            assert (await built.get(ask())).status.hit
        built.wall.advance(5)
        assert not (await built.get(ask())).status.hit


@virtual
async def test_route_says_for_how_long_and_in_which_groups():
    """Its answers have its own time; they can be purged by tenant, route, model, version and every tag."""
    policy = CachePolicy(ttl_s=10, tags=("news",))
    async with house({"a": FakeEngine()}, {"r": Route("r", ("a",), policy=policy)}) as built:
        made = await built.get(ask(model="r"), Directives(tags=("eu", "news")), Caller("key:one"))
        entry = entry_of(built, made)
        assert entry.expires_at - entry.stored_at == 10
        assert set(entry.groups) == {"scope:key:one", "route:r", "model:a", "version:a-1", "tag:news", "tag:eu"}


@virtual
async def test_a_time_that_is_made_shorter_holds_for_what_was_kept_before():
    """Of the time that an answer was kept for and the one that holds now the shorter counts; a longer one adds none."""
    async with house({"a": FakeEngine()}, {"r": Route("r", ("a",), policy=CachePolicy(ttl_s=40))}) as built:

        def edited(ttl_s: float) -> None:
            built.routes["r"] = Route("r", ("a",), policy=CachePolicy(ttl_s=ttl_s))
            keeping(built)

        await built.get(ask(model="r"))
        edited(10)
        built.wall.advance(9)
        assert (await built.get(ask(model="r"))).status.ttl_s == 1
        built.wall.advance(2)
        assert (await built.get(ask(model="r"), parse("max-stale"))).status.ttl_s == -1
        with pytest.raises(NotCached):
            await built.get(ask(model="r"), parse("only-if-cached"))
        edited(1000)
        assert (await built.get(ask(model="r"))).status.ttl_s == 29


@virtual
async def test_a_shorter_time_holds_for_what_is_found_by_meaning():
    """It is gone when the answer would be, had it been kept under today's settings."""
    async with house({"a": FakeEngine()}, {"r": Route("r", ("a",))}) as built:
        built.semantic = SemanticCache(built.exact, trust=FixedThreshold(0.9), clock=built.wall)
        built.vectors = VECTORS
        built.pipeline = built.build()
        await built.get(ask(FIRST, model="r"))
        built.routes["r"] = Route("r", ("a",), policy=CachePolicy(ttl_s=10))
        built.pipeline = built.build()
        built.wall.advance(9)
        assert (await built.get(ask(ALIKE, model="r"))).status.ttl_s == 1
        built.wall.advance(2)
        pipeline, catalog = built.pipeline, Catalog(built.pools, {}, {}, cached=True)
        explainer = Explainer(
            Routes(built.routes), pipeline, pipeline._recall, catalog, deadline_s=60.0, clock=lambda: 0.0
        )
        (told,) = (await explainer.explain(ask(ALIKE, model="r"), Directives()))["cache"]["semantic"].values()
        assert (told["hit"], told["reason"]) == (False, "gone")
        late = await built.get(ask(ALIKE, model="r"))
        assert late.sought is not None
        assert (late.status.hit, late.sought.found.reason) == (False, "gone")
        await built.semantic.close()


@virtual
async def test_answer_of_a_fallback_is_found_unless_the_route_says_otherwise():
    """It is kept under the version that made it; a repeat looks there after the models that come first."""
    routes = {
        name: Route(name, ("a",), fallback=("b",), policy=CachePolicy(fallback=name == "open"))
        for name in ("open", "strict")
    }
    for name in routes:
        async with house({"a": FakeEngine((UpstreamFailed("down"),)), "b": FakeEngine()}, routes) as built:
            assert (await built.get(ask(model=name))).head.model == "b"
            again = await built.get(ask(model=name))
            assert again.status.hit is (name == "open")

            script(built, *said("better"))
            await built.get(ask(model=name), Directives(no_cache=True))
            best = await built.get(ask(model=name))
            assert (best.head.model, best.status.hit) == ("a", True)


@virtual
async def test_explain_tells_the_keys_of_fallbacks_where_their_answers_are_served():
    """By such a key the answer of a fallback can be purged."""
    routes = {
        name: Route(name, ("a",), fallback=("b",), policy=CachePolicy(fallback=name == "open"))
        for name in ("open", "strict")
    }
    async with house({"a": FakeEngine(), "b": FakeEngine()}, routes) as built:
        pipeline, catalog = built.pipeline, Catalog(built.pools, {}, {}, cached=True)
        explainer = Explainer(
            Routes(built.routes), pipeline, pipeline._recall, catalog, deadline_s=60.0, clock=lambda: 0.0
        )
        for name, versions in (("open", ["a-1", "b-1"]), ("strict", ["a-1"])):
            told = await explainer.explain(ask(model=name), Directives())
            assert list(told["cache"]["keys"]) == versions


@virtual
async def test_stored_is_said_only_of_what_was():
    """An answer that is larger than memory is not claimed to be stored, nor is one that its follower had no part in."""
    async with house({"a": FakeEngine((Text("x" * (2 << 20)), Usage(1, 1), Finish("stop")))}) as built:
        assert (await built.get(ask())).status.header() == "warmgate; fwd=miss"
        script(built, 1.0, *said("small"))
        both = await asyncio.gather(built.get(ask()), built.get(ask()))
        assert sorted(each.status.header() for each in both) == [
            "warmgate; fwd=miss; collapsed",
            "warmgate; fwd=miss; stored",
        ]


@pytest.mark.parametrize(
    ("unkept", "obeys", "kept"),
    [("no-store", False, True), ("no-store", True, False), ("status 203", False, False), ("status 203", True, False)],
)
def test_what_an_upstream_says_of_keeping_is_heard(unkept, obeys, kept):
    """Its answer is served like any other; `no-store` is obeyed where the route says so, a status always."""
    forbids = Dispatched("", queue_s=0.0, start_s=0.0, unkept=unkept)

    @virtual
    async def run() -> None:
        route = Route("r", ("a",), policy=CachePolicy(obey_upstream=obeys))
        async with house({"a": FakeEngine((forbids, *said("once")))}, {"r": route}) as built:
            made = await built.get(ask(model="r"))
            again = await built.get(ask(model="r"))
            assert made.answer is not None
            assert (made.answer.text(), made.head.unkept) == ("once", unkept)
            assert (made.status.stored, again.status.hit) == (kept, kept)

    run()
