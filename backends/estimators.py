"""Small online estimators: a decayed mean, a decayed histogram of durations, a decayed linear fit.

They know nothing of models or replicas; each dumps to plain JSON values and loads from them. What could not have been
learned (no number, negative, beyond all measure) does not load: it would spoil every estimate from then on.
"""

import math
from collections.abc import Mapping
from typing import Any, Self

Plain = dict[str, Any]

# No sum of what is measured here (seconds, bytes, tokens and their squares) comes near it.
MOST = 1e15
LONGEST_S = 1e8


def number(data: Any, *, least: float = 0.0, most: float = MOST) -> float:
    """Return a plain value as a float; raise `ValueError` unless it is a number from `least` to `most`."""
    if not isinstance(data, int | float) or isinstance(data, bool) or not least <= data <= most:
        raise ValueError(f"{data!r:.50} where a number from {least:g} to {most:g} is needed")
    return float(data)


def flag(data: Any) -> bool:
    """Return a plain value that is true or false; raise `ValueError` for any other."""
    if data is not True and data is not False:
        raise ValueError(f"{data!r:.50} where true or false is needed")
    return bool(data)


def member(data: Any, name: str) -> Any:
    """Return one entry of a plain mapping; raise `ValueError` where there is none."""
    if not isinstance(data, Mapping) or name not in data:
        raise ValueError(f"{data!r:.50} where a mapping with '{name}' is needed")
    return data[name]


def _numbers(data: Any, count: int) -> list[float]:
    if not isinstance(data, list) or len(data) != count:
        raise ValueError(f"{data!r:.50} where a list of {count} numbers is needed")
    return [number(each) for each in data]


def _count(data: Any) -> int:
    return int(number(data))


class DecayedMean:
    """A mean in which each value weighs `keep` times as much as the next newer one; it begins at `seed`."""

    def __init__(self, seed: float, keep: float = 0.95) -> None:
        self._keep = keep
        self._sum = seed
        self._weight = 1.0
        self.count = 0

    def add(self, value: float) -> None:
        """Learn a value; the first one replaces the seed."""
        keep = self._keep if self.count else 0.0
        self._sum = self._sum * keep + value
        self._weight = self._weight * keep + 1.0
        self.count += 1

    @property
    def value(self) -> float:
        """The mean now."""
        return self._sum / self._weight

    def dump(self) -> Plain:
        """Return what was learned as plain values."""
        return {"sum": self._sum, "weight": self._weight, "count": self.count}

    def load(self, data: Mapping[str, Any]) -> Self:
        """Take over what `dump` returned. Raises `ValueError` where it cannot have."""
        total, weight = number(member(data, "sum")), number(member(data, "weight"), least=1.0)
        self.count = _count(member(data, "count"))
        self._sum, self._weight = total, weight
        return self


class DurationHistogram:
    """Quantiles of a duration in seconds, within 5 %, over buckets that grow by a tenth; old values fade.

    Until the first value it answers with `seed_s`.
    """

    _RATIO = math.log(1.1)
    _LEAST_S = 1e-4
    _FADED = 1e-3
    """A weight that is forgotten with the next value."""

    def __init__(self, seed_s: float, keep: float = 0.95) -> None:
        self._keep = keep
        self._seed_s = seed_s
        self._weights: dict[int, float] = {}
        self._known: dict[float, float] = {}
        """Quantiles of all values that were asked for since the last value: each look of the keeper asks again."""

    @property
    def is_empty(self) -> bool:
        """Whether it knows the seed alone."""
        return not self._weights

    def add(self, seconds: float) -> None:
        """Learn a duration."""
        bucket = self._bucket(seconds)
        self._weights = {key: weight * self._keep for key, weight in self._weights.items() if weight > self._FADED}
        self._weights[bucket] = self._weights.get(bucket, 0.0) + 1.0
        self._known.clear()

    def quantile(self, share: float, above_s: float = 0.0) -> float | None:
        """Return the duration that `share` (0 to 1) of the values longer than `above_s` do not exceed.

        `None` when no value was that long.
        """
        if above_s == 0.0 and (known := self._known.get(share)) is not None:
            return known
        if not self._weights:
            return self._seed_s if self._seed_s > above_s else None
        longer = sorted((key, weight) for key, weight in self._weights.items() if self._middle(key) > above_s)
        left = share * sum(weight for _, weight in longer)
        for key, weight in longer:
            left -= weight
            if left <= 0.0:
                return self._keep_known(share, above_s, self._middle(key))
        return self._keep_known(share, above_s, self._middle(longer[-1][0])) if longer else None

    def _keep_known(self, share: float, above_s: float, quantile: float) -> float:
        if above_s == 0.0:
            self._known[share] = quantile
        return quantile

    def dump(self) -> Plain:
        """Return what was learned as plain values."""
        return {"weights": [[key, weight] for key, weight in sorted(self._weights.items())]}

    def load(self, data: Mapping[str, Any]) -> Self:
        """Take over what `dump` returned. Raises `ValueError` where it cannot have."""
        weights = member(data, "weights")
        last, least = self._bucket(LONGEST_S), self._FADED * self._keep
        if not isinstance(weights, list) or len(weights) > last + 1:
            raise ValueError(f"{weights!r:.50} where a list of at most {last + 1} buckets is needed")
        pairs = [_numbers(pair, 2) for pair in weights]
        self._weights = {int(number(key, most=last)): number(weight, least=least) for key, weight in pairs}
        self._known.clear()
        return self

    def _bucket(self, seconds: float) -> int:
        return math.floor(math.log(max(seconds, self._LEAST_S) / self._LEAST_S) / self._RATIO)

    def _middle(self, bucket: int) -> float:
        return self._LEAST_S * math.exp((bucket + 0.5) * self._RATIO)


class LinearFit:
    """Least squares of y on (1, a, b) with a ridge on the slopes; each point weighs `keep` times the next newer one.

    It holds decayed sums and solves them when asked, so features that never vary cannot blow it up: their slopes
    shrink to the smallest that explain the data.
    """

    _RIDGE = 1e-3

    def __init__(self, keep: float = 0.98) -> None:
        self._keep = keep
        self._moments = [0.0] * 6  # w, wa, wb, waa, wab, wbb
        self._targets = [0.0] * 3  # wy, way, wby
        self._solution: tuple[float, float, float] | None = None
        self.count = 0

    def add(self, a: float, b: float, y: float) -> None:
        """Learn one point."""
        keep = self._keep
        w, wa, wb, waa, wab, wbb = self._moments
        wy, way, wby = self._targets
        self._moments = [
            w * keep + 1.0,
            wa * keep + a,
            wb * keep + b,
            waa * keep + a * a,
            wab * keep + a * b,
            wbb * keep + b * b,
        ]
        self._targets = [wy * keep + y, way * keep + a * y, wby * keep + b * y]
        self._solution = None
        self.count += 1

    def predict(self, a: float, b: float) -> float:
        """Return the fitted y at (a, b); 0 before the first point."""
        if self.count == 0:
            return 0.0
        if self._solution is None:
            self._solution = self._solve()
        base, slope_a, slope_b = self._solution
        return base + slope_a * a + slope_b * b

    def dump(self) -> Plain:
        """Return what was learned as plain values."""
        return {"moments": list(self._moments), "targets": list(self._targets), "count": self.count}

    def load(self, data: Mapping[str, Any]) -> Self:
        """Take over what `dump` returned. Raises `ValueError` where it cannot have."""
        fresh = LinearFit(self._keep)
        fresh._moments = _numbers(member(data, "moments"), len(self._moments))
        fresh._targets = _numbers(member(data, "targets"), len(self._targets))
        fresh.count = _count(member(data, "count"))
        if fresh.count and not fresh._solvable():
            raise ValueError(f"the moments {fresh._moments} are of no points")
        self._moments, self._targets, self.count, self._solution = fresh._moments, fresh._targets, fresh.count, None
        return self

    def _solvable(self) -> bool:
        """Whether the sums are such as points give: each point weighs, and no covariance exceeds its variances."""
        if self._moments[0] < 1.0:
            return False
        var_a, var_b, cov = self._spread()
        return min(var_a, var_b) > 0.0 and var_a * var_b > cov * cov

    def _spread(self) -> tuple[float, float, float]:
        """Return the variances of a and b, with the ridge, and their covariance, each times the weight of all."""
        w, wa, wb, waa, wab, wbb = self._moments
        ridge = self._RIDGE * w
        return (waa - wa * wa / w) + ridge, (wbb - wb * wb / w) + ridge, wab - wa * wb / w

    def _solve(self) -> tuple[float, float, float]:
        """Centre the sums (the base is not punished), then solve the two slopes."""
        w, wa, wb, *_ = self._moments
        wy, way, wby = self._targets
        var_a, var_b, cov = self._spread()
        to_a, to_b = way - wa * wy / w, wby - wb * wy / w
        det = var_a * var_b - cov * cov
        slope_a = (to_a * var_b - to_b * cov) / det
        slope_b = (to_b * var_a - to_a * cov) / det
        return (wy - slope_a * wa - slope_b * wb) / w, slope_a, slope_b
