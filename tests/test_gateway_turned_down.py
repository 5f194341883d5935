"""An answer found by meaning that the client's words turn down: told as that, and booked as no hit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from cache.semantic.lookup import SemanticCache
from cache.trust.live import LiveTrust
from cache.trust.state import Policy
from gateway.caching.cache_control import parse
from gateway.caching.identity import scoped
from gateway.errors import NotCached
from gateway.query import Outcome
from gateway.trust.explaining import line
from gateway.trust.recent import Recent
from tests.fakes import FakeEngine
from tests.test_gateway_neighbours import ALIKE, FIRST, VECTORS
from tests.test_gateway_pipeline import House, ask, house

TOLD = '; tau=0.9; margin=0.98; "would hit but for the Cache-Control of the request"'


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[House, LiveTrust]]:
    """Run a house that remembers one answer, and whose every hit by meaning is to be audited."""
    async with house({"a": FakeEngine()}) as built:
        trust = LiveTrust(Policy(0.01, 0.9), "v1", chance=lambda: 0.0, clock=built.wall)
        built.semantic = SemanticCache(built.exact, trust=trust, clock=built.wall)
        built.pipeline = built.build()
        built.vectors = VECTORS
        await built.get(ask(FIRST))
        yield built, trust
        await built.semantic.close()


def booked(trust: LiveTrust) -> tuple[int, int]:
    """Return how many hits were counted, and how many audits are under way."""
    return sum(state.ledgers[0].hits for _, state in trust.states()), trust.pending("chat/a/")


def told_of(outcome: Outcome) -> str:
    """Return what the header says of the search."""
    assert outcome.sought is not None
    return line(outcome.sought)


@pytest.mark.parametrize("words", ["max-age=0", "min-fresh=61", "max-age=5"])
async def test_what_the_clients_words_turn_down_is_no_hit(words: str) -> None:
    """Nothing is counted and no audit awaited; the header, the status and the explanation say why it was not served."""
    async with watched() as (built, trust):
        built.wall.advance(6)

        asked = await built.get(ask(ALIKE), parse(words))

        assert asked.status.header() == "warmgate; fwd=request; stored"
        assert told_of(asked) == "miss; reason=request; sim=0.98; conf=0.98" + TOLD
        assert booked(trust) == (0, 0)
        assert b'warmgate_semantic_lookups_total{result="request"} 1.0' in built.telemetry.exposition()
        recent = Recent(None, built.wall)
        recent.note("r1", asked)
        decided = recent.decision("r1")
        assert decided is not None
        assert decided.searched is not None
        assert decided.status.label() == "request"
        assert decided.searched.candidates[0].decision == asked.sought.found.best.decision
        assert await recent.hit("r1") is None


async def test_what_is_served_is_booked_once() -> None:
    """Words that the answer meets change nothing: one hit, and its audit."""
    async with watched() as (built, trust):
        served = await built.get(ask(ALIKE), parse("max-age=5, min-fresh=60"))

        assert (served.status.hit, served.status.detail) == (True, "semantic")
        assert told_of(served).endswith("; starting; audit")
        assert booked(trust) == (1, 1)


async def test_only_if_cached_does_not_book_what_it_cannot_have() -> None:
    """A 504 is no hit either."""
    async with watched() as (built, trust):
        with pytest.raises(NotCached):
            await built.get(ask(ALIKE), parse("only-if-cached, min-fresh=61"))
        assert booked(trust) == (0, 0)


async def test_an_answer_that_cannot_be_read_is_gone_and_no_hit() -> None:
    """It is found, and is of no use: that is no word of the client's."""
    async with watched() as (built, trust):
        made = await built.get(ask(FIRST))
        entry = built.exact.peek(scoped(made.features.fingerprint, made.features.scope, made.head.version))
        assert entry is not None
        built.exact.keep(replace(entry, value=b"torn"))

        asked = await built.get(ask(ALIKE))

        assert asked.status.header() == "warmgate; fwd=miss; stored"
        assert told_of(asked).startswith("miss; reason=gone; ")
        assert booked(trust) == (0, 0)
