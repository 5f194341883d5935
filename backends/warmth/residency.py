"""How long a replica stays before it goes down, and the course that it lives because of that. Pure; knows no model."""

import math

from backends.warmth.course import Course
from backends.warmth.ladder import Ladder

IDLE_FLOOR_S = 60.0
"""An idle replica is kept at least so long, whatever its course says."""


def least_stay_s(climb_s: float, keep_s: float | None = None, floor_s: float = IDLE_FLOOR_S) -> float:
    """Return how long a replica idles, or sleeps, at least before it goes to where coming back takes `climb_s`.

    That is as long as coming back takes, else it never paid for its climb; or what the operator says, `keep_s`.
    """
    return max(floor_s, climb_s) if keep_s is None else keep_s


def lived(course: Course, ladder: Ladder, keep_s: float | None = None) -> Course:
    """Return what the one replica of a model does in an idle time for which the keeper is given this course.

    It is up when the idle time begins, and goes down no sooner than `least_stay_s` has it; with `keep_s` just then, and
    no request is waited for from then on. Nobody is started only to sleep.
    """
    times, places, since_s = [0.0], [0], 0.0
    for start_s, end_s, place in zip(course.times_s, (*course.times_s[1:], math.inf), course.places, strict=True):
        standing = places[-1]
        to = place if keep_s is None else max(1, place)
        if to > standing:
            stay_s = least_stay_s(ladder.rungs[to].reach_s, None if standing else keep_s)
            at_s = settled_s = max(start_s, since_s + stay_s)
        elif to == 0 < standing:
            at_s, settled_s = start_s, start_s + ladder.rungs[standing].reach_s - ladder.rungs[0].reach_s
        else:
            continue
        if at_s < end_s:
            times.append(at_s)
            places.append(to)
            since_s = settled_s
    return Course(tuple(times), tuple(places))
