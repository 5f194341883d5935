"""Judges candidates for one question: guards, then the verifier, then trust. Knows no index and no store.

Where a verifier judges, only the sure guards veto; that the strict ones pass a pair raises its confidence. The
same judgement serves a stored answer and lets a question join one that is in flight.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from cache.contract import Entry, Meaning
from cache.semantic.contract import Objection, Objects, Verifier, VerifierError
from cache.semantic.counters import SemanticCounters
from cache.semantic.evidence import Evidence, Match, Miss, Reason, pair_of
from cache.semantic.guards import Veto, find_veto, find_vetoes
from cache.semantic.vectors import similarity
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

        `thoroughly` asks all guards about each candidate, and trust about each that no guard vetoed. With `preview`
        trust counts no hit: nothing is served yet. Nor is what the caller `objects` to.
        """
        vetoes = [
            _vetoes(asked, nominee, all_of_them=thoroughly, only_sure=self.verifier is not None) for nominee in nominees
        ]
        weighed = [_weigh(asked, nominees, at, vetoes[at]) for at in range(len(nominees))]
        open_ones = [at for at, each in enumerate(weighed) if not each.vetoes and each.similarity >= LEAST_SIMILARITY]
        if not open_ones:
            return _miss(weighed)
        try:
            confidences = await self._confidences(asked, [nominees[at] for at in open_ones])
        except VerifierError:
            return Miss("unverified", weighed[open_ones[0]], tuple(weighed))
        served: Evidence | None = None
        objected: Evidence | None = None
        for confidence, at in sorted(zip(confidences, open_ones, strict=True), key=lambda each: (-each[0], each[1])):
            objection = None if objects is None else objects(weighed[at].entry)
            decision = self._decide(namespace, weighed[at].pair, confidence, objection, preview=preview)
            weighed[at] = replace(weighed[at], confidence=confidence, decision=decision)
            if objection is not None and decision.reason == objection:
                objected = objected or weighed[at]
            if decision.serve and served is None:
                served = weighed[at]
                if not thoroughly:
                    break
        return _told(weighed, served, objected)

    def _decide(
        self, namespace: str, pair: Pair, confidence: float, objection: Objection | None, *, preview: bool
    ) -> Decision:
        """Ask trust. What is objected to is not served whatever it says, so that nothing of it may be counted."""
        if objection is None:
            return (self.trust.preview if preview else self.trust.decide)(namespace, pair, confidence)
        would = self.trust.preview(namespace, pair, confidence)
        reason = objection if would.serve else would.reason
        return replace(would, serve=False, reason=reason, audit=False, explore=False)

    async def _confidences(self, asked: Meaning, nominees: Sequence[Nominee]) -> Sequence[float]:
        if self.verifier is None:
            return [min(1.0, max(0.0, nominee.similarity)) for nominee in nominees]
        confidences = [1.0] * len(nominees)
        at = [place for place, nominee in enumerate(nominees) if not _same_words(asked, nominee.meaning)]
        if at:
            told = await self.verifier.verify(asked, [nominees[place].meaning for place in at])
            self._counters.verified += len(at)
            for place, confidence in zip(at, told, strict=True):
                confidences[place] = weigh_with_guards(confidence, nominees[place].meaning.text, asked.text)
        return confidences


def _same_words(asked: Meaning, stored: Meaning) -> bool:
    """Whether texts that are short enough for a verifier differ in their spaces alone: what those mean is for guards.

    Nothing is left for a verifier to judge then.
    """
    return bool(asked.tokens and stored.tokens) and asked.text.split() == stored.text.split()


def weigh_with_guards(confidence: float, stored: str, asked: str) -> float:
    """Return a verifier's confidence in a pair, raised where no strict guard vetoes the pair."""
    if find_veto(stored, asked) is not None:
        return confidence
    return _AGREED * confidence / (_AGREED * confidence + 1 - confidence)


def nominate(asked: Meaning, entries: Sequence[Entry]) -> list[Nominee]:
    """Score entries with the vectors that they carry, the nearest first. Raises `ValueError` where one is of no use."""
    nominees = [
        Nominee(entry, entry.meaning, similarity(entry.meaning.vector, asked.vector))
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
