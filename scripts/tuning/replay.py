"""Replays a trace's idle times under a policy, and keeps its accounts by day. Knows no policy."""

from dataclasses import dataclass

import numpy as np

from backends.warmth.ladder import Level
from scripts.tuning.policies import Ladders, Policy
from scripts.tuning.traces import Array, Trace, in_order

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Accounts:
    """What a policy cost on the judged part of a trace. Costs are in seconds of one warm, idle replica.

    `cost_by_day` is of each judged day, `waits_s` of each request that found its model not warm.
    """

    cost_by_day: Array
    held_s: dict[Level, float]
    waits_s: Array
    requests: int

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


def replay(trace: Trace, ladders: Ladders, policy: Policy, origin_s: float = 0.0) -> Accounts:
    """Replay the trace. What ends before `origin_s` is only learned from; no course is chosen with what follows it."""
    days = int(np.ceil((trace.span_s - origin_s) / DAY_S)) or 1
    cost = np.zeros(days)
    held = dict.fromkeys(Level, 0.0)
    waits: list[float] = []
    for model, idle_s, ends_s in in_order(trace):
        if ends_s >= origin_s:
            ladder = ladders(model)
            course = policy.course(model)
            cost[min(days - 1, int((ends_s - origin_s) / DAY_S))] += course.cost(ladder, idle_s)
            for place, seconds in course.held(idle_s):
                held[ladder.rungs[place].level] += seconds
            wait_s = course.wait_s(ladder, idle_s)
            if wait_s:
                waits.append(wait_s)
        policy.ended(model, idle_s, ends_s)
    return Accounts(cost, held, np.array(waits), _judged(trace, origin_s))


def least(trace: Trace, ladders: Ladders, origin_s: float = 0.0) -> float:
    """Return what the judged idle times cost whoever knows each in advance: the bound for going down the ladder."""
    cost = 0.0
    for model, idle in trace.idle.items():
        ladder, lengths = ladders(model), idle.lengths_s[idle.ends_s >= origin_s]
        lines = [rung.hold * lengths + ladder.wait * rung.reach_s for rung in ladder.rungs]
        cost += float(np.minimum.reduce(lines).sum())
    return cost


def _judged(trace: Trace, origin_s: float) -> int:
    """Return how many requests are judged."""
    return max(1, sum(int((asked_s >= origin_s).sum()) for asked_s in trace.asked_s.values()))
