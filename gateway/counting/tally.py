"""Counts of what happens with every request, in plain numbers: no lock, no look-up. Knows no metric's name."""

from bisect import bisect_left

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Times:
    """How often something took how long."""

    __slots__ = ("_counts", "sum_s")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return for each bound, written out, how many took no longer; without bound, how many there were."""
        total = 0
        rows: list[tuple[str, float]] = []
        for bound, count in zip((*BOUNDS_S, float("inf")), self._counts, strict=True):
            total += count
            rows.append(("+Inf" if bound == float("inf") else str(float(bound)), total))
        return rows


class Answered:
    """The requests that ended in one way, and the times of all that share them."""

    __slots__ = ("count", "times")

    def __init__(self, times: Times) -> None:
        self.count = 0
        self.times = times

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self.times.add(seconds)


class OfModel:
    """What one model did."""

    __slots__ = ("first", "tokens_in", "tokens_out")

    def __init__(self) -> None:
        self.first = Times()
        self.tokens_in = 0
        self.tokens_out = 0

    def answered(self, seconds: float, read: int, made: int) -> None:
        """Count a whole answer: after what time it came, and the tokens of it."""
        self.first.add(seconds)
        self.tokens_in += read
        self.tokens_out += made
