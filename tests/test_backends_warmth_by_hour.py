"""Courses by the hour of the week: learned in two weeks, taken where they earn it, and harmed by no clock."""

import base64
import math
from array import array
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.demand import Demand
from backends.warmth.by_hour import ByHour
from backends.warmth.course import Course
from backends.warmth.expected import OCTAVES, expect
from backends.warmth.hours import DAY_S, HOUR_S, KINDS, WEEK_S, Hours, hour_of, hour_words
from backends.warmth.idle_times import IdleTimes
from backends.warmth.keeping import HALF_LIFE_S, Habits, Keeping
from backends.warmth.ladder import two_rungs
from backends.warmth.residency import lived
from scripts.tuning.policies import Ours
from scripts.tuning.replay import replay
from scripts.tuning.synthetic import make
from scripts.tuning.traces import in_order, trace_of

MONDAY_S = datetime(2026, 1, 5, tzinfo=UTC).timestamp()
LADDER = two_rungs(60.0)
JOB_S = 600.0
NINE_S = 9 * HOUR_S

walls = st.floats(-1e10, 1e10)
idles = st.floats(1.0, 30 * DAY_S)
seen = st.lists(st.tuples(walls, idles, st.floats(0.0, 1e9)), max_size=60)


def is_up(demand: Demand, now: float) -> bool:
    """Tell whether the course has a replica up."""
    assert demand.idle_since is not None
    return demand.keeping.course.place_at(now - demand.idle_since) == 0


def work_a_day(demand: Demand, day: int) -> None:
    """Run the job of nine o'clock."""
    demand.record(day * DAY_S + NINE_S + 7.0 * (day % 5))
    demand.rest(day * DAY_S + NINE_S + JOB_S)


def job(days: int) -> Demand:
    """Return the demand of a model that had the job for so many days, a Monday the first."""
    habits = Habits()
    habits.tell_time(0.0, MONDAY_S)
    demand = Demand(0.0, Keeping(habits, LADDER))
    for day in range(days):
        work_a_day(demand, day)
    return demand


def filled(idle_times: list[tuple[float, float, float]]) -> Hours:
    """Return what is known after these idle times."""
    hours = Hours()
    for began_s, idle_s, now in idle_times:
        hours.add(began_s, idle_s, now)
    return hours


def test_hours_of_the_week_are_those_of_utc():
    """Monday at midnight is the first, before 1970 too."""
    assert hour_of(MONDAY_S) == 0
    assert hour_words(hour_of(MONDAY_S + 6 * DAY_S + 8.5 * HOUR_S)) == "Sundays 08:00 UTC"
    assert hour_of(MONDAY_S - 3000 * WEEK_S - 1.0) == 167


def test_after_two_weeks_a_daily_job_finds_its_replica_up():
    """A minute before nine it is up, never in the night, and in the first two weeks not before nine at all."""
    demand = job(1)
    for day in range(1, 21):
        nine = day * DAY_S + NINE_S
        assert is_up(demand, nine - 80.0) == (day > 14)
        assert not any(is_up(demand, nine - early_s) for early_s in (HOUR_S, 3 * HOUR_S, 8 * HOUR_S, 20 * HOUR_S))
        work_a_day(demand, day)


def test_what_is_taken_is_told():
    """By its hour, and the count of idle times; before that it is break-even."""
    assert "UTC" not in job(13).keeping.words()
    assert job(21).keeping.words() == "learned for Sundays 09:00 UTC from 2 idle times"


def test_a_habit_that_ends_is_soon_trusted_no_more():
    """After some days of nights without the job the replica is not started for it."""
    demand = job(21)
    for day in range(21, 26):
        demand.record(day * DAY_S + 16 * HOUR_S + 5000.0 * (day % 3))
        demand.rest(day * DAY_S + 16 * HOUR_S + 5000.0 * (day % 3) + JOB_S)
    assert "UTC" not in demand.keeping.words()


@pytest.mark.parametrize("late_s", [0.0, 45 * 60.0])
def test_the_clock_counts_and_not_the_length(late_s):
    """Whether the last request of the day came at the hour or long past it, the morning begins at the same minute."""
    demand = job(21)
    demand.record(20 * DAY_S + 9.2 * HOUR_S + late_s)
    demand.rest(20 * DAY_S + 9.2 * HOUR_S + late_s + 1.0)
    nine = 21 * DAY_S + NINE_S
    ups = [minute for minute in range(-60, 30) if is_up(demand, nine + 60.0 * minute)]
    assert -15 < ups[0] <= -2
    assert 0 in ups


def test_it_outlives_a_restart():
    """Hours, beliefs and that they earned their place."""
    demand = job(21)
    again = Keeping(Habits(), LADDER)
    again.habits.tell_time(0.0, MONDAY_S)
    again.restore(demand.keeping.state(), 0.0)
    again.began = demand.keeping.began
    assert again.words() == demand.keeping.words()
    assert again.course.times_s[1] == pytest.approx(demand.keeping.course.times_s[1], abs=120.0)


def test_what_an_earlier_version_saved_is_read():
    """It knew no hours; the rest of what it learned counts."""
    state = job(21).keeping.state()
    del state["by_hour"]
    again = Keeping(Habits(), LADDER)
    again.restore(state, 0.0)
    assert again.is_learned
    assert "UTC" not in again.words()


@settings(max_examples=40, deadline=None)
@given(seen)
def test_hours_outlive_a_restart(idle_times):
    """What is known comes back, whatever the clocks did."""
    hours = filled(idle_times)
    again = Hours.restored(hours.state())
    assert again.seen_s == hours.seen_s
    for hour in {hour_of(began_s) for began_s, _, _ in idle_times}:
        assert again.kinds(hour) == pytest.approx(hours.kinds(hour), rel=1e-5, abs=1e-9)
        for restored, known in zip(again.ends(hour), hours.ends(hour), strict=True):
            assert restored == pytest.approx(known, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {"counts": {"168": "AAAA"}},
        {"counts": {"3": "AAAA"}},
        {"counts": {"3": "no base64"}},
        {"counts": {"3": "/////w=="}},
        {"counts": {"3": 5}},
        {"counts": []},
        {"long": "AACAPw=="},
        {"long": None},
        {"weight": 0.0},
        {"weight": math.nan},
        {"seen_s": -1.0},
        {"seen_s": math.inf},
    ],
)
def test_a_foreign_state_is_refused(change):
    """Hours that there are not, numbers that cannot be, and what is no number."""
    with pytest.raises((ValueError, TypeError)):
        Hours.restored({**filled([(0.0, 5000.0, 0.0)]).state(), **change})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.0, 1e12), max_size=15), st.integers(0, 167))
def test_whatever_is_restored_gives_shares(numbers, hour):
    """However far from what a week has, and be it edited by hand."""
    whole = array("f", numbers[: len(numbers) // 3 * 3]).tobytes()
    hours = Hours.restored({**Hours().state(), "long": base64.b64encode(whole).decode()})
    expected = expect(hours, hour, IdleTimes(HALF_LIFE_S).shares(), 47.0)
    assert min(expected.by_hour) >= 0.0
    assert sum(expected.shares([0.5] * OCTAVES)) <= 1.0 + 1e-3


@pytest.mark.parametrize("change", [{"beliefs": [0.5]}, {"beliefs": [2.0] * OCTAVES}, {"gains": [1.0]}])
def test_beliefs_of_another_shape_are_refused(change):
    """As many as there are octaves, each of them a probability, and two gains."""
    with pytest.raises(ValueError):  # noqa: PT011 - the message names the value or the count
        ByHour().restore({**ByHour().state(), **change}, LADDER)


def test_what_is_known_is_bounded():
    """Ten thousand idle times at all hours are kept in some kilobytes."""
    state = filled([(5000.0 * number, 2000.0 + number % 200, 5000.0 * number) for number in range(10_000)]).state()
    assert len(state["counts"]) <= 168
    assert sum(len(packed) for packed in (*state["counts"].values(), state["long"])) < 16_000


@settings(max_examples=40)
@given(seen, st.integers(0, 167), st.lists(idles, max_size=40), st.floats(0.0, 1.0))
def test_what_is_expected_are_shares(idle_times, hour, lengths_s, belief):
    """None is negative, they sum to one at most, and without any belief in the hour they are those by length."""
    times = IdleTimes(HALF_LIFE_S)
    for length_s in lengths_s:
        times.add(length_s, 0.0)
    expected = expect(filled(idle_times), hour, times.shares(), 60.0)
    assert list(expected.edges_s) == sorted(set(expected.edges_s))
    for shares in (expected.by_hour, expected.by_length, expected.shares([belief] * OCTAVES)):
        assert min(shares) >= 0.0
        assert sum(shares) <= 1.0 + 1e-6
    assert expected.shares([0.0] * OCTAVES) == pytest.approx(expected.by_length, abs=1e-6)
    assert len(expected.octaves) == OCTAVES > KINDS


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1.0, 3 * DAY_S), st.sampled_from([0.0, 1e-3, 0.5, -3e8, 3e8, 3600.0])), max_size=40)
)
def test_a_wall_clock_that_jumps_spoils_nothing(steps):
    """Whatever it shows, courses begin at 0 and go on in time, and what was saved is read."""
    demand = job(15)
    now = 15 * DAY_S
    for idle_s, jump_s in steps:
        demand.keeping.habits.tell_time(now, MONDAY_S + now + jump_s)
        now += idle_s
        demand.record(now)
        demand.rest(now)
        course: Course = demand.keeping.course
        assert course.times_s[0] == 0.0
        assert list(course.times_s) == sorted(set(course.times_s))
    Keeping(Habits(), LADDER).restore(demand.keeping.state(), 0.0)


def test_a_live_demand_and_the_simulator_take_the_same_courses():
    """Over four weeks of a house that works by the clock: for every idle time of every model, to the second."""
    asked_s = make("weekly", seed=5, days=28, models=3).asked_s
    trace = trace_of({model: np.round(at_s) for model, at_s in asked_s.items()})  # so that differences are exact
    habits, policy = Habits(), Ours(lambda _: LADDER)
    live: dict[str, Demand] = {}
    for model, idle_s, ends_s in in_order(trace):
        if model not in live:
            live[model] = Demand(0.0, Keeping(habits, LADDER))
            live[model].record(0.0)
        live[model].rest(ends_s - idle_s)
        assert lived(live[model].keeping.course, LADDER) == lived(policy.course(model, ends_s - idle_s), LADDER)
        live[model].record(ends_s)
        policy.ended(model, idle_s, ends_s)


@pytest.mark.parametrize(("kind", "most"), [("weekly", 0.97), ("drifting", 1.005)])
def test_the_hours_are_worth_it_or_cost_nothing(kind, most):
    """Cheaper where the week repeats itself, and at most half a percent dearer where it does not."""
    trace = make(kind, seed=7, days=24, models=2)
    ours, without = (replay(trace, lambda _: LADDER, Ours(lambda _: LADDER, by_hour=each)) for each in (True, False))
    assert ours.cost <= most * without.cost
