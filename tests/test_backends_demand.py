"""Demand: a rate that is right when it is steady, calm at its first request, and fades when nobody asks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.demand import Demand

HOUR_S, DAY_S = 3600.0, 86400.0


@pytest.mark.parametrize("gap_s", [0.1, 10.0, 600.0])
def test_a_steady_rate_is_found(gap_s):
    """After many arrivals at one pace the rate is that pace, however short the watch was."""
    demand = Demand(0.0)
    for arrival in range(1, 2001):
        demand.record(arrival * gap_s)
    assert demand.rate_per_s(2000.5 * gap_s) == pytest.approx(1.0 / gap_s, rel=0.25)


def test_nobody_asked():
    """Without an arrival the rate is zero."""
    demand = Demand(0.0)
    assert (demand.rate_per_s(10.0), demand.last_arrival) == (0.0, None)


def test_the_first_request_is_no_flood():
    """One request at once after the birth reads as about one a minute, not as one a second."""
    demand = Demand(0.0)
    demand.record(0.5)
    assert demand.rate_per_s(0.5) == pytest.approx(1.0 / 60.0, rel=0.1)


def test_bursts_fade_fast_and_habits_slowly():
    """After a day of steady asking an hour of silence leaves the long memory, a burst leaves little."""
    habit, burst = Demand(0.0), Demand(0.0)
    for arrival in range(288):
        habit.record(arrival * 300.0)
        burst.record(DAY_S - 288 + arrival)
    assert burst.rate_per_s(DAY_S) > 10 * habit.rate_per_s(DAY_S)
    assert burst.rate_per_s(DAY_S + 2 * HOUR_S) < 0.05 * burst.rate_per_s(DAY_S)
    assert habit.rate_per_s(DAY_S + 2 * HOUR_S) > 0.3 * habit.rate_per_s(DAY_S)


@given(st.lists(st.floats(0.0, 1e5), min_size=1, max_size=30), st.floats(0.0, 1e6))
def test_a_rate_is_finite_and_falls_in_silence(gaps_s, silence_s):
    """It is never negative, and never rises while nobody asks."""
    demand, now = Demand(0.0), 0.0
    for gap_s in gaps_s:
        now += gap_s
        demand.record(now)
    assert 0.0 <= demand.rate_per_s(now + silence_s) <= demand.rate_per_s(now)


def test_a_clock_that_runs_backwards_counts_as_standing():
    """An arrival before the last one is counted now."""
    demand = Demand(100.0)
    demand.record(200.0)
    demand.record(150.0)
    assert demand.last_arrival == 200.0
