"""What a verifier told of a pair is remembered, and nothing else of a hit."""

import pytest

from cache.contract import Meaning
from cache.semantic.contract import VerifierError
from cache.semantic.lookup import SemanticCache
from cache.trust.contract import Label
from cache.trust.live import LiveTrust
from cache.trust.state import Policy
from gateway.trust.remembered import RememberedPairs
from tests.fakes import FakeEngine
from tests.test_gateway_neighbours import ALIKE, FIRST, VECTORS
from tests.test_gateway_pipeline import ask, house


class Counting:
    """A verifier that keeps what it was asked."""

    version = "counting"

    def __init__(self, *confidences: float) -> None:
        self.confidences = list(confidences)
        self.asked: list[tuple[str, list[str]]] = []

    async def verify(self, asked: Meaning, stored: list[Meaning]) -> list[float]:
        """Tell the next confidences; where there are none left, none can be told."""
        self.asked.append((asked.text, [each.text for each in stored]))
        if not self.confidences:
            raise VerifierError("none")
        return [self.confidences.pop(0) for _ in stored]


def meaning(text: str, partition: bytes = b"p", tokens: bytes = b"t") -> Meaning:
    """Make a text's meaning."""
    return Meaning(partition, text, b"", tokens)


async def test_of_each_pair_the_verifier_is_asked_once() -> None:
    """Only what is new goes to it; the confidences come in the order of the candidates."""
    inner = Counting(0.1, 0.2, 0.3)
    remembered = RememberedPairs(inner)
    one, two, three = meaning("one"), meaning("two"), meaning("three")

    assert await remembered.verify(meaning("a"), [one, two]) == [0.1, 0.2]
    assert await remembered.verify(meaning("a"), [two, three, one]) == [0.2, 0.3, 0.1]
    assert await remembered.verify(meaning("a"), [one]) == [0.1]
    assert inner.asked == [("a", ["one", "two"]), ("a", ["three"])]
    assert remembered.version == "counting"


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        (meaning("a"), meaning("b", tokens=b"")),
        (meaning("a", tokens=b""), meaning("b")),
        (meaning("a", b"q"), meaning("b", b"q")),
        (meaning("b"), meaning("a")),
        (meaning(""), meaning("ab")),
    ],
)
async def test_another_pair_is_another(asked: Meaning, stored: Meaning) -> None:
    """So is the same one without what is compared, of another partition, or divided otherwise."""
    remembered = RememberedPairs(Counting(0.1, 0.2))
    assert await remembered.verify(meaning("a"), [meaning("b")]) == [0.1]
    assert await remembered.verify(asked, [stored]) == [0.2]


async def test_a_failure_is_not_remembered_and_the_oldest_go() -> None:
    """Who asks again asks the verifier; memory is bounded by pairs, the least used go first."""
    inner = Counting()
    remembered = RememberedPairs(inner, most=2)
    with pytest.raises(VerifierError):
        await remembered.verify(meaning("a"), [meaning("b")])
    inner.confidences = [0.1, 0.2, 0.3, 0.4]
    for text, expected in (("b", 0.1), ("c", 0.2), ("b", 0.1), ("d", 0.3), ("b", 0.1), ("c", 0.4)):
        assert await remembered.verify(meaning("a"), [meaning(text)]) == [expected]


async def test_a_repeat_of_other_words_is_a_hit_like_the_first() -> None:
    """It costs no run of the verifier; yet it counts for the certificate, and is refused once the pair is."""
    async with house({"a": FakeEngine()}) as built:
        trust = LiveTrust(Policy(0.01, 0.9), "v1", chance=lambda: 0.9, clock=built.wall)
        inner = Counting(0.99)
        built.semantic = SemanticCache(built.exact, trust=trust, verifier=RememberedPairs(inner), clock=built.wall)
        built.vectors = VECTORS
        built.pipeline = built.build()
        await built.get(ask(FIRST))
        hits = [await built.get(ask(ALIKE)) for _ in range(3)]

        assert [hit.status.detail for hit in hits] == ["semantic"] * 3
        assert len(inner.asked) == 1
        ((_, state),) = trust.states()
        assert state.ledgers[0].hits == 3
        sought = hits[0].sought
        assert sought is not None
        best = sought.found.best
        assert best is not None
        trust.learn(
            Label(sought.namespace, best.pair, 0.99, served=True, same=False, source="audit", at=0.0, share=0.5)
        )
        assert not (await built.get(ask(ALIKE))).status.hit
        await built.semantic.close()
