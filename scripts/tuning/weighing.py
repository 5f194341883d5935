"""Compares two policies day by day, with an interval for the difference. Knows no policy."""

from dataclasses import dataclass

import numpy as np

from scripts.tuning.traces import Array

_DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Difference:
    """By which share of the other's cost a policy is dearer, with a 95 % interval; below 0 it is cheaper."""

    share: float
    low: float
    high: float

    @property
    def is_certain(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def compare(cost_by_day: Array, other_by_day: Array, seed: int = 0) -> Difference:
    """Return the difference, by a paired bootstrap of whole days: requests of one day depend on each other.

    Days are drawn with replacement, the same for both (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
    """
    rng = np.random.default_rng(seed)
    days = len(cost_by_day)
    drawn = rng.integers(0, days, (_DRAWS, days))
    others = other_by_day[drawn].sum(axis=1)
    shares = (cost_by_day[drawn].sum(axis=1) - others) / np.where(others > 0, others, 1.0)
    low, high = np.quantile(shares, (0.025, 0.975))
    return Difference(float(cost_by_day.sum() / max(other_by_day.sum(), 1e-9) - 1), float(low), float(high))
