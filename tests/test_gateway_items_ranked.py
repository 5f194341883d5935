"""Rerankings: each document's score is cached for itself, where the upstream's reply can be taken apart."""

from collections.abc import Sequence
from typing import Any

import orjson

from backends.contract import Finish, Frame, Job
from gateway.query import Outcome
from gateway.request import Request
from gateway.surfaces.relays import RelaySurface
from gateway.surfaces.wire import Call, Encoder
from tests.fakes import FakeBackend
from tests.test_gateway_items import Engine
from tests.test_gateway_pipeline import PLAIN, House, house, virtual

DOCUMENTS = ("a cat", "a dog", "a house", "the sea")
SCORES = {text: round(0.1 * len(text) + ord(text[-1]) / 1000, 6) for text in DOCUMENTS}


class Reranker(FakeBackend):
    """Ranks as vLLM does; `shape` is how its replies look."""

    shape = "vllm"

    async def stream(self, job: Job):  # type: ignore[override]
        """Answer a job in bytes."""
        self.jobs.append(job)
        assert job.verbatim is not None
        asked = orjson.loads(job.verbatim.body)
        results = [
            {"index": place, "document": {"text": text}, "relevance_score": SCORES[text]}
            for place, text in enumerate(asked["documents"])
        ]
        results.sort(key=lambda each: -each["relevance_score"])
        results = results[: asked.get("top_n", len(results))]
        tokens = sum(map(len, asked["documents"]))
        reply: Any = {"id": "r-1", "model": asked["model"], "usage": {"total_tokens": tokens}, "results": results}
        if self.shape == "other":
            reply = results
        data = orjson.dumps(reply)
        yield Frame(data, job.verbatim.kind, "application/json")
        yield Finish("stop")


def reranking(*documents: str, **more: Any) -> tuple[Request, Encoder]:
    """Make a request to rank documents."""
    body = orjson.dumps({"model": "a", "query": "pets", "documents": documents, **more})
    return RelaySurface().decode(Call("POST", "/v1/rerank", {}, body, None), "0" * 24)


async def ranked(built: House, *documents: str, **more: Any) -> tuple[Outcome, Any]:
    """Rank documents, and read the reply."""
    request, encoder = reranking(*documents, **more)
    outcome = await built.get(request, PLAIN)
    assert outcome.answer is not None
    return outcome, orjson.loads(encoder.whole(outcome.answer).body)


def documents_asked(built: House) -> list[Sequence[str]]:
    """Return what the reranker was sent, job by job."""
    bodies = [job.verbatim.body for backend in built.engines["a"].backends for job in backend.jobs if job.verbatim]
    return [orjson.loads(body)["documents"] for body in bodies]


def expected(*documents: str, top: int = 10) -> list[dict[str, Any]]:
    """Return the results that are right."""
    results = [
        {"index": place, "document": {"text": text}, "relevance_score": SCORES[text]}
        for place, text in enumerate(documents)
    ]
    return sorted(results, key=lambda each: -each["relevance_score"])[:top]


def ranker() -> Engine:
    """Make an engine that ranks."""
    engine = Engine()
    engine.backend = Reranker
    return engine


@virtual
async def test_documents_are_ranked_each_for_itself():
    """Scores are of a query and one document: only unknown ones go to the model, and the ranking is of all."""
    async with house({"a": ranker()}) as built:
        _, first = await ranked(built, "a cat", "a dog")
        outcome, second = await ranked(built, "the sea", "a dog", "a house", top_n=2)
        hit, third = await ranked(built, "a house", "a cat", "a dog", "the sea")

        assert first["results"] == expected("a cat", "a dog")
        assert second["results"] == expected("the sea", "a dog", "a house", top=2)
        assert third["results"] == expected("a house", "a cat", "a dog", "the sea")
        assert documents_asked(built) == [["a cat", "a dog"], ["the sea", "a house"]]
        assert outcome.status.header() == "warmgate; fwd=partial; stored; hits=1; items=3"
        assert hit.status.header() == "warmgate; hit; ttl=60; hits=4; items=4; detail=exact"
        assert third["usage"] == {"total_tokens": sum(map(len, DOCUMENTS))}
        assert third["model"] == "a"


@virtual
async def test_a_whole_ranking_goes_out_as_it_came():
    """Where all is asked for as the client wrote it, the upstream's own bytes are the reply."""
    async with house({"a": ranker()}) as built:
        outcome, _ = await ranked(built, "a cat", "a dog")
        assert outcome.answer is not None
        assert outcome.answer.head.verbatim
        assert [type(event) for event in outcome.answer.events] == [Finish]


@virtual
async def test_few_of_many_are_kept_all():
    """With `top_n` all scores are asked for all the same, so that the others are known too."""
    async with house({"a": ranker()}) as built:
        _, first = await ranked(built, *DOCUMENTS, top_n=1)
        outcome, second = await ranked(built, *DOCUMENTS, top_n=3)
        assert first["results"] == expected(*DOCUMENTS, top=1)
        assert second["results"] == expected(*DOCUMENTS, top=3)
        assert outcome.status.hit


@virtual
async def test_rankings_of_another_shape_are_kept_as_a_whole():
    """What cannot be taken apart is served to the same request alone."""
    async with house({"a": ranker()}) as built:
        Reranker.shape = "other"
        try:
            _, first = await ranked(built, "a cat", "a dog")
            again, second = await ranked(built, "a cat", "a dog")
            other, _ = await ranked(built, "a dog", "a cat")
        finally:
            Reranker.shape = "vllm"
        assert first == second
        assert again.status.header() == "warmgate; hit; ttl=60; detail=exact"
        assert not other.status.hit
