"""What callers said of what they will ask for: models to have warm, for a time, within a credit that runs out.

Knows no pool; no clock: every call brings `now`.
"""

from collections.abc import Callable
from dataclasses import dataclass

# What each caller's hints may hold is given for an hour, once a day: a hint brings a start forward, and keeps nothing.
CREDIT_LASTS_S = 3600.0
REFILLED_IN_S = 86400.0

# A model whose memory was not measured yet is charged as one of this size.
LEAST_BYTES = 64 * 2**20
# Beyond so many callers those whose credit is fullest are forgotten, which costs them nothing or little.
_MOST_CALLERS = 4096


@dataclass(frozen=True, slots=True)
class Grant:
    """What was granted of a hint: `for_s` of the time that was asked for, 0 where the credit is used up.

    `left` is the share of the credit that is left, `enough_in_s` the time until the whole hint would be granted.
    """

    replicas: int
    for_s: float
    left: float
    enough_in_s: float


class Hints:
    """The hints on one model. A later one of a caller takes nothing from those before. `wake` is called at a new one.

    Of each caller those are kept that another neither outlasts nor outnumbers.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._of: dict[str, tuple[tuple[int, float], ...]] = {}
        self._promised: tuple[float, float] | None = None

    def give(self, caller: str, replicas: int, until: float) -> None:
        """Note that a caller will ask for the model before `until`."""
        hints = self._of.get(caller, ())
        if not any(hinted >= replicas and end >= until for hinted, end in hints):
            stay = (hint for hint in hints if hint[0] > replicas or hint[1] > until)
            self._of[caller] = (*stay, (replicas, until))
        self._wake()

    def promise(self, now: float, until: float) -> None:
        """Note that somebody was told to come again before `until`."""
        since = self.promised_since(now)
        before = until if since is None or self._promised is None else self._promised[1]
        self._promised = (now if since is None else since, max(before, until))
        if since is None:
            self._wake()

    def replicas(self, now: float) -> int:
        """Return how many replicas are hinted at, or promised."""
        if not self._of:
            return int(self.promised_since(now) is not None)
        if any(until <= now for hints in self._of.values() for _, until in hints):
            left = {caller: tuple(hint for hint in hints if hint[1] > now) for caller, hints in self._of.items()}
            self._of = {caller: hints for caller, hints in left.items() if hints}
        hinted = max((replicas for hints in self._of.values() for replicas, _ in hints), default=0)
        return hinted or int(self.promised_since(now) is not None)

    def until(self, caller: str, replicas: int, now: float) -> float:
        """Return until when a caller has hinted at so many replicas, or more; `now` where it has not."""
        return max([now, *(until for hinted, until in self._of.get(caller, ()) if hinted >= replicas)])

    def promised_since(self, now: float) -> float | None:
        """Return since when somebody is expected back who was sent away; None where nobody is."""
        return self._promised[0] if self._promised is not None and self._promised[1] > now else None


class Credits:
    """What each caller's hints may still hold: bytes times seconds, refilled slowly.

    `bytes_for_an_hour` says how much that is: what may be held for an hour a day.
    """

    def __init__(self, bytes_for_an_hour: int = 0) -> None:
        self.bytes_for_an_hour = bytes_for_an_hour
        self._used: dict[str, tuple[float, float]] = {}

    def spend(self, caller: str, *, size: int, replicas: int, for_s: float, now: float) -> Grant:
        """Take what a hint costs, or as much of it as there is."""
        whole = self._whole
        used, held = self._used_by(caller, now), max(size, LEAST_BYTES) * replicas
        granted_s = max(0.0, min(for_s, (whole - used) / held))
        used += granted_s * held
        missing = (for_s - granted_s) * held
        self._used[caller] = (used, now)
        self._forget(now)
        left = max(0.0, 1 - used / whole) if whole else 0.0
        enough_in_s = missing / whole * REFILLED_IN_S if whole else REFILLED_IN_S
        return Grant(replicas, granted_s, left, enough_in_s)

    def left(self, caller: str, now: float) -> float:
        """Return the share of a caller's credit that is left."""
        return 1 - self._used_by(caller, now) / self._whole if self._whole else 0.0

    @property
    def _whole(self) -> float:
        return self.bytes_for_an_hour * CREDIT_LASTS_S

    def _used_by(self, caller: str, now: float) -> float:
        used, at = self._used.get(caller, (0.0, now))
        return max(0.0, min(used, self._whole) - max(0.0, now - at) * self._whole / REFILLED_IN_S)

    def _forget(self, now: float) -> None:
        if len(self._used) > _MOST_CALLERS:
            for caller in sorted(self._used, key=lambda name: self._used_by(name, now))[: _MOST_CALLERS // 2]:
                del self._used[caller]
