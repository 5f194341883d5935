"""How often a model is asked for, and how long it is idle between: updated in constant time.

Knows no clock: every call brings `now`.
"""

import math
from collections.abc import Sequence

from backends.warmth.keeping import Habits, Keeping

MEMORIES_S = (300.0, 3600.0, 86400.0)

# A model that has been watched for a second is treated as if it had been watched for this much longer, so that
# the first request of all does not read as one request a second.
PRIOR_AGE_S = 60.0

LEAST_IDLE_S = 1.0
"""A shorter pause between jobs is none: nobody would let a replica go for it."""


class Demand:
    """The arrival rate of one model: the mean of decayed rates with time constants `memories_s` (seconds).

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

    def rate_per_s(self, now: float) -> float:
        """Return the arrivals expected per second from now on."""
        passed = max(0.0, now - self._updated)
        age = max(0.0, now - self._born) + PRIOR_AGE_S
        rates = (
            count * math.exp(-passed / memory) / (memory * -math.expm1(-age / memory))
            for count, memory in zip(self._counts, self._memories_s, strict=True)
        )
        return sum(rates) / len(self._memories_s)
