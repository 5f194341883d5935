"""A course: on which rung to be after how long an idle time. Pure; knows no model and no clock."""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import sub

from backends.warmth.idle_times import EDGES_S, WIDTHS_S
from backends.warmth.ladder import Ladder


@dataclass(frozen=True, slots=True)
class Course:
    """From `times_s[i]` of idleness on, be on rung `places[i]` of the ladder; the first time is 0."""

    times_s: tuple[float, ...]
    places: tuple[int, ...]

    def place_at(self, idle_s: float) -> int:
        """Return the rung to be on after this idle time."""
        return self.places[bisect.bisect_right(self.times_s, idle_s) - 1]

    def next_change_s(self, idle_s: float) -> float | None:
        """Return the idle time at which the rung changes next; None where it stays."""
        at = bisect.bisect_right(self.times_s, idle_s)
        return self.times_s[at] if at < len(self.times_s) else None

    def held(self, idle_s: float) -> Iterator[tuple[int, float]]:
        """Yield each rung that an idle time of this length is spent on, and for how long."""
        for at, start_s in enumerate(self.times_s):
            end_s = self.times_s[at + 1] if at + 1 < len(self.times_s) else idle_s
            if end_s >= idle_s:
                yield self.places[at], idle_s - start_s
                return
            yield self.places[at], end_s - start_s

    def cost(self, ladder: Ladder, idle_s: float) -> float:
        """Return what an idle time of this length costs: what was held, and the wait of the request that ends it."""
        held = sum([ladder.rungs[place].hold * seconds for place, seconds in self.held(idle_s)])
        return held + ladder.wait * self.wait_s(ladder, idle_s)

    def wait_s(self, ladder: Ladder, idle_s: float) -> float:
        """Return how long the request waits that ends an idle time of this length; a climb may be under way."""
        at = bisect.bisect_right(self.times_s, idle_s) - 1
        reach_s = ladder.rungs[self.places[at]].reach_s
        if at == 0:
            return reach_s
        climb_s = ladder.rungs[self.places[at - 1]].reach_s - reach_s
        return reach_s + max(0.0, climb_s - (idle_s - self.times_s[at]))


ALWAYS_COLD = Course((0.0,), (1,))
"""Never wait for a next request, on a ladder of two rungs."""


def break_even(ladder: Ladder) -> Course:
    """Return the course that needs no forecast: leave each rung when staying has cost what coming back would."""
    times = [0.0, *(ladder.leave_after_s(place) for place in range(len(ladder.rungs) - 1))]
    return Course(tuple(times), tuple(range(len(ladder.rungs))))


def fixed(ladder: Ladder, keep_s: float) -> Course:
    """Return the course of one time to live: the warmest rung until then, and the coldest after it."""
    return Course((0.0, keep_s), (0, len(ladder.rungs) - 1))


def cheapest(ladder: Ladder, shares: Sequence[float], edges_s: Sequence[float] = EDGES_S) -> Course:
    """Return the course of least expected cost where idle times fall into bins by these shares.

    `edges_s` is where each bin begins, those of `IdleTimes` unless told otherwise; the last has no end.
    Dynamic programming from the last bin to the first: what is still to come, given the rung that a bin is entered on.
    A climb costs the warmest rung for as long as it takes, and leads there: nobody is started only to sleep. So it
    keeps, lets go and comes back before the request.
    """
    rungs = ladder.rungs
    steps = range(len(rungs))
    climbs = [[max(0.0, rungs[a].reach_s - rungs[b].reach_s) * rungs[b].hold for b in steps] for a in steps]
    ways = [[k for k in steps if k == 0 or k >= place] for place in steps]
    waits = [ladder.wait * rung.reach_s for rung in rungs]
    ahead = [0.0 for _ in steps]
    choices: list[list[int]] = []
    alive = max(0.0, 1.0 - sum(shares))
    widths_s = WIDTHS_S if edges_s is EDGES_S else [*map(sub, edges_s[1:], edges_s), WIDTHS_S[-1]]
    for share, width_s in zip(reversed(shares), reversed(widths_s), strict=True):
        held_s = (alive + share / 2) * width_s
        alive += share
        stay = [rungs[k].hold * held_s + share * waits[k] + ahead[k] for k in steps]
        entered = [min(ways[place], key=lambda k, climb=climbs[place]: stay[k] + alive * climb[k]) for place in steps]  # type: ignore[misc]
        ahead = [stay[k] + alive * climbs[place][k] for place, k in enumerate(entered)]
        choices.append(entered)
    return _walk(choices[::-1], edges_s)


def _walk(choices: Sequence[Sequence[int]], edges_s: Sequence[float]) -> Course:
    times, places = [0.0], [choices[0][0]]
    for start_s, entered in zip(edges_s[1:], choices[1:], strict=True):
        place = entered[places[-1]]
        if place != places[-1]:
            times.append(start_s)
            places.append(place)
    return Course(tuple(times), tuple(places))
