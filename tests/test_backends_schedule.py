"""Schedules: which hours they cover, by whose clocks, and that the keeper starts replicas before they begin."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from backends.costs import ModelCosts
from backends.demand import Demand
from backends.planning import Start, plan
from backends.pool import Pool, PoolLimits
from backends.warmth.schedule import Shift, least_replicas
from tests.fakes import FakeEngine

WEEKDAYS = frozenset(range(5))
OFFICE = Shift(WEEKDAYS, 8 * 60, 18 * 60, 2, "Europe/Berlin")
NIGHT = Shift(frozenset({4}), 22 * 60, 6 * 60, 3)


def at(text: str, zone: str = "UTC") -> float:
    """Return the Unix time of a local time; 2026-07-03 is a Friday."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("moment", "zone", "least"),
    [
        ("2026-07-03T07:59:59", "Europe/Berlin", 0),
        ("2026-07-03T08:00:00", "Europe/Berlin", 2),
        ("2026-07-03T17:59:59", "Europe/Berlin", 2),
        ("2026-07-03T18:00:00", "Europe/Berlin", 0),
        ("2026-07-04T12:00:00", "Europe/Berlin", 0),
        ("2026-07-03T06:30:00", "UTC", 2),  # summer in Berlin: two hours ahead
        ("2026-01-09T06:30:00", "UTC", 0),  # winter: one hour
        ("2026-07-03T22:00:00", "UTC", 3),
        ("2026-07-04T05:59:00", "UTC", 3),  # the night of Friday ends on Saturday
        ("2026-07-04T22:30:00", "UTC", 0),
        ("2026-07-03T05:00:00", "UTC", 0),  # the night of Thursday is no shift
    ],
)
def test_hours_count_by_the_clocks_of_their_zone(moment: str, zone: str, least: int) -> None:
    """A shift has its days and hours, summer time included; one over midnight belongs to the day it begins on."""
    assert least_replicas((OFFICE, NIGHT), at(moment, zone)) == least


def test_of_several_shifts_the_most_counts() -> None:
    """Where shifts overlap, the most replicas of any are there."""
    shifts = (Shift(WEEKDAYS, 0, 24 * 60, 1), Shift(WEEKDAYS, 12 * 60, 13 * 60, 4))
    noon, evening = at("2026-07-03T12:30:00"), at("2026-07-03T20:00:00")
    assert [least_replicas(shifts, when) for when in (noon, evening)] == [4, 1]


def test_replicas_of_a_shift_are_up_when_it_begins() -> None:
    """The minimum rises as long before the hour as a start takes, never above the maximum, and falls after it."""
    wall = [0.0]
    costs = ModelCosts()
    for _ in range(20):
        costs.learn_start(60.0)
    limits = PoolLimits(min_replicas=0, max_replicas=1, schedule=(OFFICE,))
    pool = Pool(
        "m", FakeEngine(), limits, costs=costs, demand=Demand(0.0), clock=lambda: 0.0, wake_keeper=lambda: None,
        wall_clock=lambda: wall[0],
    )  # fmt: skip
    eight = at("2026-07-03T08:00:00", "Europe/Berlin")
    seen = {}
    for offset_s in (-120.0, -50.0, 0.0, 9 * 3600.0, 10 * 3600.0 + 1):
        wall[0] = eight + offset_s
        seen[offset_s] = pool.snapshot(0.0).min_replicas
    assert seen == {-120.0: 0, -50.0: 1, 0.0: 1, 9 * 3600.0: 1, 10 * 3600.0 + 1: 0}

    wall[0] = eight - 50.0
    (start,) = plan(0.0, [pool.snapshot(0.0)], None)
    assert isinstance(start, Start)


def test_a_shift_shorter_than_a_start_keeps_what_came_up_for_it() -> None:
    """From a start's time before it until its end the minimum holds, without a gap in between."""
    short, midnight = (Shift(WEEKDAYS, 24 * 60 - 1, 24 * 60, 1),), at("2026-07-03T23:59:00") + 60
    seen = [least_replicas(short, midnight - before_s, ahead_s=600.0) for before_s in (700, 659, 500, 300, 60, 1, 0)]
    assert seen == [0, 1, 1, 1, 1, 1, 0]
