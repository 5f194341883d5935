"""Tells which `keep_warm` would have been cheaper for a model, chosen by the past and judged on what followed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backends.warmth.course import Course
from backends.warmth.ladder import Ladder
from scripts.tuning.policies import Ladders, Ours, kept_for
from scripts.tuning.proposal import Change
from scripts.tuning.replay import DAY_S
from scripts.tuning.traces import Array, Idle, Trace, in_order
from scripts.tuning.weighing import compare

TIMES_S = (30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 28_800, 86_400)
"""The fixed times that are tried."""

PREDICT = "predict"
# The days that are only learned from: their share of the trace, and at least so many.
_LEARNING_SHARE = 1 / 3
_LEAST_DAYS = 2


class TooShortError(ValueError):
    """The trace has too few days to learn from some and to judge on others."""


@dataclass(frozen=True, slots=True)
class Daily:
    """What each setting cost one model on each day, the learned one at each moment by what was before it alone."""

    by_setting: Mapping[str, Array]


def origin_day(trace: Trace) -> int:
    """Return the first day that is judged. Raises `TooShortError`."""
    days = int(np.ceil(trace.span_s / DAY_S))
    origin = max(_LEAST_DAYS, int(days * _LEARNING_SHARE))
    if days - origin < _LEAST_DAYS:
        raise TooShortError(f"the trace has {days} days, at least {2 * _LEAST_DAYS} are needed")
    return origin


def costs_by_day(
    trace: Trace, ladders: Ladders, settings: Sequence[float], progress: Callable[[], object]
) -> dict[str, Daily]:
    """Replay the trace under `predict` and each of these fixed times (seconds)."""
    days = int(np.ceil(trace.span_s / DAY_S))
    ours = Ours(ladders, start_s=trace.start_s)
    learned = {model: np.zeros(days) for model in trace.idle}
    for model, idle_s, ends_s in in_order(trace):
        learned[model][_day(ends_s, days)] += ours.course(model, ends_s - idle_s).cost(ladders(model), idle_s)
        ours.ended(model, idle_s, ends_s)
        progress()
    return {
        model: Daily(
            {PREDICT: learned[model]}
            | {
                written(keep_s): by_day(trace.idle[model], ladders(model), kept_for(ladders(model), keep_s), days)
                for keep_s in settings
            }
        )
        for model in trace.idle
    }


def choose(model: str, daily: Daily, current: str, origin: int) -> Change | None:
    """Return the change that pays for certain; None where none does.

    For each judged day the setting is taken that was cheapest on all days before it (rolling origin): what this choice
    costs is what choosing by the past is worth. The proposal is what it would choose now.
    """
    before = {setting: np.cumsum(cost) for setting, cost in daily.by_setting.items()}
    days = len(daily.by_setting[PREDICT])
    chosen = np.array(
        [
            daily.by_setting[min(before, key=lambda setting, day=day: before[setting][day - 1])][day]  # type: ignore[misc]
            for day in range(origin, days)
        ]
    )
    candidates = {
        min(before, key=lambda setting: before[setting][-1]): chosen,
        PREDICT: daily.by_setting[PREDICT][origin:],
    }
    now = daily.by_setting[current][origin:]
    best, cost = min(candidates.items(), key=lambda item: float(item[1].sum()))
    difference = compare(cost, now)
    if best == current or not (difference.is_certain and difference.share < 0):
        return None
    return Change(model, current, best, difference, days - origin)


def written(keep_s: float) -> str:
    """Write a time as the YAML has it."""
    for unit, seconds in (("d", 86_400), ("h", 3600), ("m", 60)):
        if keep_s >= seconds and keep_s % seconds == 0:
            return f"{keep_s / seconds:g}{unit}"
    return f"{keep_s:g}s"


def by_day(idle: Idle, ladder: Ladder, course: Course, days: int) -> Array:
    """Return what a course that only goes down costs each day, for all idle times at once."""
    lengths, cost = idle.lengths_s, np.zeros(len(idle.lengths_s))
    ends_s = (*course.times_s[1:], np.inf)
    for start_s, end_s, place in zip(course.times_s, ends_s, course.places, strict=True):
        rung = ladder.rungs[place]
        cost += rung.hold * np.clip(lengths - start_s, 0.0, end_s - start_s)
        cost += ladder.wait * rung.reach_s * ((lengths >= start_s) & (lengths < end_s))
    summed: Array = np.bincount(np.minimum(days - 1, idle.ends_s // DAY_S).astype(int), cost, minlength=days)
    return summed


def _day(ends_s: float, days: int) -> int:
    return min(days - 1, int(ends_s / DAY_S))
