"""Requests with several inputs: each input is cached for itself, and what is put together is what was asked for."""

import asyncio
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import BadJob, Event, Finish, Job, Scores, Task, UpstreamFailed, Usage, Vectors
from gateway.analyze import CachePolicy
from gateway.answer import Answer, Head
from gateway.caching.cache_control import parse
from gateway.caching.items import parted, shares
from gateway.errors import NotCached
from gateway.query import Outcome
from gateway.request import Caller, Directives, Request
from gateway.routes import Route
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.wire import Call
from tests.fakes import FakeBackend, FakeEngine
from tests.test_gateway_pipeline import House, house, virtual


def embedding(*texts: str, **more: Any) -> Request:
    """Make a request to embed texts."""
    body = orjson.dumps({"model": "a", "input": texts if len(texts) != 1 else texts[0], **more})
    return OpenAISurface().decode(Call("POST", "/v1/embeddings", {}, body, None), "0" * 24)[0]


def row(text: str, salt: float = 0.0) -> list[float]:
    """Return the vector of a text."""
    return [float(len(text)), float(ord(text[0])), salt]


class Rows(FakeBackend):
    """Embeds, or classifies, whatever texts a job has; a token for each letter."""

    salt = 0.0
    kind: type[Vectors | Scores] = Vectors
    error: Exception | None = None
    gate: asyncio.Event | None = None

    async def stream(self, job: Job):  # type: ignore[override]
        """Answer a job."""
        self.jobs.append(job)
        if self.error is not None:
            raise self.error
        if self.gate is not None:
            self.running += 1
            try:
                await self.gate.wait()
            finally:
                self.running -= 1
        texts = [str(each) for each in job.inputs]
        data = np.array([row(text, self.salt) for text in texts], "<f4").tobytes()
        shape = (len(texts), 3)
        yield Vectors(data, shape) if self.kind is Vectors else Scores(data, shape, ("x", "y", "z"))
        yield Usage(sum(map(len, texts)))
        yield Finish("stop")


class Engine(FakeEngine):
    """Makes such backends."""

    backend: type[FakeBackend] = Rows

    async def start(self) -> FakeBackend:
        """Return a backend."""
        made = self.backend(())
        self.backends.append(made)
        return made


def vectors(outcome: Outcome) -> list[list[float]]:
    """Return the rows of an answer."""
    assert outcome.answer is not None
    (made,) = [event for event in outcome.answer.events if isinstance(event, Vectors | Scores)]
    rows: list[list[float]] = np.frombuffer(made.data, "<f4").reshape(made.shape).tolist()
    return rows


def asked(built: House, model: str = "a") -> list[tuple[str, ...]]:
    """Return the texts that the model was asked for, job by job."""
    return [job.inputs for backend in built.engines[model].backends for job in backend.jobs]  # type: ignore[misc]


@virtual
async def test_only_missing_inputs_go_to_the_model():
    """What is known of each is put in its place; the header tells how many that were."""
    async with house({"a": Engine()}) as built:
        first = await built.get(embedding("one", "three"))
        second = await built.get(embedding("four", "three", "fifteen", "one", "two"))
        third = await built.get(embedding("two", "four"))

        assert asked(built) == [("one", "three"), ("four", "fifteen", "two")]
        assert vectors(second) == [row(text) for text in ("four", "three", "fifteen", "one", "two")]
        assert first.status.header() == "warmgate; fwd=miss; stored; hits=0; items=2"
        assert second.status.header() == "warmgate; fwd=partial; stored; hits=2; items=5"
        assert third.status.header() == "warmgate; hit; ttl=60; hits=2; items=2; detail=exact"
        assert (third.status.label(), second.status.label()) == ("exact", "partial")


@virtual
async def test_alone_and_among_others_is_the_same():
    """An input that was asked for alone is known in a list, and the other way round."""
    async with house({"a": Engine()}) as built:
        await built.get(embedding("one"))
        await built.get(embedding("one", "two"))
        alone = await built.get(embedding("two"))

        assert asked(built) == [("one",), ("two",)]
        assert alone.status.header() == "warmgate; hit; ttl=60; detail=exact"
        assert vectors(alone) == [row("two")]


@virtual
async def test_equal_inputs_are_asked_for_once():
    """So many places as they have, so often they are in the answer."""
    async with house({"a": Engine()}) as built:
        outcome = await built.get(embedding("one", "two", "one"))
        again = await built.get(embedding("two", "two"))

        assert asked(built) == [("one", "two")]
        assert vectors(outcome) == [row("one"), row("two"), row("one")]
        assert vectors(again) == [row("two"), row("two")]


@virtual
async def test_equal_batches_in_flight_are_made_once():
    """Who asks for the same inputs meanwhile shares the work, and is told so; who leaves takes nothing along."""
    async with house({"a": Engine()}) as built:
        Rows.gate = asyncio.Event()
        try:
            asking = [asyncio.create_task(built.get(embedding("one", "two"))) for _ in range(3)]
            await asyncio.sleep(1)
            asking.pop(0).cancel()
            await asyncio.sleep(1)
            Rows.gate.set()
            outcomes = await asyncio.gather(*asking)
        finally:
            Rows.gate = None
        assert asked(built) == [("one", "two")]
        assert [vectors(each) for each in outcomes] == [[row("one"), row("two")]] * 2
        assert {each.status.header() for each in outcomes} == {"warmgate; fwd=miss; collapsed; hits=0; items=2"}
        assert (await built.get(embedding("two", "one"))).status.hit


@virtual
async def test_last_one_to_leave_ends_the_work():
    """Nobody waits for it any more, and nothing is kept."""
    async with house({"a": Engine()}) as built:
        Rows.gate = asyncio.Event()
        try:
            asking = asyncio.create_task(built.get(embedding("one", "two")))
            await asyncio.sleep(1)
            asking.cancel()
            await asyncio.wait([asking])
            await asyncio.sleep(1)
        finally:
            Rows.gate = None
        assert built.engines["a"].backends[0].running == 0
        assert not len(built.exact.memory)


@virtual
async def test_other_fields_and_tenants_part_the_items():
    """An item is a whole request by itself, with all that its answer depends on."""
    async with house({"a": Engine()}) as built:
        await built.get(embedding("one", "two"))
        await built.get(embedding("one", "two", encoding_format="base64", user="u"))
        assert len(asked(built)) == 1
        await built.get(embedding("one", "two", dimensions=2))
        await built.get(embedding("one", "two"), caller=Caller("key:x"))
        assert len(asked(built)) == 3


@virtual
async def test_usage_is_what_the_inputs_took():
    """The tokens of a batch are shared out by length; their sum is what the model counted, neither more nor less."""
    async with house({"a": Engine()}) as built:
        made = await built.get(embedding("one", "seventeen"))
        again = await built.get(embedding("one", "seventeen"))
        alone = [await built.get(embedding(text)) for text in ("one", "seventeen")]

        counted = [each.answer.usage().prompt_tokens for each in (made, again, *alone) if each.answer]
        assert counted == [12, 12, *counted[2:]]
        assert sum(counted[2:]) == 12


@given(st.integers(0, 10**6), st.lists(st.integers(0, 1000), min_size=1))
def test_shares_sum_up(total, weights):
    """Nothing is lost or made up by sharing out, and no share is off by more than one from what is due."""
    given_out = shares(total, weights)
    assert sum(given_out) == total
    if sum(weights):
        for share, weight in zip(given_out, weights, strict=True):
            assert abs(share - total * weight / sum(weights)) <= 1


@virtual
async def test_directives_count_for_each_item():
    """`only-if-cached` needs all of them, `no-cache` takes none, `no-store` keeps none."""
    async with house({"a": Engine()}) as built:
        await built.get(embedding("zero", "none"), Directives(no_store=True))
        assert not len(built.exact.memory)
        await built.get(embedding("one"))
        with pytest.raises(NotCached):
            await built.get(embedding("one", "two"), parse("only-if-cached"))
        await built.get(embedding("one", "two"))
        assert (await built.get(embedding("two", "one"), parse("only-if-cached"))).status.hit
        fresh = await built.get(embedding("one", "two"), parse("no-cache"))
        assert fresh.status.header() == "warmgate; fwd=request; stored"


@virtual
async def test_stale_items_are_renewed_alone():
    """With `stale-while-revalidate` what is fresh is not made anew."""
    async with house({"a": Engine()}) as built:
        built.max_stale_s = 50
        built.pipeline = built.build()
        await built.get(embedding("old"))
        built.wall.advance(40)
        await built.get(embedding("new"))
        built.wall.advance(30)

        served = await built.get(embedding("new", "old"), parse("stale-while-revalidate=20"))
        await asyncio.sleep(0.1)
        await built.pipeline.accounts.until_idle()

        assert served.status.header() == "warmgate; hit; ttl=-10; hits=2; items=2; detail=exact"
        assert asked(built) == [("old",), ("new",), ("old",)]
        assert (await built.get(embedding("new", "old"))).status.hit


@virtual
async def test_stale_items_stand_in_for_an_outage():
    """Only where there is one for each; what is missing altogether is an error."""
    async with house({"a": Engine()}) as built:
        built.max_stale_s = 50
        built.pipeline = built.build()
        await built.get(embedding("old", "new"))
        built.wall.advance(70)
        Rows.error, error = UpstreamFailed("down"), Rows.error
        try:
            stale = await built.get(embedding("new", "old"), parse("stale-if-error=20"))
            with pytest.raises(UpstreamFailed):
                await built.get(embedding("new", "none"), parse("stale-if-error=20"))
        finally:
            Rows.error = error
        assert vectors(stale) == [row("new"), row("old")]
        assert stale.status.header() == (
            "warmgate; fwd=stale; fwd-status=502; ttl=-10; hits=2; items=2; detail=stale-if-error"
        )


@virtual
async def test_vectors_of_two_models_do_not_mix():
    """All of an answer comes from the model that has most of it; where that fails, all comes from another."""
    route = Route("r", ("a", "b"))
    async with house({"a": Engine(), "b": Engine()}, {"r": route}) as built:
        await built.get(embedding("one", "two"))  # of a alone
        both = Request("r", embedding("one", "three").job, {"input": ["one", "three"]})
        mixed = await built.get(both)
        assert mixed.head.model == "a"
        assert asked(built, "b") == []

        backend = built.engines["a"].backends[0]
        backend.error = UpstreamFailed("down")  # type: ignore[attr-defined]
        more = Request("r", embedding("one", "four").job, {"input": ["one", "four"]})
        other = await built.get(more)
        assert (other.head.model, other.status.header()) == ("b", "warmgate; fwd=miss; stored; hits=0; items=2")
        assert asked(built, "b") == [("one", "four")]


@virtual
async def test_what_the_client_did_wrong_is_told_at_once():
    """No other model is asked, and nothing stale stands in."""
    async with house({"a": Engine()}) as built:
        await built.get(embedding("one"))
        built.engines["a"].backends[0].error = BadJob("too long")  # type: ignore[attr-defined]
        with pytest.raises(BadJob):
            await built.get(embedding("one", "two"), parse("stale-if-error=20"))


@virtual
async def test_classifications_are_items_too():
    """Each text's scores are its own, with the labels that all have."""
    async with house({"a": Engine()}) as built:
        Rows.kind = Scores
        try:
            first = Request("a", Job(Task.PREDICT, inputs=("one", "two")), {"input": ["one", "two"]})
            second = Request("a", Job(Task.PREDICT, inputs=("two", "six")), {"input": ["two", "six"]})
            await built.get(first)
            outcome = await built.get(second)
        finally:
            Rows.kind = Vectors
        assert asked(built) == [("one", "two"), ("six",)]
        assert vectors(outcome) == [row("two"), row("six")]


@virtual
async def test_route_may_keep_batches_as_a_whole():
    """Where an input's answer depends on those beside it, the operator says so."""
    whole = Route("whole", ("a",), policy=CachePolicy(items=False))
    async with house({"a": Engine()}, {"whole": whole}) as built:
        ask = [Request("whole", embedding(*texts).job, {"input": texts}) for texts in (("one", "two"), ("two", "one"))]
        for each in (ask[0], ask[1], ask[0]):
            outcome = await built.get(each)
        assert outcome.status.header() == "warmgate; hit; ttl=60; detail=exact"
        assert asked(built) == [("one", "two"), ("two", "one")]


def test_one_input_is_no_batch():
    """It is cached as any other request."""
    assert parted(embedding("one")) is None
    assert parted(Request("a", Job(Task.CHAT), {"messages": []})) is None


@pytest.mark.parametrize("events", [(), (Vectors(b"\0" * 12, (1, 3)),)])
def test_fewer_rows_than_inputs_are_not_taken_apart(events: tuple[Event, ...]):
    """Nobody knows whose they are."""
    made = parted(embedding("one", "two"))
    assert made is not None
    assert made.apart(Answer(Head("a", "v", 0.0), events), (0, 1)) is None
