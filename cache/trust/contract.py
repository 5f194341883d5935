"""What is asked of trust, and what it says: plain values. Knows nothing of how confidence or labels come about."""

from dataclasses import dataclass
from typing import Literal, Protocol

Source = Literal["audit", "exploration", "feedback"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A question, and the stored one whose answer might serve it; digests of partition and text, which order not."""

    asked: bytes
    stored: bytes


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a candidate's answer is served, and why. `confidence` was held against `threshold`.

    `audit`: the served answer is to be checked against the model's own; chance chose it, with probability `share`.
    `explore`: it is not served, and the model's answer, which is made anyway, is to be compared with it. `unaudited`:
    it might be served, were there audits left to watch over it. `request` and `gone` are not trust's: it would be
    served, but whoever asked does not take it, or it cannot be had; it counts as no hit.
    """

    serve: bool
    reason: Literal[
        "certified",
        "starting",
        "fixed",
        "below-threshold",
        "exact-only",
        "refused-pair",
        "unaudited",
        "request",
        "gone",
    ]
    confidence: float
    threshold: float
    audit: bool = False
    explore: bool = False
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Label:
    """What became known of one candidate: whether one answer serves both. `at` is in seconds since the epoch.

    `share` is that of the decision: with which probability it was looked at.
    """

    namespace: str
    pair: Pair
    confidence: float
    served: bool
    same: bool
    source: Source
    at: float
    share: float = 1.0


class Trust(Protocol):
    """Decides what may be served within a namespace, and learns from labels. Never waits."""

    def decide(self, namespace: str, pair: Pair, confidence: float) -> Decision:
        """Decide on a candidate that no guard vetoed; `confidence` in [0, 1] rises with how likely it is right.

        What it says to serve is served, and counted as a hit.
        """
        ...

    def preview(self, namespace: str, pair: Pair, confidence: float) -> Decision:
        """Tell what would be decided, and count nothing."""
        ...

    def learn(self, label: Label) -> None:
        """Take a label into account at once; it outlives a restart."""
        ...
