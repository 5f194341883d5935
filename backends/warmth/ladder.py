"""The levels of warmth, and what a replica costs at each. Knows no demand and no clock."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

WAIT_VALUE = 100.0
"""A second that a request waits is worth this many seconds of an idle replica."""


class Level(IntEnum):
    """How ready a replica is, from nothing to an answer at once."""

    ABSENT = 0
    STARTED = 1  # the process is up and has its runtime imported
    ASLEEP = 2  # weights in host memory
    LOADED = 3  # weights on the device
    WARM = 4  # a real inference has run

    @property
    def words(self) -> str:
        """Say it in a sentence on a model."""
        return _WORDS[self]


_WORDS = {
    Level.ABSENT: "down",
    Level.STARTED: "started",
    Level.ASLEEP: "asleep",
    Level.LOADED: "loaded",
    Level.WARM: "up",
}


@dataclass(frozen=True, slots=True)
class Rung:
    """One level of one model. `hold` is the price of a second on it, `reach_s` how long an answer takes from it."""

    level: Level
    hold: float
    reach_s: float


@dataclass(frozen=True, slots=True)
class Ladder:
    """The rungs that are worth standing on, the warmest first; `wait` is the price of a second that a request waits."""

    rungs: tuple[Rung, ...]
    wait: float

    @classmethod
    def of(cls, rungs: Iterable[Rung], wait: float) -> "Ladder":
        """Leave out each rung that is never the cheapest, however long the idle time that is waited out on it.

        The cost of an idle time that one rung is held for is a line: `wait * reach_s` at once and `hold` a second. What
        is left is the lower envelope of these lines. Raises `ValueError` where there is no rung.
        """
        kept: list[Rung] = []
        for rung in sorted(rungs, key=lambda r: (-r.hold, r.reach_s)):
            if kept and rung.hold == kept[-1].hold:
                continue  # equally dear, and slower
            while kept and (kept[-1].reach_s >= rung.reach_s or _is_above(kept[-2:], rung)):
                kept.pop()
            kept.append(rung)
        if not kept:
            raise ValueError("a ladder needs at least one rung")
        return cls(tuple(kept), wait)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels of the rungs, the warmest first."""
        return tuple([rung.level for rung in self.rungs])

    def leave_after_s(self, place: int) -> float:
        """Return the idle time after which the rung below this place has become the cheaper one: the break-even.

        To leave then costs at most twice what foresight would have (Karlin et al., Competitive snoopy caching, 1988).
        """
        upper, lower = self.rungs[place], self.rungs[place + 1]
        return self.wait * (lower.reach_s - upper.reach_s) / (upper.hold - lower.hold)

    def cheapest(self, idle_s: float) -> int:
        """Return the place that is cheapest for whoever knows the idle time in advance, and stays on one rung."""
        costs = [rung.hold * idle_s + self.wait * rung.reach_s for rung in self.rungs]
        return costs.index(min(costs))


def two_rungs(start_s: float) -> Ladder:
    """Return the ladder of a replica that is up or is not, in seconds of one that is up and idle."""
    return Ladder.of([Rung(Level.WARM, 1.0, 0.0), Rung(Level.ABSENT, 0.0, start_s)], WAIT_VALUE)


def _is_above(last: list[Rung], rung: Rung) -> bool:
    """Tell whether the last rung kept is nowhere below both its neighbours."""
    if len(last) < 2:  # noqa: PLR2004 - a line between two neighbours needs both
        return False
    upper, middle = last
    return (middle.reach_s - upper.reach_s) * (middle.hold - rung.hold) >= (rung.reach_s - middle.reach_s) * (
        upper.hold - middle.hold
    )
