"""Requests that mean the same, in flight at once: one call of the model serves them where it would have been a hit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from backends.contract import BackendError, Finish, Text, Usage
from cache.contract import Meaning
from cache.semantic.fixed import FixedThreshold
from cache.semantic.lookup import SemanticCache
from gateway.caching.meaning import Embedded
from gateway.pipeline import Outcome
from gateway.request import Caller, Directives, Request
from tests.fakes import ANSWER, FakeEngine
from tests.test_gateway_pipeline import House, ask, house

FIRST = "what is the capital of france"
ALIKE = "tell me the capital of france"
ASKED = "tell me the capital of france?"
OTHER = "what is the capital of spain"
NEAR = np.array([0.98, np.sqrt(1 - 0.98**2), 0, 0, 0, 0, 0, 0])
VECTORS = {FIRST: np.eye(8)[0], ALIKE: NEAR, ASKED: NEAR, OTHER: NEAR}


@asynccontextmanager
async def city(*script: object) -> AsyncIterator[House]:
    """Run a house with the semantic cache; every vector is near every other, so that the guards decide."""
    async with house({"a": FakeEngine(script, concurrency=8)}) as built:
        built.semantic = SemanticCache(built.exact, trust=FixedThreshold(0.9), clock=lambda: 1000.0)
        built.pipeline = built.build()
        built.vectors = VECTORS
        yield built
        await built.semantic.close()


def begin(built: House, request: Request, caller: Caller | None = None) -> "asyncio.Task[Outcome]":
    """Ask, and do not wait."""
    return asyncio.create_task(built.get(request, caller=caller or Caller(scope="")))


async def asked(built: House, count: int) -> None:
    """Wait until the model works on so many jobs."""
    engine = built.engines["a"]
    while not engine.backends or len(engine.backends[0].jobs) < count:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def following(built: House, count: int) -> None:
    """Wait until so many requests wait for another one's answer."""
    while sum(question.follows for question in built.semantic.airborne._questions.values()) < count:  # noqa: ASYNC110
        await asyncio.sleep(0)


def jobs(built: House) -> int:
    """Return how often the model was asked."""
    return len(built.engines["a"].backends[0].jobs)


async def test_near_duplicates_in_flight_make_one_call():
    """The later waits for the earlier's answer, and says so; what is kept is found by both afterwards."""
    go_on = asyncio.Event()
    async with city(go_on, *ANSWER) as built:
        first = begin(built, ask(FIRST))
        await asked(built, 1)
        second = begin(built, ask(ALIKE))
        await following(built, 1)
        go_on.set()

        assert (await first).status.header() == "warmgate; fwd=miss; stored"
        joined = await second
        assert joined.status.header() == "warmgate; fwd=miss; collapsed; ttl=60; detail=semantic"
        assert joined.answer.text() == "yes"
        assert jobs(built) == 1
        assert len(built.semantic.airborne) == 0


async def test_a_burst_of_near_duplicates_makes_one_call():
    """Whoever is looked up at the same moment is found too, though no work has begun for it yet."""
    async with city(*ANSWER) as built:
        outcomes = await asyncio.gather(*[built.get(ask(text)) for text in (FIRST, ALIKE) * 8])

        assert {outcome.answer.text() for outcome in outcomes} == {"yes"}
        assert jobs(built) == 1


async def test_identical_requests_that_arrive_together_share_the_work_live():
    """The later waits for no end: it is the same request, and reads along; no audit asks after its answer."""
    go_on = asyncio.Event()
    async with city(ANSWER[0], go_on, *ANSWER[1:]) as built:
        asking = [built.pipeline.answer(ask(FIRST), Caller(scope=""), Directives()) for _ in range(2)]
        outcomes = await asyncio.gather(*asking)
        assert not go_on.is_set()
        go_on.set()

        answers = await asyncio.gather(*[built.pipeline.collect(outcome) for outcome in outcomes])
        assert [outcome.answer.text() for outcome in answers] == ["yes", "yes"]
        assert sorted(outcome.status.collapsed for outcome in answers) == [False, True]
        assert all(outcome.status.detail != "semantic" for outcome in answers)
        assert jobs(built) == 1


@pytest.mark.parametrize(
    "other",
    [
        (ask(OTHER), Caller("")),
        (ask(ALIKE), Caller("key:x")),
        (ask(ALIKE, max_tokens=5), Caller("")),
    ],
    ids=["another question", "another tenant", "other parameters"],
)
async def test_what_would_be_no_hit_does_not_join(other):
    """Guards and partitions part questions in flight as they part stored ones."""
    go_on = asyncio.Event()
    async with city(go_on, *ANSWER) as built:
        first = begin(built, ask(FIRST))
        await asked(built, 1)
        second = begin(built, *other)
        await asked(built, 2)
        go_on.set()

        await asyncio.gather(first, second)
        assert jobs(built) == 2


async def test_an_answer_that_may_not_be_kept_serves_nobody_else():
    """The answer turns out to be cut off: who waited for it asks the model itself."""
    go_on = asyncio.Event()
    async with city(go_on, Text("yes, becau"), Usage(3, 1), Finish("length")) as built:
        first = begin(built, ask(FIRST))
        await asked(built, 1)
        second = begin(built, ask(ALIKE))
        await following(built, 1)
        go_on.set()

        assert not (await first).status.stored
        assert (await second).status.header() == "warmgate; fwd=miss"
        assert jobs(built) == 2


async def test_a_failure_is_not_shared():
    """The earlier request fails; the later asks for itself, and has its own trouble or none."""
    go_on = asyncio.Event()
    async with city(go_on, BackendError("the model is ill")) as built:
        first = begin(built, ask(FIRST))
        await asked(built, 1)
        second = begin(built, ask(ALIKE))
        await following(built, 1)
        go_on.set()

        for request in (first, second):
            with pytest.raises(BackendError, match="ill"):
                await request
        assert jobs(built) == 2


async def test_work_goes_on_for_who_waits_when_the_first_has_left():
    """The one whose question it is hangs up; the answer comes all the same, for the other."""
    go_on = asyncio.Event()
    async with city(go_on, *ANSWER) as built:
        first = begin(built, ask(FIRST))
        await asked(built, 1)
        second = begin(built, ask(ALIKE))
        await following(built, 1)
        first.cancel()
        await asyncio.wait([first])
        go_on.set()

        assert (await second).status.collapsed
        assert jobs(built) == 1


async def test_who_waits_may_leave():
    """The later one hangs up: the earlier is answered, and nothing is left behind."""
    go_on = asyncio.Event()
    async with city(go_on, *ANSWER) as built:
        first = begin(built, ask(FIRST))
        await asked(built, 1)
        second = begin(built, ask(ALIKE))
        await following(built, 1)
        second.cancel()
        await asyncio.wait([second])
        go_on.set()

        assert (await first).status.stored
        assert len(built.semantic.airborne) == 0


async def test_a_question_that_found_its_answer_in_a_cache_holds_up_nobody():
    """The earlier one is looked up while the later waits for it: both are served, and the model is not asked again."""
    async with city(*ANSWER) as built:
        await built.get(ask(FIRST))
        outcomes = await asyncio.gather(built.get(ask(ALIKE)), built.get(ask(ASKED)))

        assert [outcome.status.detail for outcome in outcomes] == ["semantic", "semantic"]
        assert jobs(built) == 1
        assert len(built.semantic.airborne) == 0


async def test_an_answer_whose_vector_comes_late_is_found_by_its_meaning():
    """The request goes on after its budget; the vector comes after the answer, which is then found by it."""
    held = asyncio.Event()
    async with city(*ANSWER) as built:
        told = built.embed

        async def embed(text: str) -> Embedded:
            await held.wait()
            return await told(text)

        built.embed, built.budget_s = embed, 0.001
        built.pipeline = built.build()
        assert (await built.get(ask(FIRST))).status.header() == "warmgate; fwd=miss; stored"
        assert b'warmgate_semantic_lookups_total{result="deadline"} 1.0' in built.telemetry.exposition()
        held.set()
        while not built.semantic.entries:  # noqa: ASYNC110
            await asyncio.sleep(0)
        built.embed, built.budget_s = told, 5.0
        built.pipeline = built.build()

        assert (await built.get(ask(ALIKE))).status.detail == "semantic"


async def test_a_text_is_embedded_once():
    """The vector of a text is remembered, and one that is on its way is waited for by all who ask."""
    texts: list[str] = []
    async with city(*ANSWER) as built:
        told = built.embed

        async def embed(text: str) -> Embedded:
            texts.append(text)
            await asyncio.sleep(0)
            return await told(text)

        built.embed = embed
        built.pipeline = built.build()
        await asyncio.gather(*[built.get(ask(FIRST), Directives(max_age_s=at)) for at in range(5)])
        await built.get(ask(FIRST, max_tokens=7))

        assert texts == [FIRST]


async def test_a_verifier_that_hangs_costs_one_budget():
    """What the search of the cache has used up is not spent again on those in flight: the model is asked."""
    asked_of: list[str] = []

    class Hanging:
        version = "v1"

        async def verify(self, asked: Meaning, stored: list[Meaning]) -> list[float]:
            """Never answer."""
            asked_of.append(asked.text)
            await asyncio.Event().wait()
            return [0.0] * len(stored)

    go_on = asyncio.Event()
    go_on.set()
    async with city(go_on, *ANSWER) as built:
        built.budget_s = 0.01
        built.semantic.judge.verifier = Hanging()
        built.pipeline = built.build()
        await built.get(ask(FIRST))
        go_on.clear()
        first = begin(built, ask(ALIKE))
        await asked(built, 2)
        second = begin(built, ask(ASKED))
        await asked(built, 3)
        go_on.set()
        for each in (first, second):
            assert (await each).status.header() == "warmgate; fwd=miss; stored"
        assert asked_of == [ALIKE, ASKED]
