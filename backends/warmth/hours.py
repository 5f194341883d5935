"""A model's idle times by the hour of the week in which they began. Knows no costs and no course; its clock is given.

Short ones are counted by their length. Long ones end by the clock and not by their length (the day begins at eight,
whenever the last one ended), so of them it is kept when they began, and how long they were.
"""

import base64
import math
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

from backends.warmth.idle_times import EDGES_S

HOUR_S, DAY_S, WEEK_S = 3600.0, 86_400.0, 604_800.0
HOURS = 168
HALF_LIFE_S = 3 * WEEK_S
"""An hour comes once in a week: what is counted by the hour of the week must last for some."""

OCTAVE = 4  # bins of `IdleTimes` in which lengths double
FIRST_LONG = 44
LONG_S = EDGES_S[FIRST_LONG]
"""From about half an hour on an idle time is a long one."""
KINDS = FIRST_LONG // OCTAVE + 1
"""The octaves of short ones, and the long ones."""

_MOST_LONG = 256
_FIELDS = 3  # of a long one: when in the week it began, how long it was, what it weighs
_HEAVY = 1e12
_LONG_AGO = 100.0
_MONDAY_S = 4 * DAY_S  # Unix time begins on a Thursday
_DAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")

Ends = list[tuple[float, float]]
"""When idle times ended, in seconds from the beginning of an hour, and what each weighs."""


def of_week_s(wall_s: float) -> float:
    """Return the seconds since Monday at midnight in UTC, of a Unix time."""
    return (wall_s - _MONDAY_S) % WEEK_S


def hour_of(wall_s: float) -> int:
    """Return the hour of the week of a Unix time: 0 is that of Monday at midnight in UTC."""
    return int(of_week_s(wall_s) // HOUR_S) % HOURS


def hour_words(hour: int) -> str:
    """Say which hour of the week it is."""
    return f"{_DAYS[hour // 24]} {hour % 24:02d}:00 UTC"


def kind_of(idle_s: float) -> int:
    """Return the octave of a short idle time, or the last kind for a long one."""
    return KINDS - 1 if idle_s >= LONG_S else int(math.log2(max(1.0, idle_s)))


class Hours:
    """Counts idle times by the hour of the week, in 11 KiB: twelve numbers for each hour, and the last long ones."""

    __slots__ = ("_counts", "_last_s", "_long", "_since_s", "_state", "_weight", "seen_s")

    def __init__(self) -> None:
        self.seen_s = 0.0
        """For how long the model has been seen, as far as idle times tell."""
        self._counts = array("f", bytes(4 * HOURS * KINDS))
        self._long = array("f")
        self._since_s: float | None = None
        self._last_s: float | None = None
        self._weight = 1.0
        self._state: dict[str, Any] | None = None

    def add(self, began_wall_s: float, idle_s: float, now: float) -> None:
        """Count an idle time that began at a Unix time, and ends now."""
        self._state = None
        self.seen_s += idle_s if self._last_s is None else max(0.0, now - self._last_s)
        self._last_s = now
        if self._since_s is None or now < self._since_s:
            self._since_s = now
        # As in `IdleTimes`: the newest weigh ever more instead of the older ones less.
        self._weight = 2.0 ** min(_LONG_AGO, (now - self._since_s) / HALF_LIFE_S)
        self._counts[hour_of(began_wall_s) * KINDS + kind_of(idle_s)] += self._weight
        if idle_s >= LONG_S:
            self._long.extend((of_week_s(began_wall_s), idle_s, self._weight))
            del self._long[: -_FIELDS * _MOST_LONG]
        if self._weight > _HEAVY:
            self._rescale()
            self._since_s = now

    def count(self, hour: int) -> float:
        """Return how many idle times of now are known that began in this hour."""
        return sum(self._of(hour)) / self._weight

    def kinds(self, hour: int) -> list[float]:
        """Return how many of each kind began in this hour of the week."""
        return self._summed([hour])

    def kinds_of_day(self, hour: int) -> list[float]:
        """Return how many of each kind began in the same hour of any day."""
        return self._summed(range(hour % 24, HOURS, 24))

    def ends(self, hour: int) -> Ends:
        """Return when long idle times ended that were under way in this hour of the week."""
        return self._ends(hour * HOUR_S, WEEK_S)

    def ends_of_day(self, hour: int) -> Ends:
        """Return when long idle times ended that were under way in the same hour of any day; each day counts."""
        return self._ends(hour * HOUR_S % DAY_S, DAY_S)

    def state(self) -> dict[str, Any]:
        """Return what `restored` reads, as JSON values; packed and kept, since hundreds of models are saved at once."""
        if self._state is None:
            self._state = {
                "seen_s": self.seen_s,
                "weight": self._weight,
                "counts": {str(hour): _packed(self._of(hour)) for hour in range(HOURS) if any(self._of(hour))},
                "long": _packed(self._long),
            }
        return self._state

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> "Hours":
        """Return the hours of an earlier run. Raises `KeyError`, `TypeError`, `ValueError` if it is no such state."""
        hours = cls()
        hours.seen_s = within(state["seen_s"], 0.0, math.inf)
        hours._weight = within(state["weight"], 1.0, 2 * _HEAVY)
        if not isinstance(state["counts"], dict):
            raise TypeError(f"counts by the hour are {type(state['counts']).__name__}, not by the hour")
        for name, packed in state["counts"].items():
            hour, counts = int(name), _unpacked(packed)
            if not (0 <= hour < HOURS and len(counts) == KINDS):
                raise ValueError(f"hour {name!r} of the week has {len(counts)} counts")
            hours._counts[hour * KINDS : (hour + 1) * KINDS] = counts
        hours._long = _unpacked(state["long"])[-_FIELDS * _MOST_LONG :]
        if len(hours._long) % _FIELDS:
            raise ValueError(f"{len(hours._long)} numbers of long idle times are no threes")
        hours._rescale()
        return hours

    def _of(self, hour: int) -> "array[float]":
        return self._counts[hour * KINDS : (hour + 1) * KINDS]

    def _summed(self, hours: Iterable[int]) -> list[float]:
        return [sum(counts) / self._weight for counts in zip(*map(self._of, hours), strict=True)]

    def _ends(self, at_s: float, period_s: float) -> Ends:
        found = []
        fields = iter(self._long)
        for began_s, idle_s, weight in zip(fields, fields, fields, strict=True):
            # One is under way in an hour where it begins there, or is so at its end.
            to_end_s = (at_s + HOUR_S - began_s) % period_s
            left_s = idle_s - to_end_s
            if left_s > 0.0 or to_end_s <= HOUR_S:
                found.append((left_s + HOUR_S, weight / self._weight))
            days = min(6, math.ceil(left_s / period_s) - 1) if period_s < WEEK_S else 0
            found += [(left_s + HOUR_S - day * period_s, weight / self._weight) for day in range(1, days + 1)]
        return found

    def _rescale(self) -> None:
        """Let the newest weigh 1 again."""
        self._counts = array("f", [count / self._weight for count in self._counts])
        self._long[2::_FIELDS] = array("f", [weight / self._weight for weight in self._long[2::_FIELDS]])
        self._weight = 1.0


def _packed(numbers: "array[float]") -> str:
    return base64.b64encode(numbers.tobytes()).decode()


def _unpacked(packed: str) -> "array[float]":
    """Return the numbers, all of them what counts and seconds can be. Raises `TypeError`, `ValueError`."""
    numbers = array("f", base64.b64decode(packed, validate=True))
    for number in numbers:
        within(number, 0.0, 2 * _HEAVY)
    return numbers


def within(value: Any, least: float, most: float) -> float:
    """Return a number that must be within bounds, and finite. Raises `TypeError`, `ValueError`."""
    number = float(value)
    if not (least <= number <= most and math.isfinite(number)):
        raise ValueError(f"{value!r} is not between {least:g} and {most:g}")
    return number
