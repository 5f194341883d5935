"""When an idle time is expected to end, by the hour of the week in which it began and by its length alone. Pure."""

import bisect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import sub

from backends.warmth.hours import FIRST_LONG, KINDS, LONG_S, OCTAVE, Ends, Hours
from backends.warmth.idle_times import EDGES_S

OCTAVES = len(EDGES_S) // OCTAVE
"""Lengths double from one to the next."""

# What is known of less counts for so many idle times beside what is known of the hour of the week: the same hour on
# all days beside it, and all hours beside that. Of when long ones end likewise.
_DAY_COUNT, _ALL_COUNT = 8.0, 8.0
_DAY_ENDS, _ALL_ENDS = 1.0, 1.0
# A long idle time that ended at a minute tells that the next may end so near to it: this share within these seconds.
_NEARNESS = ((0.5, 60.0), (0.3, 300.0), (0.2, 1200.0))
_MINUTE_S = 60.0
_MOST_ENDS = 24
_NOTHING = 1e-9


@dataclass(frozen=True, slots=True)
class Octave:
    """The bins `first` to before `last`: what is left where they begin, and what ends in them, by hour and length."""

    first: int
    last: int
    left_by_hour: float
    left_by_length: float
    share_by_hour: float
    share_by_length: float


@dataclass(frozen=True, slots=True)
class Expected:
    """The share of idle times that end in each bin, by the hour and by length alone.

    Bins of short ones go by their length, those of long ones by the time since the hour in which they began.
    """

    edges_s: Sequence[float]
    by_hour: Sequence[float]
    by_length: Sequence[float]
    octaves: Sequence[Octave]

    def shares(self, beliefs: Sequence[float]) -> list[float]:
        """Return the share of each bin where the hour is believed so much in each octave, and length for the rest."""
        alive, found = 1.0, []
        for belief, octave in zip(beliefs, self.octaves, strict=True):
            of_hour = alive * belief / max(_NOTHING, octave.left_by_hour)
            of_length = alive * (1.0 - belief) / max(_NOTHING, octave.left_by_length)
            bins = slice(octave.first, octave.last)
            ended = [
                of_hour * hour + of_length * length
                for hour, length in zip(self.by_hour[bins], self.by_length[bins], strict=True)
            ]
            found += ended
            alive = max(0.0, alive - sum(ended))
        return found

    def told(self, past_s: float, idle_s: float) -> Iterator[tuple[int, float, float]]:
        """Yield for each octave how likely it was, by the hour and by length, that it was outlived, or ended in so.

        The idle time was so long, and began so long past the hour.
        """
        at = bisect.bisect_right(self.edges_s, idle_s if idle_s < LONG_S else past_s + idle_s) - 1
        for number, octave in enumerate(self.octaves):
            if at < octave.first or min(octave.left_by_hour, octave.left_by_length) < _NOTHING:
                return
            by_hour, by_length = self.by_hour[at], self.by_length[at]
            if at >= octave.last:
                by_hour = octave.left_by_hour - octave.share_by_hour
                by_length = octave.left_by_length - octave.share_by_length
            yield number, by_hour / octave.left_by_hour, by_length / octave.left_by_length


def expect(hours: Hours, hour: int, shares: Sequence[float], lead_s: float) -> Expected:
    """Return when an idle time that begins in this hour of the week is expected to end.

    `shares` are those of `IdleTimes`, by which goes what the hour does not tell. A climb takes `lead_s`, and must
    begin by so much before the minute at which idle times end.
    """
    all_kinds = [sum(shares[at : at + OCTAVE]) for at in range(0, FIRST_LONG, OCTAVE)]
    all_kinds.append(1.0 - sum(all_kinds))  # what was never seen is among the long ones
    kinds = _shrunk(hours.kinds(hour), _shrunk(hours.kinds_of_day(hour), all_kinds, _ALL_COUNT), _DAY_COUNT)
    by_hour: list[float] = []
    for kind in range(KINDS - 1):
        bins = shares[kind * OCTAVE : (kind + 1) * OCTAVE]
        by_hour += [kinds[kind] * (share / all_kinds[kind] if all_kinds[kind] else 1 / OCTAVE) for share in bins]
    long = [share / all_kinds[-1] for share in shares[FIRST_LONG:]]
    edges, by_clock, by_length = _long_ones(hours, hour, long, lead_s)
    edges_s = [*EDGES_S[:FIRST_LONG], *edges]
    by_hour += [kinds[-1] * share for share in by_clock]
    alone = [*shares[:FIRST_LONG], *[all_kinds[-1] * share for share in by_length]]
    return Expected(edges_s, by_hour, alone, tuple(_octaves(edges_s, by_hour, alone)))


def _shrunk(counts: Sequence[float], prior: Sequence[float], prior_count: float) -> list[float]:
    scale = 1.0 / (sum(counts) + prior_count)
    return [(count + prior_count * share) * scale for count, share in zip(counts, prior, strict=True)]


def _long_ones(
    hours: Hours, hour: int, shares: Sequence[float], lead_s: float
) -> tuple[list[float], list[float], list[float]]:
    """Return the bins of the long ones, and the share of each by the clock and by length alone."""
    week, day = hours.ends(hour), hours.ends_of_day(hour)
    day_part = _DAY_ENDS / (sum([weight for _, weight in week]) + _DAY_ENDS)
    all_part = day_part * _ALL_ENDS / (sum([weight for _, weight in day]) + _ALL_ENDS)
    clock, length = _Density(), _Density()
    for ends, each in ((week, day_part / _DAY_ENDS), (day, all_part / _ALL_ENDS)):
        for end_s, weight in _heaviest(ends):
            for share, near_s in _NEARNESS:
                first_s = max(LONG_S, (end_s - lead_s - near_s) // _MINUTE_S * _MINUTE_S)
                last_s = max(first_s + _MINUTE_S, -((-end_s - near_s) // _MINUTE_S) * _MINUTE_S)
                clock.add(first_s, last_s, each * weight * share)
    for at, share in enumerate(shares[:-1], FIRST_LONG):
        length.add(EDGES_S[at], EDGES_S[at + 1], share)
    edges = sorted({*clock.rises, *length.rises})
    by_length = length.shares(edges)
    by_clock = [own + all_part * other for own, other in zip(clock.shares(edges), by_length, strict=True)]
    return edges, by_clock, by_length


class _Density:
    """A sum of even densities, each between two times."""

    def __init__(self) -> None:
        self.rises: dict[float, float] = {}

    def add(self, first_s: float, last_s: float, share: float) -> None:
        """Spread a share evenly."""
        height = share / (last_s - first_s)
        self.rises[first_s] = self.rises.get(first_s, 0.0) + height
        self.rises[last_s] = self.rises.get(last_s, 0.0) - height

    def shares(self, edges_s: Sequence[float]) -> list[float]:
        """Return what is in each bin; nothing is in the last."""
        height, found = 0.0, []
        for width_s, edge_s in zip([*map(sub, edges_s[1:], edges_s), 0.0], edges_s, strict=True):
            height = max(0.0, height + self.rises.get(edge_s, 0.0))
            found.append(height * width_s)
        return found


def _heaviest(ends: Ends) -> list[tuple[float, float]]:
    """Return those that weigh most, each minute's as one."""
    minutes: dict[float, float] = {}
    for end_s, weight in ends:
        minute_s = round(end_s / _MINUTE_S) * _MINUTE_S
        minutes[minute_s] = minutes.get(minute_s, 0.0) + weight
    return sorted(minutes.items(), key=lambda each: -each[1])[:_MOST_ENDS]


def _octaves(edges_s: Sequence[float], by_hour: Sequence[float], by_length: Sequence[float]) -> Iterator[Octave]:
    left_by_hour = left_by_length = 1.0
    first = 0
    for number in range(1, OCTAVES + 1):
        last = bisect.bisect_left(edges_s, math.ldexp(1.0, number)) if number < OCTAVES else len(edges_s)
        ended = sum(by_hour[first:last]), sum(by_length[first:last])
        yield Octave(first, last, left_by_hour, left_by_length, *ended)
        left_by_hour, left_by_length = left_by_hour - ended[0], left_by_length - ended[1]
        first = last
