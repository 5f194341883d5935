"""How many replicas run at least, by the operator's hours. Pure: the time of day comes with the call."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

_MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Shift:
    """At least so many replicas on these days (0 is Monday), from one minute of the day to another, by a zone's clocks.

    Where it does not end later than it begins, it ends on the day after.
    """

    days: frozenset[int]
    from_min: int
    to_min: int
    least: int
    zone: str = "UTC"

    def covers(self, wall_s: float) -> bool:
        """Tell whether a moment (Unix time) is within it."""
        local = datetime.fromtimestamp(wall_s, ZoneInfo(self.zone))
        minute = local.hour * 60 + local.minute
        if self.from_min < self.to_min:
            return local.weekday() in self.days and self.from_min <= minute < self.to_min
        if minute >= self.from_min:
            return local.weekday() in self.days
        return minute < self.to_min and (local - timedelta(days=1)).weekday() in self.days


def least_replicas(shifts: Sequence[Shift], wall_s: float, ahead_s: float = 0.0) -> int:
    """Return how many replicas run at least at a moment (Unix time); 0 outside of all shifts.

    What is to be up when a shift begins starts `ahead_s` before, and stays up until then: every minute on the way is
    looked at, since a shift may be shorter than a start.
    """
    moments = [wall_s + each for each in range(0, int(ahead_s), _MINUTE_S)]
    return max((s.least for s in shifts if any(map(s.covers, [*moments, wall_s + ahead_s]))), default=0)
