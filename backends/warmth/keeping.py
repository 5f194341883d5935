"""Which course a model's replicas take: break-even's, or a learned one where it has been the cheaper. No clock."""

import math
from collections.abc import Mapping
from typing import Any

from backends.warmth.by_hour import ByHour, start_price
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
_SAME_TIME_S = 1.0


# Until a start was measured.
UNKNOWN = two_rungs(5.0)


class Habits:
    """The idle times of all models together: what is believed of a model that was seen too little.

    `forecast` is the one of `Demand.forecasts` that says who gives way. `wall_offset_s` added to `now` is Unix time.
    """

    def __init__(self, half_life_s: float = HALF_LIFE_S) -> None:
        self.half_life_s = half_life_s
        self.forecast = 0
        self.wall_offset_s = 0.0
        self.times = IdleTimes(half_life_s)

    def tell_time(self, now: float, wall_s: float) -> None:
        """Note what the wall clock shows; small differences are those of two looks at two clocks."""
        if abs(wall_s - now - self.wall_offset_s) > _SAME_TIME_S:
            self.wall_offset_s = wall_s - now

    def shares(self) -> list[float] | None:
        """Return the share of each bin; None before the first idle time."""
        return self.times.shares() if self.times.count else None


class Keeping:
    """One model's course. It keeps account of what each idle time cost on it and would have cost on the others.

    `began` is when the idle time began that is under way; None before the first.
    """

    def __init__(self, habits: Habits, ladder: Ladder = UNKNOWN) -> None:
        self.ladder = ladder
        self.safe = break_even(ladder)
        self.learned: Course | None = None
        self.is_learned = False
        self.began: float | None = None
        self.habits = habits
        self._by_hour = ByHour()
        self._times = IdleTimes(habits.half_life_s)
        self._made_from = 0.0
        self._gain = 0.0
        self._settled_at = 0.0

    @property
    def course(self) -> Course:
        """The course to take now."""
        return self._course_by_hour() or self.course_by_length

    def begins(self, now: float) -> None:
        """Note that an idle time begins."""
        self.began = now
        self._by_hour.begins(now + self.habits.wall_offset_s, self.ladder, self._shares)

    def ended(self, idle_s: float, now: float) -> None:
        """Learn from an idle time that ends now."""
        began_s = now - idle_s + self.habits.wall_offset_s
        other, ladder = self.course_by_length, self.ladder
        self._by_hour.ended(began_s, idle_s, now, other=other, ladder=ladder, shares=self._shares)
        if self.learned is not None:
            self._settle(self.safe.cost(self.ladder, idle_s), self.learned.cost(self.ladder, idle_s), now)
        self._times.add(idle_s, now)
        self.habits.times.add(idle_s, now)
        if self._times.count > self._made_from * (1 + _NEWS) or self._times.count < self._made_from * (1 - _NEWS):
            self._learn()

    @property
    def course_by_length(self) -> Course:
        """The course to take where hours are not known, or not trusted."""
        return self.learned if self.is_learned and self.learned is not None else self.safe

    def _course_by_hour(self) -> Course | None:
        if self.began is None:
            return None
        began_s = self.began + self.habits.wall_offset_s
        return self._by_hour.course(began_s, self.course_by_length, self.ladder, self._shares)

    def _settle(self, safe: float, learned: float, now: float) -> None:
        """Count what the idle time cost on either course; from a gain of some starts on, the learned one is taken."""
        kept = 2.0 ** (-max(0.0, now - self._settled_at) / self.habits.half_life_s)
        self._settled_at = now
        self._gain = self._gain * kept + safe - learned
        self.is_learned = self._gain > (0.0 if self.is_learned else _EARNED_STARTS * start_price(self.ladder))

    def price(self, ladder: Ladder) -> None:
        """Take other prices: what was learned of idle times stays."""
        self.ladder, self.safe = ladder, break_even(ladder)
        self._by_hour.forget()
        if self.learned is not None:
            self._learn()

    def chance_within(self, idle_s: float, within_s: float) -> float:
        """Return how likely the next request comes within a time, where the model has been idle for another.

        By its own idle times and what all have in common; 0 where nothing is known.
        """
        shares = self._shares()
        now, then = below(shares, idle_s), below(shares, idle_s + within_s)
        return max(0.0, (then - now) / (1.0 - now)) if now < 1.0 else 0.0

    def words(self) -> str:
        """Say which course is taken, for people."""
        if self.began is not None and self._course_by_hour() is not None:
            return self._by_hour.words(self.began + self.habits.wall_offset_s)
        if not self.is_learned:
            return "break-even"
        return f"learned from {self._times.count:.0f} idle times"

    def state(self) -> dict[str, Any]:
        """Return what `restore` reads, as JSON values."""
        return {"idle_times": self._times.state(), "gain": self._gain, "by_hour": self._by_hour.state()}

    def restore(self, state: Mapping[str, Any], now: float) -> None:
        """Go on where an earlier run ended. Raises `KeyError` and `ValueError` where the state is of another shape."""
        times, gain = IdleTimes.restored(state["idle_times"], self.habits.half_life_s), float(state["gain"])
        if not math.isfinite(gain):
            raise ValueError(f"gain is {gain}")
        by_hour = ByHour()
        if "by_hour" in state:  # it is not where an earlier version saved
            by_hour.restore(state["by_hour"], self.ladder)
        self._times, self._gain, self._settled_at, self._by_hour = times, gain, now, by_hour
        self.habits.times.include(times.shares(), times.count)
        self._learn()
        self.is_learned = gain > 0.0

    def _learn(self) -> None:
        self._made_from = self._times.count
        self.learned = cheapest(self.ladder, self._shares())

    def _shares(self) -> list[float]:
        return self._times.shares(self.habits.shares(), _PRIOR_COUNT)
