"""Replays a trace's idle times under a policy, and keeps its accounts by day. Knows no policy."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from backends.warmth.ladder import Level
from scripts.tuning.policies import Ladders, Policy
from scripts.tuning.traces import Array, Trace, in_order

DAY_S = 86_400.0

Sizes = Callable[[str, Level], int]
"""Gives the bytes that a replica of a model holds on a level."""


def unsized(_model: str, _level: Level) -> int:
    """Stand for sizes that nobody asks about."""
    return 0


@dataclass(frozen=True, slots=True)
class Accounts:
    """What a policy cost on the judged part of a trace. Costs are in seconds of one warm, idle replica.

    `cost_by_day` is of each judged day, `waits_s` of each request that found its model not warm, `cold` the count of
    those that found it on the coldest level. `held_byte_s` has the same as `held_s`, weighed by the size.
    """

    cost_by_day: Array
    held_s: dict[Level, float]
    waits_s: Array
    requests: int
    cold: int = 0
    held_byte_s: dict[Level, float] | None = None

    @property
    def cost(self) -> float:
        """The whole cost."""
        return float(self.cost_by_day.sum())

    @property
    def cold_share(self) -> float:
        """The share of requests that found their model not warm."""
        return len(self.waits_s) / self.requests

    def wait_s(self, quantile: float) -> float:
        """Return the wait that this share of all requests does not exceed."""
        place = int(quantile * self.requests) - (self.requests - len(self.waits_s))
        return float(np.sort(self.waits_s)[place]) if place >= 0 and len(self.waits_s) else 0.0


class Tally:
    """Adds up idle times, those that end before `origin_s` left out."""

    def __init__(self, trace: Trace, ladders: Ladders, origin_s: float, sizes: Sizes = unsized) -> None:
        self._days = int(np.ceil((trace.span_s - origin_s) / DAY_S)) or 1
        self._ladders = ladders
        self._origin_s = origin_s
        self._sizes = sizes
        self._requests = judged(trace, origin_s)
        self._cost = np.zeros(self._days)
        self._held_s = dict.fromkeys(Level, 0.0)
        self._held_byte_s = dict.fromkeys(Level, 0.0)
        self._waits: list[float] = []
        self._cold = 0

    def add(self, model: str, ends_s: float, held: Iterable[tuple[int, float]], wait_s: float) -> None:
        """Count an idle time: how long it was spent on which place of the ladder, and what the next request waited."""
        if ends_s < self._origin_s:
            return
        ladder, cost = self._ladders(model), 0.0
        for place, seconds in held:
            rung = ladder.rungs[place]
            cost += rung.hold * seconds
            self._held_s[rung.level] += seconds
            self._held_byte_s[rung.level] += seconds * self._sizes(model, rung.level)
        self._cost[min(self._days - 1, int((ends_s - self._origin_s) / DAY_S))] += cost + ladder.wait * wait_s
        if wait_s:
            self._waits.append(wait_s)
            self._cold += wait_s >= ladder.rungs[-1].reach_s

    def accounts(self) -> Accounts:
        """Return the sums."""
        waits = np.array(self._waits)
        return Accounts(self._cost, self._held_s, waits, self._requests, self._cold, self._held_byte_s)


def replay(
    trace: Trace,
    ladders: Ladders,
    policy: Policy,
    origin_s: float = 0.0,
    *,
    sizes: Sizes = unsized,
    progress: Callable[[], object] = lambda: None,
) -> Accounts:
    """Replay the trace. What ends before `origin_s` is only learned from; no course is chosen with what follows it."""
    tally = Tally(trace, ladders, origin_s, sizes)
    for model, idle_s, ends_s in in_order(trace):
        course = policy.course(model, ends_s - idle_s)
        tally.add(model, ends_s, course.held(idle_s), course.wait_s(ladders(model), idle_s))
        policy.ended(model, idle_s, ends_s)
        progress()
    return tally.accounts()


def least(trace: Trace, ladders: Ladders, origin_s: float = 0.0) -> float:
    """Return what the judged idle times cost whoever knows each in advance: the bound for going down the ladder."""
    return foreseen(trace, ladders, origin_s).cost


def foreseen(trace: Trace, ladders: Ladders, origin_s: float = 0.0, sizes: Sizes = unsized) -> Accounts:
    """Return the accounts of whoever knows each idle time in advance, and stays on the one rung that is cheapest."""
    tally = Tally(trace, ladders, origin_s, sizes)
    for model, idle_s, ends_s in in_order(trace):
        place = ladders(model).cheapest(idle_s)
        tally.add(model, ends_s, [(place, idle_s)], ladders(model).rungs[place].reach_s)
    return tally.accounts()


def judged(trace: Trace, origin_s: float) -> int:
    """Return how many requests are judged."""
    return max(1, sum(int((asked_s >= origin_s).sum()) for asked_s in trace.asked_s.values()))
