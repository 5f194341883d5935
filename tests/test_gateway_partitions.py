"""What parts two questions before any vector is compared: each alone makes of one question two that never meet."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backends.contract import BadJob, Job, Message, Task
from cache.semantic.fixed import FixedThreshold
from cache.semantic.lookup import SemanticCache
from gateway.caching.identity import PARTITION_EPOCH
from gateway.caching.meaning import Embedded, Embedder
from gateway.caching.recall import Recall
from gateway.request import Caller, Request
from tests.fakes import ANSWER, FakeEngine
from tests.test_gateway_neighbours import ALIKE, FIRST, NEAR, VECTORS, city
from tests.test_gateway_pipeline import ANYONE, ask, house

SYSTEM = {"role": "system", "content": "Be brief."}
BEFORE = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]


def chat(text: str, *, before: tuple[dict[str, Any], ...] = (), last: object = None, **fields: object) -> Request:
    """Return a request whose last message has this text, after others, or with `last` as its content on the wire."""
    content = text if last is None else last
    messages = [*before, {"role": "user", "content": content}]
    job = Job(Task.CHAT, messages=tuple(Message(each["role"], str(each["content"])) for each in messages))
    return Request("a", job, {"messages": messages, **fields}, asked=text)


async def is_found(asked: Request, stored: Request, *, of: Caller = ANYONE, by: Caller = ANYONE) -> bool:
    """Tell whether a stored question's answer serves the one asked, whose vector is near."""
    async with city(*ANSWER) as built:
        await built.get(stored, caller=of)
        return (await built.get(asked, caller=by)).status.detail == "semantic"


async def test_the_same_but_for_the_last_text_is_found():
    """With every thing else identical, the last user text alone may differ; the order of fields does not matter."""
    before = (SYSTEM, *BEFORE)
    assert await is_found(chat(ALIKE, before=before, top_p=1, n=1), chat(FIRST, before=before, n=1, top_p=1))


@pytest.mark.parametrize(
    "other",
    [
        {"before": ()},
        {"before": ({**SYSTEM, "content": "Be long."},)},
        {"before": (SYSTEM, *BEFORE)},
        {"before": (SYSTEM, *reversed(BEFORE))},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"a_field_nobody_knows": 1},
        {"max_tokens": 5},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_whatever_else_differs_parts_them(other):
    """System prompt, history, its order, tools, format, parameters and unknown fields."""
    assert not await is_found(chat(ALIKE, **{"before": (SYSTEM,)} | other), chat(FIRST, before=(SYSTEM,)))


async def test_tenants_are_parted():
    """One tenant's answer is never another's, not for the very same words."""
    assert not await is_found(chat(ALIKE), chat(FIRST), of=Caller("key:a"), by=Caller("key:b"))
    assert await is_found(chat(ALIKE), chat(FIRST), of=Caller("key:a"), by=Caller("key:a"))


async def test_models_and_their_versions_are_parted():
    """Another model, or a changed one, has not said that."""
    async with house({"a": FakeEngine(), "b": FakeEngine()}) as built:
        built.semantic = SemanticCache(built.exact, trust=FixedThreshold(0.9), clock=lambda: 1000.0)
        built.vectors = VECTORS
        built.pipeline = built.build()
        await built.get(ask(FIRST))
        for model, version, detail in (("b", "b-1", None), ("a", "a-1", "semantic"), ("a", "a-2", None)):
            built.engines[model].version = version
            assert (await built.get(ask(ALIKE, model=model))).status.detail == detail
        await built.semantic.close()


def test_embedders_and_epochs_of_the_rules_are_parted(monkeypatch):
    """Vectors of two models are never compared, nor what was stored under other rules."""

    def partition(embedder: str) -> bytes:
        return Recall.partitions(ask(FIRST), "", embedder, ["v"])["v"]

    first = partition("e1")
    assert partition("e1") == first != partition("e2")
    monkeypatch.setattr("gateway.caching.recall.PARTITION_EPOCH", f"{PARTITION_EPOCH}+")
    assert partition("e1") != first


async def test_a_text_beyond_the_embedders_window_is_never_found():
    """The worker refuses it by its tokens: no vector of its beginning stands for the whole."""
    async with city(*ANSWER) as built:

        async def embed(text: str) -> Embedded:
            raise BadJob(f"input 0 has {len(text)} tokens; the model takes at most 256", "input")

        built.embed = embed
        built.pipeline = built.build()
        await built.get(ask(FIRST))

        assert built.semantic.entries == 0
        assert (await built.get(ask(ALIKE))).status.header() == "warmgate; fwd=miss; stored"
        assert (await built.get(ask(ALIKE))).status.detail == "exact"


async def test_an_embedder_whose_window_nobody_knows_is_asked_short_texts_alone():
    """A server of somebody else's may cut a text off without a word."""
    texts = []
    async with city(*ANSWER) as built:

        async def embed(text: str) -> Embedded:
            texts.append(text)
            return Embedded(NEAR.astype("<f4").tobytes())

        recall = Recall(
            built.exact, built.semantic, Embedder("e", embed, 20), built.telemetry, clock=lambda: 1000.0,
            exact_ttl_s=60, semantic_ttl_s=60, budget_s=5.0,
        )  # fmt: skip
        built.pipeline._recall = built.pipeline._search._recall = recall
        for length in (21, 20):
            await built.get(ask("x" * length))

        assert texts == ["x" * 20]


async def test_a_request_whose_last_message_is_no_plain_text_is_left_to_its_own_words():
    """With images or several parts there is no one text that could vary: nothing is embedded."""
    texts = []
    async with city(*ANSWER) as built:

        async def embed(text: str) -> Embedded:
            texts.append(text)
            return Embedded(np.eye(8)[0].astype("<f4").tobytes())

        built.embed = embed
        built.pipeline = built.build()
        parts = [{"type": "text", "text": FIRST}, {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]
        await built.get(replace(chat(FIRST, last=parts), asked=None))

        assert texts == []
