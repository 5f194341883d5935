"""What a verifier is asked, and what its confidence is worth beside the strict guards."""

import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.contract import Entry, Meaning
from cache.semantic import judging
from cache.semantic.counters import SemanticCounters
from cache.semantic.evidence import Match
from cache.semantic.fixed import FixedThreshold
from cache.semantic.guards import find_veto, judge_all, read_ahead
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
    assert weigh_with_guards(confidence, agreed=find_veto(stored, ASKED) is None) == pytest.approx(worth)


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


class Slow(Unsure):
    """A verifier that is at work until it is told to be back, half sure."""

    def __init__(self) -> None:
        super().__init__()
        self.back = asyncio.Event()

    async def verify(self, asked: Meaning, stored: list[Meaning]) -> list[float]:
        """Wait."""
        await super().verify(asked, stored)
        await self.back.wait()
        return [0.5] * len(stored)


@pytest.mark.parametrize("is_back_at_once", [True, False])
async def test_the_strict_guards_look_while_the_verifier_is_at_work(monkeypatch, is_back_at_once):
    """What they say is there when it is back, and the same where it is back at once."""
    verifier, looked = Slow(), list[str]()
    monkeypatch.setattr(judging, "find_veto", lambda a, b, **only: (looked.append(a), find_veto(a, b, **only))[1])
    stored = Meaning(b"p", "Tell me the capital of France", VECTOR, b"tokens")
    asked = Meaning(b"p", ASKED, VECTOR, b"tokens")
    judge = Judge(FixedThreshold(0.9), verifier, SemanticCounters())
    if is_back_at_once:
        verifier.back.set()
    judged = asyncio.create_task(judge.judge("n", asked, nominate(asked, [Entry(b"k", b"", 0.0, 1.0, stored)])))
    for _ in range(3):
        await asyncio.sleep(0)
    assert looked == [stored.text] * 2  # the sure guards, and all of them
    verifier.back.set()
    found = await judged

    assert isinstance(found, Match)
    assert found.best.confidence == pytest.approx(90 / 91)
    assert len(looked) == 2


async def test_who_leaves_while_the_verifier_is_at_work_leaves_nothing_behind():
    """A look-up that is cancelled ends at once, and its guards look at nothing more."""
    verifier = Slow()
    judge = Judge(FixedThreshold(0.9), verifier, SemanticCounters())
    asked = Meaning(b"p", ASKED, VECTOR, b"tokens")
    entry = Entry(b"k", b"", 0.0, 1.0, Meaning(b"p", "Tell me the capital of France", VECTOR, b"tokens"))
    judged = asyncio.create_task(judge.judge("n", asked, nominate(asked, [entry])))
    await asyncio.sleep(0)
    judged.cancel()
    with pytest.raises(asyncio.CancelledError):
        await judged
    assert judge._counters.verified == 0


@given(st.text(max_size=40), st.sampled_from(["Is 5 km more than 3 miles?", "how do I sort in Python, by value", ""]))
def test_reading_ahead_changes_no_verdict(text, other):
    """What is remembered of a text is what would be found out later."""
    before = judge_all(text, other)
    read_ahead(text)
    assert judge_all(text, other) == before
