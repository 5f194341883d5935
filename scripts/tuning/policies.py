"""The policies that are weighed: which course each takes for a model's next idle time. Knows no trace."""

from collections import defaultdict
from collections.abc import Callable
from typing import Protocol

import numpy as np

from backends.demand import LEAST_IDLE_S
from backends.warmth.course import Course, break_even, fixed
from backends.warmth.keeping import Habits, Keeping
from backends.warmth.ladder import Ladder
from backends.warmth.residency import lived

Ladders = Callable[[str], Ladder]
"""Gives each model's ladder."""


class Policy(Protocol):
    """Chooses before an idle time begins, and learns from it when it has ended."""

    def course(self, model: str, began_s: float) -> Course:
        """Return the course for the model's idle time that begins now."""
        ...

    def ended(self, model: str, idle_s: float, now: float) -> None:
        """Learn from an idle time that ends now."""
        ...


class Unlearned:
    """One course for each ladder, whatever happens."""

    def __init__(self, ladders: Ladders, course_on: Callable[[Ladder], Course]) -> None:
        self._ladders = ladders
        self._course_on = course_on
        self._courses: dict[str, Course] = {}

    def course(self, model: str, began_s: float) -> Course:
        """Return the model's only course."""
        del began_s
        if model not in self._courses:
            self._courses[model] = self._course_on(self._ladders(model))
        return self._courses[model]

    def ended(self, model: str, idle_s: float, now: float) -> None:
        """Learn nothing."""


def time_to_live(ladders: Ladders, keep_s: float) -> Unlearned:
    """Keep each model warm for a fixed time, then let it go."""
    return Unlearned(ladders, lambda ladder: fixed(ladder, keep_s))


def by_break_even(ladders: Ladders) -> Unlearned:
    """Go down the ladder at each break-even, as the keeper does where nothing was learned."""
    return Unlearned(ladders, lambda ladder: lived(break_even(ladder), ladder))


def kept_for(ladder: Ladder, keep_s: float) -> Course:
    """Return the course of an operator's time: the warmest rung for so long, then down as break-even says."""
    return lived(break_even(ladder), ladder, keep_s)


class Ours:
    """What the gateway does; without `by_hour` what it would do if it knew no hours of the week.

    `start_s` is the Unix time at which times begin to count.
    """

    def __init__(self, ladders: Ladders, *, by_hour: bool = True, start_s: float = 0.0) -> None:
        self._ladders = ladders
        self._by_hour = by_hour
        self._habits = Habits()
        self._habits.tell_time(0.0, start_s)
        self._keepings: dict[str, Keeping] = {}

    def course(self, model: str, began_s: float) -> Course:
        """Return the course of the model's keeping."""
        keeping = self._keeping(model)
        keeping.began = began_s
        return lived(keeping.course if self._by_hour else keeping.course_by_length, keeping.ladder)

    def ended(self, model: str, idle_s: float, now: float) -> None:
        """Let the keeping learn; what is no pause to the gateway is none here."""
        if idle_s >= LEAST_IDLE_S:
            self._keeping(model).ended(idle_s, now)

    def _keeping(self, model: str) -> Keeping:
        if model not in self._keepings:
            self._keepings[model] = Keeping(self._habits, self._ladders(model))
        return self._keepings[model]


class HybridHistogram:
    """Pre-warming and keep-alive windows from a histogram of idle times (Shahrad et al., Serverless in the Wild, 2020).

    One minute a bin, four hours in all. Where the counts vary too little to tell anything, or most idle times are
    beyond the histogram, it is the longest keep-alive, or 15 % around the median of the last ones.
    """

    _BIN_S = 60.0
    _BINS = 240
    _LEAST = 10
    _LEAST_VARIATION = 2.0
    _HEAD, _TAIL, _MARGIN = 0.05, 0.99, 0.1
    _BEYOND, _BEYOND_MARGIN = 0.5, 0.15

    def __init__(self, ladders: Ladders) -> None:
        self._ladders = ladders
        self._counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(self._BINS))
        self._beyond: dict[str, list[float]] = defaultdict(list)
        self._courses: dict[str, Course] = {}

    def course(self, model: str, began_s: float) -> Course:
        """Return the window of the model's histogram."""
        del began_s
        if model not in self._courses:
            self._courses[model] = self._window(model)
        return self._courses[model]

    def ended(self, model: str, idle_s: float, now: float) -> None:
        """Count the idle time."""
        del now
        place = int(idle_s / self._BIN_S)
        if place < self._BINS:
            self._counts[model][place] += 1
        else:
            self._beyond[model].append(idle_s)
        self._courses.pop(model, None)

    def _window(self, model: str) -> Course:
        counts, beyond = self._counts[model], self._beyond[model]
        seen = counts.sum() + len(beyond)
        ladder = self._ladders(model)
        longest = fixed(ladder, self._BIN_S * self._BINS)
        if seen < self._LEAST:
            return longest
        if len(beyond) > self._BEYOND * seen:
            middle = float(np.median(beyond[-self._LEAST :]))
            return _between(ladder, middle * (1 - self._BEYOND_MARGIN), middle * (1 + self._BEYOND_MARGIN))
        if counts.std() < self._LEAST_VARIATION * counts.mean():
            return longest
        reached = np.cumsum(counts) / counts.sum()
        head = int(np.searchsorted(reached, self._HEAD)) * self._BIN_S * (1 - self._MARGIN)
        tail = (int(np.searchsorted(reached, self._TAIL)) + 1) * self._BIN_S * (1 + self._MARGIN)
        return _between(ladder, head, tail)


def _between(ladder: Ladder, start_s: float, end_s: float) -> Course:
    """Return the course that is warm from one idle time to another."""
    cold = len(ladder.rungs) - 1
    return fixed(ladder, end_s) if start_s <= 0 else Course((0.0, start_s, end_s), (cold, 0, cold))
