"""How long a model is idle between requests: a histogram with logarithmic bins that fades. Knows no clock, no costs."""

import bisect
from collections.abc import Mapping, Sequence

_FIRST_S = 1.0
_RATIO = 2.0**0.25
_BINS = 88  # the last one begins after 40 days
_HEAVY = 1e12
_LONG_AGO = 100.0  # half-lives, after which nothing is left to weigh

EDGES_S = (0.0, *(_FIRST_S * _RATIO**power for power in range(1, _BINS)))
"""Where each bin begins; the last has no end."""
WIDTHS_S = tuple(end - start for start, end in zip(EDGES_S, (*EDGES_S[1:], EDGES_S[-1] * _RATIO), strict=True))


def bin_of(idle_s: float) -> int:
    """Return the bin of an idle time."""
    return bisect.bisect_right(EDGES_S, idle_s) - 1


def below(shares: Sequence[float], idle_s: float) -> float:
    """Return the share of idle times shorter than one, where each bin is spread evenly."""
    place = bin_of(idle_s)
    return sum(shares[:place]) + shares[place] * min(1.0, (idle_s - EDGES_S[place]) / WIDTHS_S[place])


class IdleTimes:
    """Counts idle times. What was counted `half_life_s` ago weighs half, so that habits may change."""

    __slots__ = ("_counts", "_half_life_s", "_since_s", "_total", "_weight")

    def __init__(self, half_life_s: float) -> None:
        self._half_life_s = half_life_s
        self._counts = [0.0] * _BINS
        self._total = 0.0
        self._since_s: float | None = None
        self._weight = 1.0

    def add(self, idle_s: float, now: float) -> None:
        """Count an idle time that ends now."""
        if self._since_s is None or now < self._since_s:
            self._since_s = now
        # The newest weigh ever more instead of the older ones less, which touches one bin and not all.
        self._weight = 2.0 ** min(_LONG_AGO, (now - self._since_s) / self._half_life_s)
        self._counts[bin_of(idle_s)] += self._weight
        self._total += self._weight
        if self._weight > _HEAVY:
            self._rescale(now)

    @property
    def count(self) -> float:
        """How many idle times of now the histogram is worth."""
        return self._total / self._weight

    def shares(self, prior: Sequence[float] | None = None, prior_count: float = 0.0) -> list[float]:
        """Return the share of each bin, with the shares of `prior` counted in as that many idle times.

        They sum to less than 1: one idle time more is counted that has no end, for what was never seen.
        """
        scale = 1.0 / (self.count + prior_count + 1.0)
        each = scale / self._weight
        if prior is None:
            return [count * each for count in self._counts]
        return [count * each + prior_count * scale * share for count, share in zip(self._counts, prior, strict=True)]

    def include(self, shares: Sequence[float], count: float) -> None:
        """Count so many idle times more, of these shares."""
        more = count * self._weight
        self._counts = [own + more * share for own, share in zip(self._counts, shares, strict=True)]
        self._total += more * sum(shares)

    def state(self) -> dict[str, float]:
        """Return what `restored` reads, as JSON values."""
        return {str(place): count / self._weight for place, count in enumerate(self._counts) if count}

    @classmethod
    def restored(cls, state: Mapping[str, float], half_life_s: float) -> "IdleTimes":
        """Return the histogram of an earlier run. Raises `ValueError` where the state is of another shape."""
        times = cls(half_life_s)
        if not isinstance(state, Mapping):
            raise TypeError(f"idle times are {type(state).__name__}, not counts by bin")
        for place, count in state.items():
            at = int(place)
            if not (0 <= at < _BINS and 0.0 < count < _HEAVY):
                raise ValueError(f"bin {place!r} of idle times holds {count!r}")
            times._counts[at] = float(count)
        times._total = sum(times._counts)
        return times

    def _rescale(self, now: float) -> None:
        self._counts = [count / self._weight for count in self._counts]
        self._total /= self._weight
        self._since_s, self._weight = now, 1.0
