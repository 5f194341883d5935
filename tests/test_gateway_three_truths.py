"""Each task has its own truth: what counts as the same answer, and what may be found by meaning at all."""

import numpy as np
import pytest

from backends.contract import Event, Finish, Job, Refusal, Scores, Task, Tensor, Tensors, Text, ToolCall, Usage, Vectors
from cache.semantic.fixed import FixedThreshold
from cache.semantic.lookup import SemanticCache
from gateway.answer import Answer, Head
from gateway.caching.identity import compatibility
from gateway.request import Caller, Request
from gateway.trust.equivalence import equivalent
from tests.fakes import FakeEngine
from tests.test_gateway_pipeline import House, house


def answer(*events: Event, version: str = "v") -> Answer:
    """Make an answer."""
    return Answer(Head("a", version, 1.0), (*events, Finish("stop")))


def scores(*row: float, labels: tuple[str, ...] = ("yes", "no")) -> Scores:
    """Make the scores of one text."""
    return Scores(np.array(row, "<f4").tobytes(), (1, len(row)), labels)


def vectors(*row: float) -> Vectors:
    """Make the vector of one text."""
    return Vectors(np.array(row, "<f4").tobytes(), (1, len(row)))


def tensor(data: bytes) -> Tensors:
    """Make the output of a graph."""
    return Tensors((Tensor("y", "UINT8", (len(data),), data),))


def called(arguments: str, name: str = "f") -> ToolCall:
    """Make a call of a tool."""
    return ToolCall(0, "id", name, arguments)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Text("It is Paris."), Text("it is  Paris"), True),
        (Text("It is Paris."), Text("It is Lyon."), False),
        (Text("5"), Text("5.0"), False),
        (called('{"a": 1, "b": 2}'), called('{"b":2,"a":1}'), True),
        (called('{"a": 1}'), called('{"a": 2}'), False),
        (called("{}"), called("{}", "g"), False),
        (Text("no"), Refusal("no"), False),
        (scores(0.9, 0.1), scores(0.6, 0.4), True),
        (scores(0.9, 0.1), scores(0.4, 0.6), False),
        (scores(0.9, 0.1), scores(0.9, 0.1, labels=("no", "yes")), False),
        (vectors(1.0, 0.0), vectors(1.0, 1e-7), True),
        (vectors(1.0, 0.0), vectors(0.99, 0.14), False),
        (vectors(1.0, 0.0), vectors(1.0, 0.0, 0.0), False),
        (tensor(b"ab"), tensor(b"ab"), True),
        (tensor(b"ab"), tensor(b"ac"), False),
        (Text("yes"), scores(0.9, 0.1), False),
    ],
)
def test_equivalence(one, other, same):
    """Texts by their words, calls by their arguments, classes by the best one, vectors and tensors as they are."""
    assert equivalent(answer(one), answer(other)) is same
    assert equivalent(answer(other), answer(one)) is same


def test_usage_and_version_say_nothing():
    """What an answer cost, and who gave it when, is no part of it."""
    assert equivalent(answer(Text("a"), Usage(1, 2)), answer(Text("a"), Usage(9, 9), version="w"))


def predict(text: str) -> Request:
    """Ask for the class of a text."""
    return Request("a", Job(Task.PREDICT, inputs=(text,)), {"input": text}, asked=text)


def embed(text: str) -> Request:
    """Ask for the vector of a text."""
    return Request("a", Job(Task.EMBED, inputs=(text,)), {"input": text})


def by_meaning(built: House) -> SemanticCache:
    """Let a house find answers by meaning, where two texts are near."""
    near = np.zeros(8)
    near[:2] = (0.98, np.sqrt(1 - 0.98**2))
    built.vectors = {"i lost my card": np.eye(8)[0], "please i lost my card": near, "where is my money": np.eye(8)[2]}
    built.semantic = SemanticCache(built.exact, trust=FixedThreshold(0.9), clock=lambda: 1000.0)
    built.pipeline = built.build()
    return built.semantic


async def test_classification_may_be_found_by_meaning():
    """Another wording of the text has its class; another text has not, nor has another tenant's."""
    script = (scores(0.9, 0.1), Usage(3), Finish("stop"))
    async with house({"a": FakeEngine(script)}) as built:
        semantic = by_meaning(built)
        await built.get(predict("i lost my card"))

        alike = await built.get(predict("please i lost my card"))
        other = await built.get(predict("where is my money"))
        theirs = await built.get(predict("please i lost my card"), caller=Caller("key:x"))

        assert (alike.status.detail, alike.status.matched) == ("semantic", "i lost my card")
        assert not other.status.hit
        assert not theirs.status.hit
        await semantic.close()


async def test_embedding_is_never_found_by_meaning():
    """However near two texts are, each has its own vector."""
    async with house({"a": FakeEngine((vectors(1.0, 0.0), Usage(3), Finish("stop")))}) as built:
        semantic = by_meaning(built)
        await built.get(embed("i lost my card"))
        assert not (await built.get(embed("please i lost my card"))).status.hit
        assert (await built.get(embed("please i lost my card"))).status.detail == "exact"
        await semantic.close()


def test_tasks_match_only_their_own():
    """A chat, a classification and other fields are in partitions of their own."""
    chat = Request("a", Job(Task.CHAT), {"messages": [{"role": "user", "content": "x"}]}, asked="x")
    more = Request("a", Job(Task.PREDICT), {"input": "x", "top_k": 3}, asked="x")
    assert compatibility(predict("x")) == compatibility(predict("y"))
    assert len({compatibility(each) for each in (chat, predict("x"), more)}) == 3
