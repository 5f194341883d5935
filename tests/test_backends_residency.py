"""What the replay takes for a replica's life is what the keeper makes of it, and the least time of a stay holds."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.actions import Demote, Start, Stop, Wake
from backends.planning import plan
from backends.snapshot import LevelCost, PoolSnapshot, ReplicaSnapshot, ReplicaState
from backends.warmth.course import Course, break_even, cheapest, fixed
from backends.warmth.idle_times import EDGES_S
from backends.warmth.ladder import Ladder, Level, Rung, two_rungs
from backends.warmth.residency import IDLE_FLOOR_S, lived

LONGEST_S = 400


@dataclass
class Life:
    """A model with one replica at most, that the keeper's own plan takes up and down, second by second."""

    ladder: Ladder
    course: Course
    keep_s: float | None
    level: Level = Level.WARM
    since: float = 0.0
    idle_since: float = 0.0

    def look(self, now: float) -> int:
        """Do what the plan says at this second; return the place on the ladder that is stood on or climbed to."""
        for action in plan(now, [self._pool(now)], None):
            match action:
                case Demote():
                    self.level, self.since = Level.ASLEEP, now
                case Stop():
                    self.level = Level.ABSENT
                case Start() | Wake():
                    self.since = self.idle_since = now + self._reach_s(self.level)
                    self.level = Level.WARM
        return self.ladder.levels.index(self.level)

    def _reach_s(self, level: Level) -> float:
        return self.ladder.rungs[self.ladder.levels.index(level)].reach_s

    def _pool(self, now: float) -> PoolSnapshot:
        warm = ReplicaState.READY if self.since <= now else ReplicaState.STARTING
        state = ReplicaState.ASLEEP if self.level is Level.ASLEEP else warm
        replica = ReplicaSnapshot("m-1", state, 0, self.since, self.idle_since, 0.0, 1, self.level)
        costs = [LevelCost(rung.level, rung.reach_s, rung.reach_s, 1) for rung in reversed(self.ladder.rungs)]
        return PoolSnapshot(
            model="m", min_replicas=0, max_replicas=1, slots_per_replica=1, queued=0, queue_limit=9, oldest_wait_s=0.0,
            replicas=() if self.level is Level.ABSENT else (replica,), rate_per_s=0.001, last_arrival=0.0,
            start_s=self._reach_s(Level.ABSENT), service_s=1.0, replica_bytes=1, keep_warm_s=self.keep_s,
            course=self.course, idle_since=0.0, rungs=self.ladder.levels, costs=tuple(costs),
        )  # fmt: skip


@st.composite
def ladders(draw: st.DrawFn) -> Ladder:
    """Draw a ladder with sleep or without, whose climbs are below the least stay or above it."""
    cold_s = draw(st.sampled_from([1.0, 47.0, 90.0]))
    asleep = [Rung(Level.ASLEEP, 0.1, draw(st.sampled_from([1.0, 3.0, 70.0])))] if draw(st.booleans()) else []
    rungs = (Rung(Level.WARM, 1.0, 0.0), *asleep, Rung(Level.ABSENT, 0.0, max(cold_s, *(r.reach_s for r in asleep), 0)))
    return Ladder(rungs, 100.0)


@st.composite
def courses(draw: st.DrawFn, places: int) -> Course:
    """Draw any course over so many places, whether somebody would take it or not."""
    times = [0, *sorted(draw(st.sets(st.integers(1, LONGEST_S - 100), max_size=5)))]
    return Course(tuple(map(float, times)), tuple(draw(st.integers(0, places - 1)) for _ in times))


@settings(max_examples=60, deadline=None)
@given(st.data(), ladders(), st.sampled_from([None, None, 0.0, 30.0, 150.0]))
def test_a_lived_course_is_what_the_keepers_plan_makes_of_it(
    data: st.DataObject, ladder: Ladder, keep_s: float | None
) -> None:
    """Second by second the replay's replica stands where the plan has put the keeper's."""
    course = data.draw(courses(len(ladder.rungs)))
    life, replayed = Life(ladder, course, keep_s), lived(course, ladder, keep_s)
    assert [life.look(float(now)) for now in range(LONGEST_S)] == [
        replayed.place_at(float(now)) for now in range(LONGEST_S)
    ]


@settings(max_examples=60, deadline=None)
@given(ladders(), st.lists(st.integers(0, 9), min_size=len(EDGES_S), max_size=len(EDGES_S)))
def test_nobody_is_started_only_to_sleep(ladder: Ladder, counts: list[int]) -> None:
    """The keeper never does it, so no learned course may count on it: each climb leads to the warmest level."""
    places = cheapest(ladder, [count / (1 + sum(counts)) for count in counts]).places
    assert all(to == 0 or to > place for place, to in pairwise(places))


def test_who_comes_up_in_an_instant_stays_for_a_minute_all_the_same() -> None:
    """By break-even it would go after eleven seconds; an operator's half minute is half a minute."""
    ladder = two_rungs(0.11)
    assert break_even(ladder).times_s[1] == pytest.approx(11.0)
    assert lived(break_even(ladder), ladder) == fixed(ladder, IDLE_FLOOR_S)
    assert lived(break_even(ladder), ladder, 30.0) == fixed(ladder, 30.0)
