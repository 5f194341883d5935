"""How often a model is asked for, and how long it is idle between: updated in constant time.

Knows no clock: every call brings `now`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from backends.estimators import member, number
from backends.warmth.keeping import Habits, Keeping

MEMORIES_S = (300.0, 3600.0, 86400.0)

# A model that has been watched for a second is treated as if it had been watched for this much longer, so that
# the first request of all does not read as one request a second.
PRIOR_AGE_S = 60.0

LEAST_IDLE_S = 1.0
"""A shorter pause between jobs is none: nobody would let a replica go for it."""

# How much of a scale's past loss is kept with each request, and how much a loss counts in its weight (Herbster and
# Warmuth, Tracking the best expert, 1998; a loss that fades does what their sharing does).
_LOSS_KEPT = 0.99
_LEARNING_RATE = 0.3
_LEAST_RATE = 1e-12
_NOW_S = 1.0  # who was asked just now is not infinitely likely to be asked again

FORECASTS = ("mixed", "mean", "recent")
"""The names of what `Demand.forecasts` returns."""


class Demand:
    """The arrivals of one model: decayed rates with time constants `memories_s` (seconds), and its idle times.

    `keeping` learns from its idle times; without one it has a keeping, and habits, of its own. `now` must not run
    backwards between calls; where it does, it counts as no time passed.
    """

    def __init__(self, now: float, keeping: Keeping | None = None, memories_s: Sequence[float] = MEMORIES_S) -> None:
        self.keeping = keeping or Keeping(Habits())
        self.met: tuple[int, float | None] = (0, None)
        """How many requests came while nobody was here, and after how long an idle time the last did (None: first)."""
        self._idle_since: float | None = None
        self._memories_s = tuple(memories_s)
        self._counts = [0.0] * len(self._memories_s)
        self._losses = [0.0] * len(self._memories_s)
        self._weights = [1.0 / len(self._memories_s)] * len(self._memories_s)
        self._born = now
        self._updated = now
        self._last_arrival: float | None = None

    @property
    def idle_since(self) -> float | None:
        """When the last job ended; `None` while one is here, and before the first."""
        return self._idle_since

    @property
    def last_arrival(self) -> float | None:
        """The time of the latest arrival; `None` before the first."""
        return self._last_arrival

    def record(self, now: float) -> None:
        """Count one arrival, which ends the idle time before it."""
        if self._idle_since is not None:
            if (idle_s := now - self._idle_since) >= LEAST_IDLE_S:
                self.keeping.ended(idle_s, now)
                self.met = (self.met[0] + 1, idle_s)
            self._idle_since = None
        elif self._last_arrival is None:
            self.met = (1, None)
        passed = max(0.0, now - self._updated)
        if passed >= LEAST_IDLE_S and self._last_arrival is not None:
            self._weigh(now)
        self._counts = [
            count * math.exp(-passed / memory) + 1.0
            for count, memory in zip(self._counts, self._memories_s, strict=True)
        ]
        self._updated = max(now, self._updated)
        self._last_arrival = self._updated

    def rest(self, now: float) -> None:
        """Note that no job is here any more."""
        if self._last_arrival is not None:
            self._idle_since = now
            self.keeping.begins(now)

    def rate_per_s(self, now: float) -> float:
        """Return the arrivals expected per second from now on: the mean of all scales."""
        rates = self._rates(now)
        return sum(rates) / len(rates)

    def forecasts(self, now: float) -> tuple[float, float, float]:
        """Return the rate by each forecast that may say who gives way: scales mixed, their mean, and recency alone.

        Scales are mixed by how well each has told the times of requests so far; recency is what LRU goes by.
        """
        rates = self._rates(now)
        mixed = sum(weight * rate for weight, rate in zip(self._weights, rates, strict=True))
        age = math.inf if self._last_arrival is None else now - self._last_arrival
        return mixed, sum(rates) / len(rates), 1.0 / (_NOW_S + max(0.0, age))

    def state(self, now: float, wall_s: float) -> dict[str, Any]:
        """Return what `restore` reads, as JSON values; `wall_s` is the Unix time."""
        return {
            "counts": self._counts,
            "losses": self._losses,
            "age_s": max(0.0, now - self._born),
            "since_s": max(0.0, now - self._updated),
            "saved_at_s": wall_s,
        }

    def restore(self, state: Mapping[str, Any], now: float, wall_s: float) -> None:
        """Go on where an earlier run ended; the time between counts as one without requests.

        Raises `ValueError` where the state is of another shape.
        """
        counts, losses = ([number(each, least=-1e15) for each in member(state, name)] for name in ("counts", "losses"))
        if not len(counts) == len(losses) == len(self._memories_s) or min(counts) < 0:
            raise ValueError(f"{len(counts)} counts and {len(losses)} losses where {len(self._memories_s)} are needed")
        away_s = max(0.0, wall_s - number(member(state, "saved_at_s")))
        age_s, since_s = number(member(state, "age_s")), number(member(state, "since_s"))
        self._counts, self._losses = counts, losses
        self._born, self._updated = now - away_s - age_s, now - away_s - since_s
        self._mix()

    def _rates(self, now: float) -> list[float]:
        passed = max(0.0, now - self._updated)
        age = max(0.0, now - self._born) + PRIOR_AGE_S
        return [
            count * math.exp(-passed / memory) / (memory * -math.expm1(-age / memory))
            for count, memory in zip(self._counts, self._memories_s, strict=True)
        ]

    def _weigh(self, now: float) -> None:
        """Score each scale by the likelihood that it gave to a pause of this length and a request after it."""
        before, at_end = self._rates(self._updated), self._rates(now)
        for place, memory in enumerate(self._memories_s):
            expected = (before[place] - at_end[place]) * memory  # a decaying rate, summed over the pause
            loss = expected - math.log(max(_LEAST_RATE, at_end[place]))
            self._losses[place] = self._losses[place] * _LOSS_KEPT + loss
        self._mix()

    def _mix(self) -> None:
        least = min(self._losses)
        weights = [math.exp(-_LEARNING_RATE * (loss - least)) for loss in self._losses]
        total = sum(weights)
        self._weights = [weight / total for weight in weights]
