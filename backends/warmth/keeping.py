"""Which course a model's replicas take: break-even's, or the learned one where it has been the cheaper. No clock."""

import math
from collections.abc import Mapping
from typing import Any

from backends.warmth.course import Course, break_even, cheapest
from backends.warmth.idle_times import IdleTimes, below
from backends.warmth.ladder import Ladder, two_rungs

HALF_LIFE_S = 3 * 86400.0
# What all models' idle times together count for beside one model's own.
_PRIOR_COUNT = 20.0
# A learned course is made anew when this share of what it was made from is new.
_NEWS = 0.05
# How much cheaper, in starts from nothing, the learned course must have been to be taken.
_EARNED_STARTS = 0.5


# Until a start was measured.
UNKNOWN = two_rungs(5.0)


class Habits:
    """The idle times of all models together: what is believed of a model that was seen too little.

    `forecast` is the one of `Demand.forecasts` that says who gives way.
    """

    def __init__(self, half_life_s: float = HALF_LIFE_S) -> None:
        self.half_life_s = half_life_s
        self.forecast = 0
        self.times = IdleTimes(half_life_s)

    def shares(self) -> list[float] | None:
        """Return the share of each bin; None before the first idle time."""
        return self.times.shares() if self.times.count else None


class Keeping:
    """One model's course. It keeps account of what each idle time cost on it and would have cost on the other."""

    def __init__(self, habits: Habits, ladder: Ladder = UNKNOWN) -> None:
        self.ladder = ladder
        self.safe = break_even(ladder)
        self.learned: Course | None = None
        self.is_learned = False
        self.habits = habits
        self._times = IdleTimes(habits.half_life_s)
        self._made_from = 0.0
        self._gain = 0.0
        self._settled_at = 0.0

    @property
    def course(self) -> Course:
        """The course to take now."""
        return self.learned if self.is_learned and self.learned is not None else self.safe

    def ended(self, idle_s: float, now: float) -> None:
        """Learn from an idle time that ends now."""
        if self.learned is not None:
            self._settle(self.safe.cost(self.ladder, idle_s), self.learned.cost(self.ladder, idle_s), now)
        self._times.add(idle_s, now)
        self.habits.times.add(idle_s, now)
        if self._times.count > self._made_from * (1 + _NEWS) or self._times.count < self._made_from * (1 - _NEWS):
            self._learn()

    def _settle(self, safe: float, learned: float, now: float) -> None:
        """Count what the idle time cost on either course; from a gain of some starts on, the learned one is taken."""
        kept = 2.0 ** (-max(0.0, now - self._settled_at) / self.habits.half_life_s)
        self._settled_at = now
        self._gain = self._gain * kept + safe - learned
        start = self.ladder.wait * self.ladder.rungs[-1].reach_s
        self.is_learned = self._gain > (0.0 if self.is_learned else _EARNED_STARTS * start)

    def price(self, ladder: Ladder) -> None:
        """Take other prices: what was learned of idle times stays."""
        self.ladder, self.safe = ladder, break_even(ladder)
        if self.learned is not None:
            self._learn()

    def chance_within(self, idle_s: float, within_s: float) -> float:
        """Return how likely the next request comes within a time, where the model has been idle for another.

        By its own idle times and what all have in common; 0 where nothing is known.
        """
        shares = self._times.shares(self.habits.shares(), _PRIOR_COUNT)
        now, then = below(shares, idle_s), below(shares, idle_s + within_s)
        return max(0.0, (then - now) / (1.0 - now)) if now < 1.0 else 0.0

    def words(self) -> str:
        """Say which course is taken, for people."""
        if not self.is_learned:
            return "break-even"
        return f"learned from {self._times.count:.0f} idle times"

    def state(self) -> dict[str, Any]:
        """Return what `restore` reads, as JSON values."""
        return {"idle_times": self._times.state(), "gain": self._gain}

    def restore(self, state: Mapping[str, Any], now: float) -> None:
        """Go on where an earlier run ended. Raises `KeyError` and `ValueError` where the state is of another shape."""
        times, gain = IdleTimes.restored(state["idle_times"], self.habits.half_life_s), float(state["gain"])
        if not math.isfinite(gain):
            raise ValueError(f"gain is {gain}")
        self._times, self._gain, self._settled_at = times, gain, now
        self.habits.times.include(times.shares(), times.count)
        self._learn()
        self.is_learned = gain > 0.0

    def _learn(self) -> None:
        self._made_from = self._times.count
        self.learned = cheapest(self.ladder, self._times.shares(self.habits.shares(), _PRIOR_COUNT))
