"""What a verifier is asked, and what its confidence is worth beside the strict guards."""

import struct

import pytest

from cache.contract import Entry, Meaning
from cache.semantic.counters import SemanticCounters
from cache.semantic.evidence import Match
from cache.semantic.fixed import FixedThreshold
from cache.semantic.judging import Judge, nominate, weigh_with_guards

ASKED = "What is the capital of France?"
VECTOR = struct.pack("<2f", 0.6, 0.8)


@pytest.mark.parametrize(
    ("stored", "confidence", "worth"),
    [
        ("Tell me the capital of France", 0.5, 90 / 91),  # the strict guards pass it too
        ("Which city is the seat of the French government?", 0.5, 0.5),  # they do not: its words are others
        ("Tell me the capital of France", 0.0, 0.0),  # nothing was compared
        ("Tell me the capital of France", 1.0, 1.0),
    ],
)
def test_the_word_of_the_strict_guards_raises_a_confidence(stored, confidence, worth):
    """What the strict guards pass too is likelier right; their veto takes nothing away, and no doubt is made sure."""
    assert weigh_with_guards(confidence, stored, ASKED) == pytest.approx(worth)


class Unsure:
    """A verifier that is told of what it judges, and sure of nothing."""

    version = "v1"

    def __init__(self) -> None:
        self.judged: list[str] = []

    async def verify(self, asked: Meaning, stored: list[Meaning]) -> list[float]:
        """Note what is asked."""
        del asked
        self.judged += [each.text for each in stored]
        return [0.0] * len(stored)


async def test_the_same_words_in_other_spaces_need_no_verifier():
    """They serve at once; a text in other words is judged and counted, and so is one that is too long to compare."""
    verifier, counters = Unsure(), SemanticCounters()
    judge = Judge(FixedThreshold(0.9), verifier, counters)

    async def serves(stored: str, asked: str, tokens: bytes = b"tokens") -> bool:
        one, other = (Meaning(b"p", text, VECTOR, tokens) for text in (stored, asked))
        entry = Entry(b"k", b"", 0.0, 1.0, one)
        return isinstance(await judge.judge("n", other, nominate(other, [entry])), Match)

    assert await serves(ASKED, "What is  the capital of France? ")
    assert (verifier.judged, counters.verified) == ([], 0)
    assert not await serves(ASKED, "Tell me the capital of France")
    assert not await serves(ASKED, "What is  the capital of France? ", tokens=b"")
    assert (verifier.judged, counters.verified) == ([ASKED, ASKED], 2)


@pytest.mark.parametrize(("taken", "expected"), [(b"2", b"2"), (b"3", b"3"), (b"", None)])
async def test_what_who_asks_does_not_take_gives_way_to_the_next(taken: bytes, expected: bytes | None):
    """The next is served, and counted; where none is taken, the best of them says why."""
    judge = Judge(FixedThreshold(0.9), None, SemanticCounters())
    vectors = [struct.pack("<2f", 0.6, 0.8), struct.pack("<2f", 0.64, 0.7684), struct.pack("<2f", 0.68, 0.7332)]
    entries = [
        Entry(key, b"", 0.0, 1.0, Meaning(b"p", "Tell me the capital of France", vector))
        for key, vector in zip((b"1", b"2", b"3"), vectors, strict=True)
    ]
    asked = Meaning(b"p", ASKED, VECTOR)
    found = await judge.judge(
        "n", asked, nominate(asked, entries), objects=lambda entry: None if entry.key == taken else "request"
    )
    if isinstance(found, Match):
        assert found.best.entry.key == expected
    else:
        assert expected is None
        assert found.best is not None
        assert (found.reason, found.best.entry.key) == ("request", b"1")


class Sure(Unsure):
    """A verifier that is told of what it judges, and sure of what its text says."""

    async def verify(self, asked: Meaning, stored: list[Meaning]) -> list[float]:
        """Note what is asked."""
        await super().verify(asked, stored)
        return [float("sure" in each.text) for each in stored]


@pytest.mark.parametrize(
    ("stored", "judged", "served"),
    [
        (["sure apple", "sure pear"], ["sure apple"], "sure apple"),  # the rest is not looked at
        (["apple", "sure pear", "plum"], ["apple", "sure pear", "plum"], "sure pear"),
        (["apple 5", "pear", "sure plum"], ["pear", "sure plum"], "sure plum"),  # a guard vetoes a number
        (["apple", "pear"], ["apple", "pear"], None),
        (["apple 5", "pear 6"], [], None),
    ],
)
async def test_the_nearest_is_judged_alone_and_the_others_where_it_is_not_served(stored, judged, served):
    """Most hits cost one pair; of those that are left the most confident is served."""
    verifier = Sure()
    judge = Judge(FixedThreshold(0.9), verifier, SemanticCounters())
    entries = [
        Entry(text.encode(), b"", 0.0, 1.0, Meaning(b"p", text, struct.pack("<2f", cosine, (1 - cosine**2) ** 0.5)))
        for cosine, text in zip((0.99, 0.97, 0.95), stored, strict=False)
    ]
    asked = Meaning(b"p", "something else", struct.pack("<2f", 1.0, 0.0))

    found = await judge.judge("n", asked, nominate(asked, entries))

    assert verifier.judged == judged
    assert (found.matched_text if isinstance(found, Match) else None) == served
