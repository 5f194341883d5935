"""Reads the days and hours of a schedule as operators write them: `mon-fri`, `8-18`. Knows no replicas."""

import re
from collections.abc import Sequence
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from config.problems import shown

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = "|".join(DAYS)
DAYS_PATTERN = rf"^({_DAY})(-({_DAY}))?$"
_TIME = r"([0-9]{1,2})(?::([0-9]{2}))?"
HOURS_PATTERN = r"^[0-9]{1,2}(:[0-9]{2})?-[0-9]{1,2}(:[0-9]{2})?$"
_HOUR_MIN = 60
_DAY_MIN = 24 * _HOUR_MIN


def parse_days(value: object) -> tuple[int, ...]:
    """Return `mon-fri`, `sat`, or a list of these as days from 0 (Monday) to 6. Raises `ValueError`."""
    parts = value if isinstance(value, tuple) else (value,)
    days: set[int] = set()
    for part in parts:
        found = re.fullmatch(DAYS_PATTERN, part) if isinstance(part, str) else None
        if found is None:
            lead = f"has {shown(part)}, which is" if isinstance(value, tuple) else "is"
            raise ValueError(f"{lead} not a day or days such as mon-fri, or a list of these (mon, tue, wed, … sun)")
        first, last = DAYS.index(found[1]), DAYS.index(found[3] or found[1])
        days |= {day % 7 for day in range(first, last + (8 if last < first else 1))}
    if not days:
        raise ValueError("is an empty list: name a day, or leave it out")
    return tuple(sorted(days))


def days_text(days: Sequence[int]) -> str | list[str]:
    """Return days as an operator writes them."""
    first, last = days[0], days[-1]
    if len(days) == 1:
        return DAYS[first]
    if list(days) == list(range(first, last + 1)):
        return f"{DAYS[first]}-{DAYS[last]}"
    return [DAYS[day] for day in days]


def parse_hours(value: object) -> tuple[int, int]:
    """Return `8-18` or `22:30-6` as minutes of the day; what ends earlier than it begins ends on the next day."""
    found = re.fullmatch(rf"{_TIME}-{_TIME}", value, re.ASCII) if isinstance(value, str) else None
    wrong = ValueError("is not hours of a day such as 8-18 or 22:30-6")
    if found is None:
        raise wrong
    from_h, from_min, to_h, to_min = (int(part or 0) for part in found.groups())
    begins, ends = from_h * _HOUR_MIN + from_min, to_h * _HOUR_MIN + to_min
    if max(from_min, to_min) >= _HOUR_MIN or begins >= _DAY_MIN or ends > _DAY_MIN:
        raise wrong
    if begins == ends:
        raise ValueError("begins when it ends: write 0-24 for the whole day")
    return begins, ends


def hours_text(hours: tuple[int, int]) -> str:
    """Return hours as an operator writes them."""
    return "-".join(
        f"{minute // _HOUR_MIN}" + (f":{minute % _HOUR_MIN:02}" if minute % _HOUR_MIN else "") for minute in hours
    )


def parse_zone(value: object) -> str:
    """Return the name of a time zone that is known here. Raises `ValueError`."""
    wrong = ValueError("is not a time zone such as Europe/Berlin or UTC")
    if not isinstance(value, str) or not value:
        raise wrong
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise wrong from None
    return value
