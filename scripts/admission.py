"""Traces of requests for cached answers, and the policies that the memory tier is measured against.

Everything is made from a seed, so that the same figures come out again.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cache.contract import Entry
from cache.memory import ENTRY_OVERHEAD_BYTES, MemoryStore

SMALLEST_BYTES, LARGEST_BYTES = 200, 200_000
_SIZES = 64


@dataclass(frozen=True, slots=True)
class Trace:
    """Which answer is asked for, one after the other, and how large each is: `sizes` by number of the answer."""

    name: str
    asked: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def footprint_bytes(self) -> int:
        """Return what it would take to keep every answer that is asked for twice."""
        numbers, counts = np.unique(self.asked, return_counts=True)
        return int((self.sizes[numbers[counts > 1]] + ENTRY_OVERHEAD_BYTES).sum())


def traces(requests: int, seed: int) -> Iterator[Trace]:
    """Make the traces: Zipf, the same with scans in it, and one whose favourites change."""
    random = np.random.default_rng(seed)
    keys = requests // 10
    zipf = _zipf(random, keys, requests, 0.9)
    yield Trace("zipf", zipf, _sizes(random, keys))

    scanned = zipf.copy()
    burst = requests // 25
    for start in range(burst, requests, 4 * burst):
        end = min(start + burst, requests)
        scanned[start:end] = keys + np.arange(start, end)
    yield Trace("zipf+scan", scanned, _sizes(random, keys + requests))

    # One request of two is for something that nobody ever asks for again.
    once = random.random(requests) < 0.5
    single = np.where(once, keys + np.arange(requests), zipf)
    yield Trace("zipf+single", single, _sizes(random, keys + requests))

    shift = (np.arange(requests) * 4 // requests) * (keys // 4)
    yield Trace("shifting", (zipf + shift) % keys, _sizes(random, keys))


def _zipf(random: np.random.Generator, keys: int, requests: int, exponent: float) -> NDArray[np.int64]:
    weights = 1.0 / np.arange(1, keys + 1) ** exponent
    ranks = np.searchsorted(np.cumsum(weights) / weights.sum(), random.random(requests))
    return random.permutation(keys)[np.minimum(ranks, keys - 1)]


def _sizes(random: np.random.Generator, keys: int) -> NDArray[np.int64]:
    """Draw sizes that differ by a factor of a thousand, most of them small, rounded to a few distinct ones."""
    spread = np.log(LARGEST_BYTES / SMALLEST_BYTES)
    drawn = np.clip(random.normal(0.35, 0.2, keys), 0, 1)
    return np.round(SMALLEST_BYTES * np.exp(np.round(drawn * _SIZES) / _SIZES * spread)).astype(np.int64)


class Policy(Protocol):
    """Keeps answers within a budget of bytes."""

    def ask(self, number: int, size: int) -> bool:
        """Tell whether the answer is there; where it is not, it is made and offered."""
        ...

    def looks(self, numbers: Iterable[int]) -> list[Callable[[], object]]:
        """Keep these answers, and return calls that look for each and find it."""
        ...


class Ours:
    """The memory tier itself."""

    def __init__(self, max_bytes: int) -> None:
        self._store = MemoryStore(max_bytes, lambda: 0.0)
        self._values: dict[int, bytes] = {}

    def ask(self, number: int, size: int) -> bool:
        """Ask the store as the gateway does."""
        key = sha256(number.to_bytes(8)).digest()
        if self._store.peek(key) is not None:
            return True
        value = self._values.get(size)
        if value is None:
            value = self._values[size] = bytes(size)
        self._store.keep(Entry(key, value, 0.0, 1.0))
        return False

    def looks(self, numbers: Iterable[int]) -> list[Callable[[], object]]:
        """Look as the gateway does, the key being known."""
        keys = [sha256(number.to_bytes(8)).digest() for number in numbers]
        for key in keys:
            self._store.keep(Entry(key, bytes(1000), 0.0, 1.0))
        return [functools.partial(self._store.peek, key) for key in keys]


class _Rival:
    def ask(self, number: int, size: int) -> bool:
        raise NotImplementedError

    def looks(self, numbers: Iterable[int]) -> list[Callable[[], object]]:
        """Ask for each a few times, so that it is where it stays."""
        asked = list(numbers)
        for number in asked * 3:
            self.ask(number, 1000)
        return [functools.partial(self.ask, number, 1000) for number in asked]


class Lru(_Rival):
    """Least recently used goes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used = 0
        self._kept: OrderedDict[int, int] = OrderedDict()

    def ask(self, number: int, size: int) -> bool:
        """Move what is there to the end; else put it there."""
        if number in self._kept:
            self._kept.move_to_end(number)
            return True
        cost = size + 32 + ENTRY_OVERHEAD_BYTES
        self._kept[number] = cost
        self._used += cost
        while self._used > self._max_bytes:
            _, gone = self._kept.popitem(last=False)
            self._used -= gone
        return False


class WTinyLfu(_Rival):
    """W-TinyLFU (Einziger et al., 2017) by bytes: a window, a segmented main part, and a sketch of frequencies.

    A newcomer enters the main part where it was asked for more often than all that would go for it, together (the
    size-aware variant of Einziger et al., 2021).
    """

    def __init__(self, max_bytes: int, window: float = 0.01, protected: float = 0.8) -> None:
        self._window: OrderedDict[int, int] = OrderedDict()
        self._probation: OrderedDict[int, int] = OrderedDict()
        self._protected: OrderedDict[int, int] = OrderedDict()
        self._used = {"window": 0, "probation": 0, "protected": 0}
        self._window_bytes = int(max_bytes * window)
        self._main_bytes = max_bytes - self._window_bytes
        self._protected_bytes = int(self._main_bytes * protected)
        self._counts: dict[int, int] = {}
        self._seen = 0
        self._sample = 10 * max(1, max_bytes // 4096)

    def ask(self, number: int, size: int) -> bool:
        """Count the request, look in the three parts, and offer what is missing."""
        self._count(number)
        if number in self._window:
            self._window.move_to_end(number)
        elif number in self._protected:
            self._protected.move_to_end(number)
        elif number in self._probation:
            self._promote(number)
        else:
            self._enter(number, size + 32 + ENTRY_OVERHEAD_BYTES)
            return False
        return True

    def _count(self, number: int) -> None:
        # Exact counts instead of a sketch: the policy at its best.
        self._counts[number] = min(15, self._counts.get(number, 0) + 1)
        self._seen += 1
        if self._seen >= self._sample:
            self._seen //= 2
            self._counts = {kept: count // 2 for kept, count in self._counts.items() if count > 1}

    def _promote(self, number: int) -> None:
        cost = self._probation.pop(number)
        self._used["probation"] -= cost
        self._protected[number] = cost
        self._used["protected"] += cost
        while self._used["protected"] > self._protected_bytes:
            demoted, cost = self._protected.popitem(last=False)
            self._used["protected"] -= cost
            self._probation[demoted] = cost
            self._used["probation"] += cost

    def _enter(self, number: int, cost: int) -> None:
        self._window[number] = cost
        self._used["window"] += cost
        while self._used["window"] > self._window_bytes:
            candidate, cost = self._window.popitem(last=False)
            self._used["window"] -= cost
            self._offer(candidate, cost)

    def _offer(self, candidate: int, cost: int) -> None:
        room = self._main_bytes - self._used["probation"] - self._used["protected"]
        frequency, against, victims = self._counts.get(candidate, 0), 0, []
        for victim, size in self._probation.items():
            if room >= cost:
                break
            victims.append(victim)
            against += self._counts.get(victim, 0)
            room += size
            if against >= frequency:
                break
        if room < cost or (victims and against >= frequency):
            # As in the paper: those that were looked at are seen to be of use.
            return
        for victim in victims:
            self._used["probation"] -= self._probation.pop(victim)
        self._probation[candidate] = cost
        self._used["probation"] += cost


POLICIES = {"s3-fifo": Ours, "w-tinylfu": WTinyLfu, "lru": Lru}


@dataclass(frozen=True, slots=True)
class Figures:
    """What a policy did with a trace: the shares of requests, and of bytes asked for, that it had."""

    hit_ratio: float
    byte_hit_ratio: float


def replay(policy: Policy, trace: Trace) -> Figures:
    """Ask for everything in the trace, and count from its first fifth on."""
    warm = len(trace.asked) // 5
    hits = hit_bytes = asked_bytes = 0
    for place, number in enumerate(trace.asked.tolist()):
        size = int(trace.sizes[number])
        hit = policy.ask(number, size)
        if place >= warm:
            hits += hit
            hit_bytes += hit * size
            asked_bytes += size
    return Figures(hits / (len(trace.asked) - warm), hit_bytes / asked_bytes)
