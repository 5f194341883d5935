"""Replays a trace where only so many models fit at a time, in the accounts of the ladder. Knows no budget in bytes.

A model stays until another needs its place; one that is busy stays whatever comes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from scripts.tuning.policies import Ladders
from scripts.tuning.replay import Accounts, Sizes, Tally, unsized
from scripts.tuning.traces import Trace

FOREVER_S = math.inf


@dataclass(slots=True)
class Resident:
    """A model that has a place: since when it is idle, when it is asked next, and its worth where that is kept."""

    model: str
    idle_since_s: float
    next_s: float
    worth: float = 0.0


class Recency:
    """The longest unused gives way (LRU)."""

    def asked(self, resident: Resident, start_s: float) -> None:
        """Note that a model with a place was asked."""

    def first_to_go(self, idle: list[Resident]) -> Resident:
        """Return who gives way."""
        return min(idle, key=lambda resident: resident.idle_since_s)


class GreedyDual:
    """The least of age and of frequency times its start gives way (FaasCache, Fuerst and Sharma, 2021)."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._frequency: dict[str, int] = {}

    def asked(self, resident: Resident, start_s: float) -> None:
        """Note that a model with a place was asked."""
        count = self._frequency[resident.model] = self._frequency.get(resident.model, 0) + 1
        resident.worth = self._clock + count * start_s

    def first_to_go(self, idle: list[Resident]) -> Resident:
        """Return who gives way."""
        victim = min(idle, key=lambda resident: resident.worth)
        self._clock = victim.worth
        return victim


class Belady:
    """Who is asked last of all gives way: nobody who does not know the future does better (Belady, 1966)."""

    def asked(self, resident: Resident, start_s: float) -> None:
        """Note that a model with a place was asked."""

    def first_to_go(self, idle: list[Resident]) -> Resident:
        """Return who gives way."""
        return max(idle, key=lambda resident: resident.next_s)


Choice = Recency | GreedyDual | Belady


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that ends an idle time of `idle_s` (None: the model's first); after it, idle from `rests_s` on."""

    at_s: float
    model: str
    idle_s: float | None
    rests_s: float
    next_s: float


def replay_places(
    trace: Trace,
    ladders: Ladders,
    choice: Choice,
    places: int,
    origin_s: float = 0.0,
    *,
    sizes: Sizes = unsized,
    progress: Callable[[], object] = lambda: None,
) -> Accounts:
    """Replay the trace with so many places."""
    tally = Tally(trace, ladders, origin_s, sizes)
    residents: dict[str, Resident] = {}
    left_s: dict[str, float] = {}
    for asked in sorted(_requests(trace), key=lambda each: each.at_s):
        model, ladder = asked.model, ladders(asked.model)
        resident = residents.pop(model, None)
        if asked.idle_s is not None:
            began_s = asked.at_s - asked.idle_s
            gone_s = 0.0 if resident is not None else asked.at_s - max(began_s, left_s.get(model, began_s))
            cold = len(ladder.rungs) - 1
            wait_s = ladder.rungs[0 if resident is not None else cold].reach_s
            tally.add(model, asked.at_s, [(0, asked.idle_s - gone_s), (cold, gone_s)], wait_s)
            progress()
        while len(residents) >= places:
            idle = [other for other in residents.values() if other.idle_since_s <= asked.at_s]
            if not idle:
                break
            victim = choice.first_to_go(idle)
            del residents[victim.model]
            left_s[victim.model] = asked.at_s
        came = Resident(model, asked.rests_s, asked.next_s, 0.0 if resident is None else resident.worth)
        residents[model] = came
        choice.asked(came, ladder.rungs[-1].reach_s)
    return tally.accounts()


def _requests(trace: Trace) -> Iterator[_Asked]:
    for model, idle in trace.idle.items():
        lengths, ends = idle.lengths_s.tolist(), idle.ends_s.tolist()
        begins = [end - length for end, length in zip(ends, lengths, strict=True)]
        at = [float(trace.asked_s[model][0]), *ends]
        rests, nexts = [*begins, float(trace.asked_s[model][-1])], [*ends, FOREVER_S]
        for when, length, rest, following in zip(at, [None, *lengths], rests, nexts, strict=True):
            yield _Asked(when, model, length, rest, following)
