"""Replays requests where only so many models fit at a time, all of one size. Knows no costs."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence

from backends.demand import FORECASTS, Demand
from backends.warmth.giving_way import Resident, first_to_go
from backends.warmth.rivals import Contender, Rivals

Requests = Sequence[tuple[float, str]]
"""When which model is asked for, in order."""


def least_recently_used(requests: Requests, slots: int) -> int:
    """Return how many requests find their model absent where the longest unused gives way."""
    held: OrderedDict[str, None] = OrderedDict()
    missed = 0
    for _, model in requests:
        if model not in held:
            missed += 1
            if len(held) >= slots:
                held.popitem(last=False)
        held[model] = None
        held.move_to_end(model)
    return missed


def greedy_dual(requests: Requests, slots: int) -> int:
    """Return the misses where the least of age and frequency gives way (FaasCache, Fuerst and Sharma, 2021)."""
    held: dict[str, float] = {}
    frequency: dict[str, int] = {}
    clock, missed = 0.0, 0
    for _, model in requests:
        frequency[model] = frequency.get(model, 0) + 1
        if model not in held:
            missed += 1
            if len(held) >= slots:
                clock = held.pop(min(held, key=held.__getitem__))
        held[model] = clock + frequency[model]
    return missed


def ours(requests: Requests, slots: int) -> int:
    """Return the misses where the gateway's own choice gives way, by the forecast that lost least so far."""
    held: dict[str, float] = {}
    demand: dict[str, Demand] = {}
    rivals, missed = Rivals(len(FORECASTS)), 0
    for now, model in requests:
        if model not in demand:
            demand[model] = Demand(now)
        demand[model].record(now)
        contenders = _Alike(demand, now)
        rivals.asked(now, model, contenders, slots)
        if model not in held:
            missed += 1
            if len(held) >= slots:
                best = rivals.best
                residents = [Resident(name, contenders[name].rates[best], since) for name, since in held.items()]
                del held[first_to_go(residents).name]
            held[model] = now
    return missed


class _Alike(Mapping[str, Contender]):
    """All models as contenders of one size and one start; what is not looked at is not worked out."""

    def __init__(self, demand: Mapping[str, Demand], now: float) -> None:
        self._demand = demand
        self._now = now
        self._known: dict[str, Contender] = {}

    def __getitem__(self, model: str) -> Contender:
        found = self._known.get(model)
        if found is None:
            found = self._known[model] = Contender(1, 1.0, self._demand[model].forecasts(self._now))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._demand)

    def __len__(self) -> int:
        return len(self._demand)


def furthest_in_future(requests: Requests, slots: int) -> int:
    """Return the misses of whoever knows what comes: the next needed last gives way (Belady, 1966)."""
    following: list[float] = [0.0] * len(requests)
    seen: dict[str, int] = {}
    for place in range(len(requests) - 1, -1, -1):
        model = requests[place][1]
        following[place] = seen.get(model, float("inf"))
        seen[model] = place
    held: dict[str, float] = {}
    missed = 0
    for place, (_, model) in enumerate(requests):
        if model not in held:
            missed += 1
            if len(held) >= slots:
                del held[max(held, key=held.__getitem__)]
        held[model] = following[place]
    return missed


POLICIES: dict[str, Callable[[Requests, int], int]] = {
    "LRU": least_recently_used,
    "greedy-dual": greedy_dual,
    "ours": ours,
    "Belady": furthest_in_future,
}
