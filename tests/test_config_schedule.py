"""Schedules in the file: days and hours as operators write them, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.hours import days_text, hours_text, parse_days, parse_hours
from config.load import parse
from config.plain import plain
from config.problems import ConfigError

FILE = """\
models:
  a:
    task: chat
    command: {{run: "serve --port {{port}}"}}
    pool: {{max: 2, schedule: [{shift}]}}
"""


def test_a_schedule_is_read_and_shown_as_it_is_written() -> None:
    """Days, hours, least replicas and zone come back in the operator's words."""
    text = FILE.format(shift="{days: mon-fri, hours: 8-18, min: 2, time_zone: Europe/Berlin}, {hours: 22:30-6, min: 1}")
    settings = parse(text, {}, source="f")

    shift = settings.models["a"].pool.schedule[0]
    assert (shift.days, shift.hours, shift.min) == ((0, 1, 2, 3, 4), (480, 1080), 2)
    assert plain(settings)["models"]["a"]["pool"]["schedule"] == [
        {"days": "mon-fri", "hours": "8-18", "min": 2, "time_zone": "Europe/Berlin"},
        {"days": "mon-sun", "hours": "22:30-6", "min": 1, "time_zone": "UTC"},
    ]


@pytest.mark.parametrize(
    ("shift", "told"),
    [
        ("{hours: 8-18, min: 3}", "schedule[0].min: 3 is more than pool.max, which is 2"),
        ("{hours: 8-18, min: 0}", "min: 0 is not a whole number ≥ 1"),
        ("{hours: 8-25, min: 1}", "hours: '8-25' is not hours of a day such as 8-18 or 22:30-6"),
        ("{hours: 8:60-9, min: 1}", "is not hours of a day"),
        ("{hours: 8-8, min: 1}", "begins when it ends: write 0-24 for the whole day"),
        ("{days: workdays, hours: 8-9, min: 1}", "days: 'workdays' is not a day or days such as mon-fri"),
        ("{days: [mon, funday], hours: 8-9, min: 1}", "days: a list has 'funday', which is not a day or days such as"),
        ("{days: [], hours: 8-9, min: 1}", "is an empty list"),
        ("{hours: 8-9, min: 1, time_zone: Middle/Earth}", "is not a time zone such as Europe/Berlin or UTC"),
        ("{hours: 8-9}", "min"),
    ],
)
def test_what_cannot_be_meant_is_refused(shift: str, told: str) -> None:
    """Each fault is told with its key and what is allowed."""
    with pytest.raises(ConfigError, match="f:5") as refused:
        parse(FILE.format(shift=shift), {}, source="f")
    assert told in str(refused.value)


@given(st.sets(st.integers(0, 6), min_size=1))
def test_days_survive_being_written(days: set[int]) -> None:
    """Whatever days there are, their text is read as the same days."""
    written = days_text(sorted(days))
    assert set(parse_days(tuple(written) if isinstance(written, list) else written)) == days


@given(st.integers(0, 1439), st.integers(0, 1440))
def test_hours_survive_being_written(begins: int, ends: int) -> None:
    """Whatever hours there are, their text is read as the same hours."""
    if begins != ends:
        assert parse_hours(hours_text((begins, ends))) == (begins, ends)


def test_days_may_run_over_the_end_of_the_week() -> None:
    """`sat-mon` is three days."""
    assert parse_days("sat-mon") == (0, 5, 6)
