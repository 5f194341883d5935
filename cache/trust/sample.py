"""What was looked at within a namespace: labels by level of confidence, and the hits that were served. Pure values.

Each is kept twice, the younger begun when the older was half full: when the younger is half full too it takes the
older's place. So what is long past is forgotten in steps, and a bound always counts from a fixed beginning.
"""

from dataclasses import dataclass, replace

from cache.trust.bounds import MIXTURE, cost_of_wrong, upper_mean, upper_sum

# From strict to loose. A threshold is one of these; each is learned about by the labels between it and the one before.
LEVELS = (1.0, 0.999, 0.995, 0.99, 0.98, 0.97, 0.95, 0.93, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)

WINDOW_S = 30 * 86400.0
WINDOW_LABELS = 10_000
WINDOW_HITS = 40_000

_NONE = (0,) * len(LEVELS)


def level_of(confidence: float) -> int | None:
    """Return the place of the strictest level that a confidence reaches, or None where it reaches none."""
    return next((place for place, level in enumerate(LEVELS) if confidence >= level), None)


@dataclass(frozen=True, slots=True)
class Sample:
    """How many candidates of each level were looked at since `begun`, and how many of them would be wrong."""

    begun: float
    looked_at: tuple[int, ...] = _NONE
    wrong: tuple[int, ...] = _NONE

    def add(self, level: int, *, same: bool) -> "Sample":
        """Return the sample with one more."""
        return Sample(self.begun, _plus(self.looked_at, level, 1), _plus(self.wrong, level, int(not same)))

    def counts(self, first: int, last: int) -> tuple[int, int]:
        """Return how many of the levels from `first` to `last` were looked at, and how many were wrong."""
        return sum(self.looked_at[first : last + 1]), sum(self.wrong[first : last + 1])

    def upper(self, first: int, last: int, delta: float) -> float:
        """Return the bound on the share of wrong ones among these levels."""
        return upper_mean(*self.counts(first, last), delta)

    def is_full(self, now: float) -> bool:
        """Tell whether it is half of what is remembered at most."""
        return sum(self.looked_at) * 2 >= WINDOW_LABELS or (now - self.begun) * 2 >= WINDOW_S


@dataclass(frozen=True, slots=True)
class Ledger:
    """The hits that were served since `begun`, and what the audits say of their sum.

    `found` estimates how many were wrong: each that an audit found counts for all those like it that none looked at
    (Horvitz and Thompson). `floor` is the audit share that the bound is made for: a hit that was audited more rarely
    weighs less in `weight`.
    """

    begun: float
    floor: float
    hits: int = 0
    weight: float = 0.0
    audited: int = 0
    wrong: int = 0
    found: float = 0.0
    spent: tuple[float, ...] = (0.0,) * len(MIXTURE)

    def serve(self, share: float) -> "Ledger":
        """Return the ledger with one more hit, audited with probability `share`."""
        return replace(self, hits=self.hits + 1, weight=self.weight + min(1.0, share / self.floor))

    def audit(self, share: float, *, same: bool) -> "Ledger":
        """Return the ledger with what an audit found."""
        if same:
            return replace(self, audited=self.audited + 1)
        costs = cost_of_wrong(min(self.floor, share), share)
        return replace(
            self,
            audited=self.audited + 1,
            wrong=self.wrong + 1,
            found=self.found + 1.0 / share,
            spent=tuple(spent + cost for spent, cost in zip(self.spent, costs, strict=True)),
        )

    def upper(self, delta: float) -> float:
        """Return the bound on the mean chance of the served hits to be wrong; 1 where none was served."""
        if not self.weight:
            return 1.0
        return upper_sum(self.spent, delta, self.weight, self.floor) / self.weight

    def is_full(self, now: float) -> bool:
        """Tell whether it is half of what is remembered at most."""
        return self.hits * 2 >= WINDOW_HITS or (now - self.begun) * 2 >= WINDOW_S


def _plus(counts: tuple[int, ...], place: int, more: int) -> tuple[int, ...]:
    return (*counts[:place], counts[place] + more, *counts[place + 1 :])
