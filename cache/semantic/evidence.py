"""What a look-up by meaning found and why, as plain values. Knows no index, no store and no model."""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Literal, NamedTuple

from cache.contract import Entry, Meaning
from cache.semantic.guards import Veto
from cache.trust.contract import Decision, Pair

Reason = Literal[
    "empty",
    "below-threshold",
    "exact-only",
    "unaudited",
    "refused-pair",
    "vetoed",
    "unverified",
    "gone",
    "request",
    "deadline",
    "bad-vector",
]

_DIGEST_BYTES = 16


class Evidence(NamedTuple):
    """One stored question that was weighed against the one asked, nearest first.

    `margin` is by how much it is nearer than the next. `vetoes` are those of the guards: one at most, unless all were
    asked for. `confidence` is None where none was told: the candidate was vetoed, or an earlier one was served.
    """

    entry: Entry
    text: str
    pair: Pair
    similarity: float
    margin: float
    vetoes: tuple[Veto, ...] = ()
    confidence: float | None = None
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """A live entry whose answer serves the question, and all that was weighed, the nearest first.

    What is further than one that was served at once was not weighed.
    """

    best: Evidence
    candidates: tuple[Evidence, ...]

    @property
    def entry(self) -> Entry:
        """The entry that is served."""
        return self.best.entry

    @property
    def similarity(self) -> float:
        """The cosine of the two questions."""
        return self.best.similarity

    @property
    def confidence(self) -> float:
        """How likely it is that the answer is right, as the verifier says; the similarity where there is none."""
        assert self.best.confidence is not None, "what is served was judged"
        return self.best.confidence

    @property
    def decision(self) -> Decision:
        """Why it is served, and whether that is to be audited."""
        assert self.best.decision is not None, "what is served was decided on"
        return self.best.decision

    @property
    def matched_text(self) -> str:
        """The question that the answer was made for."""
        return self.best.text

    @property
    def pair(self) -> Pair:
        """The question asked and the stored one, as labels name them."""
        return self.best.pair


@dataclass(frozen=True, slots=True)
class Miss:
    """Why nothing was served, and all that was weighed, the nearest first.

    `best` came furthest: the most confident candidate that was decided on, or else the nearest; None where there is
    none. Where its decision says `explore` the model's own answer is to be compared with `best.entry`.
    """

    reason: Reason
    best: Evidence | None = None
    candidates: tuple[Evidence, ...] = ()

    @property
    def best_similarity(self) -> float:
        """The cosine of the nearest stored question; 0 where there is none."""
        return self.candidates[0].similarity if self.candidates else 0.0

    @property
    def veto(self) -> Veto | None:
        """What a guard said of the candidate that came furthest."""
        return self.best.vetoes[0] if self.best is not None and self.best.vetoes else None

    @property
    def explore(self) -> bool:
        """Whether the model's answer is to be compared with that of `best`."""
        return self.best is not None and self.best.decision is not None and self.best.decision.explore


def pair_of(asked: Meaning, stored: Meaning) -> Pair:
    """Name the pair of two questions, as labels and refusals do."""
    return Pair(_digest(asked.partition, asked.text), _digest(stored.partition, stored.text))


@lru_cache(maxsize=4096)
def _digest(partition: bytes, text: str) -> bytes:
    words = " ".join(text.split()).encode("utf-8", "surrogatepass")
    return blake2b(words, digest_size=_DIGEST_BYTES, key=partition[:64]).digest()
