"""A model's courses by the hour of the week, and whether they have earned to be taken. Knows no clock."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.warmth.course import Course, cheapest
from backends.warmth.expected import OCTAVES, Expected, expect
from backends.warmth.hours import HOUR_S, LONG_S, WEEK_S, Hours, hour_of, hour_words, within
from backends.warmth.ladder import Ladder
from backends.warmth.residency import lived

# How long a model must have been seen for its courses by the hour to be weighed on paper, and to be taken: two weeks,
# of which some hours are not between its first idle time and its last.
_WEIGHED_S, _TAKEN_S = WEEK_S, 2 * WEEK_S - 12 * HOUR_S
# So many idle times must be known of the hour of the week, and of the same hour of all days.
_LEAST_IN_HOUR, _LEAST_OF_DAY = 0.75, 3.0
# How much cheaper than the other course, in starts from nothing, one must have been to be taken, and below what it is
# taken no more. More than the most and less than the least does not count, so that what was earned is soon lost.
_EARNED_STARTS, _LOST_STARTS = 1.0, 0.5
_MOST_STARTS, _LEAST_STARTS = 1.5, -3.0
# From about two hours of idleness on the cautious one of the two goes by the clock.
_CAUTIOUS_S = 8192.0
# The least that the hour is believed, or doubted: what tells nothing now may do so later.
_DOUBT = 0.02
_HALF = 0.5


Shares = Callable[[], Sequence[float]]
"""Gives the shares of `IdleTimes`, by which goes what an hour does not tell."""


@dataclass(frozen=True, slots=True)
class _Made:
    """What was made for one hour: its expectations, and the course of an idle time that begins with it.

    Neither is there where too little is known of the hour.
    """

    which: int
    expected: Expected | None = None
    course: Course | None = None


class ByHour:
    """Two courses for an idle time: one by the hour in which it began, and one that is so only after two hours.

    They are made once in an hour at most, from what was known when an idle time began in it. What each would have cost
    is weighed against the course that is taken without them.
    """

    def __init__(self) -> None:
        self.hours = Hours()
        self._beliefs = [_HALF] * OCTAVES
        self._gains = [0.0, 0.0]
        self._taken: int | None = None
        self._made: _Made | None = None
        self._courses: tuple[float, Course, tuple[Course, Course]] | None = None

    def begins(self, began_wall_s: float, ladder: Ladder, shares: Shares) -> None:
        """Make what is needed for an idle time that begins now: neither who comes next nor the keeper waits for it."""
        which = int(began_wall_s // HOUR_S)
        if self.hours.seen_s >= _WEIGHED_S and (self._made is None or self._made.which != which):
            self._made = self._make(which, hour_of(began_wall_s), ladder, shares)

    def course(self, began_wall_s: float, other: Course, ladder: Ladder, shares: Shares) -> Course | None:
        """Return the course to take for an idle time that began at a Unix time; None where `other` is to be taken."""
        if self._taken is None or self.hours.seen_s < _TAKEN_S:
            return None
        courses = self._both(began_wall_s, other, ladder, shares)
        return None if courses is None else courses[self._taken]

    def ended(
        self, began_wall_s: float, idle_s: float, now: float, *, other: Course, ladder: Ladder, shares: Shares
    ) -> None:
        """Learn from an idle time that began at a Unix time and ends now, for which `other` was the other course."""
        courses = self._both(began_wall_s, other, ladder, shares)
        if courses is not None:
            self._settle(courses, idle_s, other, ladder)
        if courses is not None and self._made is not None and self._made.expected is not None:
            for octave, by_hour, by_length in self._made.expected.told(began_wall_s % HOUR_S, idle_s):
                self._beliefs[octave] = _believed(self._beliefs[octave], by_hour, by_length)
        self.hours.add(began_wall_s, idle_s, now)

    def forget(self) -> None:
        """Make courses anew: prices have changed."""
        self._made = self._courses = None

    def words(self, began_wall_s: float) -> str:
        """Say by which hour an idle time goes, for people."""
        hour = hour_of(began_wall_s)
        return f"learned for {hour_words(hour)} from {math.ceil(self.hours.count(hour))} idle times"

    def state(self) -> dict[str, Any]:
        """Return what `restore` reads, as JSON values."""
        return {"hours": self.hours.state(), "beliefs": self._beliefs, "gains": self._gains}

    def restore(self, state: Mapping[str, Any], ladder: Ladder) -> None:
        """Go on where an earlier run ended. Raises `KeyError`, `TypeError`, `ValueError` if it is no such state."""
        hours = Hours.restored(state["hours"])
        beliefs = [within(each, 0.0, 1.0) for each in state["beliefs"]]
        gains = [within(each, -math.inf, math.inf) for each in state["gains"]]
        if len(beliefs) != OCTAVES or len(gains) != len(self._gains):
            raise ValueError(f"{len(beliefs)} beliefs and {len(gains)} gains where {OCTAVES} and 2 are needed")
        self.hours, self._beliefs, self._gains = hours, beliefs, gains
        self.forget()
        self._choose(start_price(ladder))

    def _both(self, began_wall_s: float, other: Course, ladder: Ladder, shares: Shares) -> tuple[Course, Course] | None:
        """Return both courses, whether they are trusted or not; None where too little is known of the hour."""
        if self._courses is not None and self._courses[0] == began_wall_s and self._courses[1] is other:
            return self._courses[2]
        self.begins(began_wall_s, ladder, shares)
        if self._made is None or self._made.course is None:
            return None
        by_hour = _from_hour(self._made.course, began_wall_s % HOUR_S)
        courses = by_hour, _changed_at(_CAUTIOUS_S, other, by_hour)
        self._courses = began_wall_s, other, courses
        return courses

    def _make(self, which: int, hour: int, ladder: Ladder, shares: Shares) -> _Made:
        if self.hours.count(hour) < _LEAST_IN_HOUR or sum(self.hours.kinds_of_day(hour)) < _LEAST_OF_DAY:
            return _Made(which)
        expected = expect(self.hours, hour, shares(), ladder.rungs[-1].reach_s - ladder.rungs[0].reach_s)
        return _Made(which, expected, cheapest(ladder, expected.shares(self._beliefs), expected.edges_s))

    def _settle(self, courses: Sequence[Course], idle_s: float, other: Course, ladder: Ladder) -> None:
        """Count what the idle time cost on each course, as a replica lives it: many short stays cost more than said."""
        start = start_price(ladder)
        without = lived(other, ladder).cost(ladder, idle_s)
        for at, course in enumerate(courses):
            gain = self._gains[at] + without - lived(course, ladder).cost(ladder, idle_s)
            self._gains[at] = max(_LEAST_STARTS * start, min(_MOST_STARTS * start, gain))
        self._choose(start)

    def _choose(self, start: float) -> None:
        if self._taken is not None and self._gains[self._taken] <= _LOST_STARTS * start:
            self._taken = None
        best = self._gains.index(max(self._gains))
        if self._gains[best] > max(_EARNED_STARTS * start, 0.0 if self._taken is None else self._gains[self._taken]):
            self._taken = best


def start_price(ladder: Ladder) -> float:
    """Return what waiting for a start from nothing costs."""
    return ladder.wait * ladder.rungs[-1].reach_s


def _believed(belief: float, by_hour: float, by_length: float) -> float:
    """Return how far the hour is believed (Bayes), after something that was so likely by it and by length alone."""
    total = belief * by_hour + (1.0 - belief) * by_length
    return belief if total <= 0.0 else _DOUBT + (1.0 - 2.0 * _DOUBT) * belief * by_hour / total


def _from_hour(course: Course, past_s: float) -> Course:
    """Return the course for an idle time that began so long past the hour: what goes by the clock comes sooner."""
    times, places = [0.0], [course.places[0]]
    for at_s, place in zip(course.times_s[1:], course.places[1:], strict=True):
        moved_s = at_s if at_s < LONG_S else max(LONG_S, at_s - past_s)
        if moved_s <= times[-1]:
            places[-1] = place
        else:
            times.append(moved_s)
            places.append(place)
    return Course(tuple(times), tuple(places))


def _changed_at(idle_s: float, first: Course, then: Course) -> Course:
    """Return the first course, from an idle time on the other."""
    steps = [step for step in zip(first.times_s, first.places, strict=True) if step[0] < idle_s]
    steps.append((idle_s, then.place_at(idle_s)))
    steps += [step for step in zip(then.times_s, then.places, strict=True) if step[0] > idle_s]
    kept = [step for at, step in enumerate(steps) if not at or step[1] != steps[at - 1][1]]
    return Course(tuple(at_s for at_s, _ in kept), tuple(place for _, place in kept))
