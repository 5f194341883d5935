"""Compares policies on the days of a trace that are judged, each with what it learned from the days before."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.warmth.course import Course, fixed
from backends.warmth.ladder import Level
from scripts.tuning.choosing import TIMES_S, by_day
from scripts.tuning.places import Belady, GreedyDual, Recency, replay_places
from scripts.tuning.policies import HybridHistogram, Ladders, Ours, by_break_even, kept_for, time_to_live
from scripts.tuning.replay import DAY_S, Accounts, Sizes, foreseen, replay
from scripts.tuning.traces import Trace
from scripts.tuning.weighing import Difference, compare

REPLAYS = 8  # all but the last of those below
"""How often all idle times are gone through, for who shows how far it is."""
_GIB = 2**30
_QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Compared:
    """A policy with its accounts, and by how much it is dearer than what is set now."""

    name: str
    accounts: Accounts
    difference: Difference

    def figures(self) -> dict[str, Any]:
        """Return it as JSON values."""
        accounts = self.accounts
        held = accounts.held_byte_s or {}
        return {
            "policy": self.name,
            "cost_s": accounts.cost,
            "cold_starts": accounts.cold,
            "not_warm": len(accounts.waits_s),
            "requests": accounts.requests,
            "added_wait_s": {f"p{round(100 * share)}": accounts.wait_s(share) for share in _QUANTILES},
            "idle_s": {level.name.lower(): seconds for level, seconds in accounts.held_s.items() if seconds and level},
            "idle_gib_s": {level.name.lower(): size / _GIB for level, size in held.items() if size},
            "against_now": {
                "share": self.difference.share, "low": self.difference.low, "high": self.difference.high,
            },
        }  # fmt: skip


class AsSet:
    """Each model by its own setting: a fixed time (below the warmest level by break-even), or None for `predict`."""

    def __init__(self, ladders: Ladders, keep_s: Mapping[str, float | None], start_s: float) -> None:
        self._ours = Ours(ladders, start_s=start_s)
        self._fixed = {model: kept_for(ladders(model), time) for model, time in keep_s.items() if time is not None}

    def course(self, model: str, began_s: float) -> Course:
        """Return the course for the model's idle time that begins now."""
        return self._fixed[model] if model in self._fixed else self._ours.course(model, began_s)

    def ended(self, model: str, idle_s: float, now: float) -> None:
        """Learn from an idle time that ends now."""
        self._ours.ended(model, idle_s, now)


def compared(
    trace: Trace,
    ladders: Ladders,
    keep_s: Mapping[str, float | None],
    *,
    origin_s: float,
    sizes: Sizes,
    progress: Callable[[], object],
) -> Sequence[Compared]:
    """Replay the trace under every policy. The times of `keep_s` are what is set now, None for `predict`."""

    def run(policy: Any) -> Accounts:
        return replay(trace, ladders, policy, origin_s, sizes=sizes, progress=progress)

    def run_places(choice: Any) -> Accounts:
        return replay_places(trace, ladders, choice, places, origin_s, sizes=sizes, progress=progress)

    now, ours = run(AsSet(ladders, keep_s, trace.start_s)), run(Ours(ladders, start_s=trace.start_s))
    best_s = best_time(trace, ladders, origin_s)
    places = places_of(ours, trace, origin_s)
    room = f"{places} place{'' if places == 1 else 's'}"
    named = {
        "as set now": now,
        "predict": ours,
        "break-even": run(by_break_even(ladders)),
        f"best fixed time in hindsight ({best_s:g} s)": run(time_to_live(ladders, best_s)),
        "hybrid histogram": run(HybridHistogram(ladders)),
        f"LRU, {room}": run_places(Recency()),
        f"greedy-dual, {room}": run_places(GreedyDual()),
        f"Belady, {room} (foresight)": run_places(Belady()),
        "least for each idle time (foresight)": foreseen(trace, ladders, origin_s, sizes),
    }
    return [Compared(name, found, compare(found.cost_by_day, now.cost_by_day)) for name, found in named.items()]


def best_time(trace: Trace, ladders: Ladders, origin_s: float) -> float:
    """Return the one time to live, for all models, that would have been cheapest on the judged days."""
    days, first = int(trace.span_s // DAY_S) + 1, round(origin_s / DAY_S)

    def cost(keep_s: float) -> float:
        return sum(
            float(by_day(idle, ladders(model), fixed(ladders(model), keep_s), days)[first:].sum())
            for model, idle in trace.idle.items()
        )

    return min((0.0, *map(float, TIMES_S)), key=cost)


def places_of(accounts: Accounts, trace: Trace, origin_s: float) -> int:
    """Return how many models a policy held warm at a time, on average and rounded up: as much room for the others."""
    span_s = max(1.0, trace.span_s - origin_s)
    busy_s = len(trace.idle) * span_s - sum(accounts.held_s.values())
    warm_s = accounts.held_s[Level.WARM] + max(0.0, busy_s)
    return min(len(trace.idle), max(1, -int(-warm_s // span_s)))
