"""Judges candidates for one question: guards, then the verifier, then trust. Knows no index and no store.

Where a verifier judges, only the sure guards veto; that the strict ones pass a pair raises its confidence. The
same judgement serves a stored answer and lets a question join one that is in flight.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from cache.contract import Entry, Meaning
from cache.semantic.contract import Objection, Objects, Verifier, VerifierError
from cache.semantic.counters import SemanticCounters
from cache.semantic.evidence import Evidence, Match, Miss, Reason, pair_of
from cache.semantic.guards import Veto, find_veto, find_vetoes
from cache.semantic.vectors import nearness, read_vector
from cache.trust.contract import Decision, Pair, Trust

# A candidate less similar than this is another question, whatever a verifier would say: it is not asked.
LEAST_SIMILARITY = 0.5
# By how much the odds grow that an answer serves, where the strict guards too let the pair pass. On the sets that are
# tuned on they passed 373 of 1,540 paraphrases that were left open and none of 1,116 near-misses: with 95 % confidence
# less than 3 of those (the rule of three), hence odds of 90 at least.
_AGREED = 90


class Nominee(NamedTuple):
    """What is to be judged: an entry with its meaning, and how near that is."""

    entry: Entry
    meaning: Meaning
    similarity: float


class Judge:
    """Decides whether an answer serves a question of the same partition, and keeps all reasons."""

    def __init__(self, trust: Trust, verifier: Verifier | None, counters: SemanticCounters) -> None:
        self.trust = trust
        self.verifier = verifier
        self._counters = counters

    async def judge(
        self,
        namespace: str,
        asked: Meaning,
        nominees: Sequence[Nominee],
        *,
        objects: Objects | None = None,
        thoroughly: bool = False,
        preview: bool = False,
    ) -> Match | Miss:
        """Return the candidate to serve, or why there is none; `nominees` are the nearest first.

        The nearest that no guard vetoes is judged alone, and the others, the most confident first, where it is not
        served. `thoroughly` asks all guards about each candidate, and trust about each that no guard vetoed. With
        `preview` trust counts no hit: nothing is served yet. Nor is what the caller `objects` to.
        """
        weighed: list[Evidence] = []
        opens = self._open_ones(asked, nominees, weighed, thoroughly=thoroughly)
        first = next(opens, None)
        if first is None:
            return _miss(weighed)
        served: Evidence | None = None
        objected: Evidence | None = None
        try:
            told = await self._confidences(asked, nominees, [first])
            if thoroughly or not self.trust.preview(namespace, weighed[first].pair, told[0][0]).serve:
                told += await self._confidences(asked, nominees, list(opens))
            while told and served is None:
                for confidence, at in sorted(told, key=lambda each: (-each[0], each[1])):
                    objection = None if objects is None else objects(weighed[at].entry)
                    decision = self._decide(namespace, weighed[at].pair, confidence, objection, preview=preview)
                    weighed[at] = weighed[at]._replace(confidence=confidence, decision=decision)
                    if objection is not None and decision.reason == objection:
                        objected = objected or weighed[at]
                    if decision.serve and served is None:
                        served = weighed[at]
                        if not thoroughly:
                            break
                told = [] if served else await self._confidences(asked, nominees, list(opens))
        except VerifierError:
            return Miss("unverified", weighed[first], tuple(weighed))
        return _told(weighed, served, objected)

    def _open_ones(
        self, asked: Meaning, nominees: Sequence[Nominee], weighed: list[Evidence], *, thoroughly: bool
    ) -> Iterator[int]:
        """Weigh one after the other, and yield the places of those that no guard vetoes."""
        for at, nominee in enumerate(nominees):
            vetoes = _vetoes(asked, nominee, all_of_them=thoroughly, only_sure=self.verifier is not None)
            weighed.append(_weigh(asked, nominees, at, vetoes))
            if not vetoes and nominee.similarity >= LEAST_SIMILARITY:
                yield at

    def _decide(
        self, namespace: str, pair: Pair, confidence: float, objection: Objection | None, *, preview: bool
    ) -> Decision:
        """Ask trust. What is objected to is not served whatever it says, so that nothing of it may be counted."""
        if objection is None:
            return (self.trust.preview if preview else self.trust.decide)(namespace, pair, confidence)
        would = self.trust.preview(namespace, pair, confidence)
        reason = objection if would.serve else would.reason
        return replace(would, serve=False, reason=reason, audit=False, explore=False)

    async def _confidences(
        self, asked: Meaning, nominees: Sequence[Nominee], places: Sequence[int]
    ) -> list[tuple[float, int]]:
        """Return the confidence in each of these nominees, with its place."""
        if self.verifier is None:
            return [(min(1.0, max(0.0, nominees[at].similarity)), at) for at in places]
        same = [at for at in places if _same_words(asked, nominees[at].meaning)]
        others = [at for at in places if at not in same]
        told = [(1.0, at) for at in same]
        if others:
            confidences = await self._verified(self.verifier, asked, [nominees[at].meaning for at in others])
            told += zip(confidences, others, strict=True)
        return told

    async def _verified(self, verifier: Verifier, asked: Meaning, meanings: list[Meaning]) -> list[float]:
        """Return a verifier's confidences, raised where the strict guards agree, which look while it is at work."""
        agreed: list[bool] = []

        def look() -> None:
            agreed.extend(find_veto(meaning.text, asked.text) is None for meaning in meanings)

        looking = asyncio.get_running_loop().call_soon(look)
        try:
            confidences = await verifier.verify(asked, meanings)
        finally:
            looking.cancel()
        if not agreed:  # one that remembers the pairs is back before anything else runs
            look()
        self._counters.verified += len(meanings)
        return [weigh_with_guards(told, agreed=each) for told, each in zip(confidences, agreed, strict=True)]


def _same_words(asked: Meaning, stored: Meaning) -> bool:
    """Whether texts that are short enough for a verifier differ in their spaces alone: what those mean is for guards.

    Nothing is left for a verifier to judge then.
    """
    return bool(asked.tokens and stored.tokens) and asked.text.split() == stored.text.split()


def weigh_with_guards(confidence: float, *, agreed: bool) -> float:
    """Return a verifier's confidence in a pair, raised where the strict guards agreed: none of them vetoes it."""
    if not agreed:
        return confidence
    return _AGREED * confidence / (_AGREED * confidence + 1 - confidence)


def nominate(asked: Meaning, entries: Sequence[Entry]) -> list[Nominee]:
    """Score entries with the vectors that they carry, the nearest first. Raises `ValueError` where one is of no use."""
    own = read_vector(asked.vector)
    nominees = [
        Nominee(entry, entry.meaning, nearness(own, entry.meaning.vector))
        for entry in entries
        if entry.meaning is not None
    ]
    return sorted(nominees, key=lambda nominee: -nominee.similarity)


def _vetoes(asked: Meaning, nominee: Nominee, *, all_of_them: bool, only_sure: bool) -> tuple[Veto, ...]:
    if nominee.similarity < LEAST_SIMILARITY and not all_of_them:
        return ()
    if all_of_them:
        return find_vetoes(nominee.meaning.text, asked.text, only_sure=only_sure)
    veto = find_veto(nominee.meaning.text, asked.text, only_sure=only_sure)
    return () if veto is None else (veto,)


def _weigh(asked: Meaning, nominees: Sequence[Nominee], at: int, vetoes: tuple[Veto, ...]) -> Evidence:
    entry, meaning, score = nominees[at]
    below = nominees[at + 1].similarity if at + 1 < len(nominees) else 0.0
    return Evidence(entry, meaning.text, pair_of(asked, meaning), score, score - below, vetoes)


def _told(weighed: Sequence[Evidence], served: Evidence | None, objected: Evidence | None) -> Match | Miss:
    """Return what was found: one that is served comes before one that would be but for who asks."""
    if served is not None:
        return Match(served, tuple(weighed))
    if objected is not None and objected.decision is not None and objected.decision.reason in ("request", "gone"):
        return Miss(objected.decision.reason, objected, tuple(weighed))
    return _miss(weighed)


def _miss(weighed: Sequence[Evidence]) -> Miss:
    """Say why nothing is served, by the candidate that came furthest."""
    if not weighed:
        return Miss("empty")
    decided = [each for each in weighed if each.decision is not None]
    if decided:
        best = max(decided, key=lambda each: each.confidence or 0.0)
        explored = next((each for each in decided if each.decision is not None and each.decision.explore), best)
        return Miss(_reason(explored.decision), explored, tuple(weighed))
    vetoed = next((each for each in weighed if each.vetoes and each.similarity >= LEAST_SIMILARITY), None)
    if vetoed is not None:
        return Miss("vetoed", vetoed, tuple(weighed))
    return Miss("below-threshold", weighed[0], tuple(weighed))


def _reason(decision: Decision | None) -> Reason:
    if decision is None or decision.reason not in ("exact-only", "refused-pair", "unaudited"):
        return "below-threshold"
    return decision.reason
