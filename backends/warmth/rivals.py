"""Which forecast says best who gives way: each is played on paper, and the one that loses least is followed.

Forecasts are scored so by what their decisions cost, not by how near they come to what happens. Knows no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from backends.warmth.giving_way import Resident, first_to_go

# A wait counts half after so many requests that found their model idle.
_HALF_LIFE = 300.0
_KEPT = 0.5 ** (1 / _HALF_LIFE)


@dataclass(frozen=True, slots=True)
class Contender:
    """A model that may hold room: its size, what its start takes, and the rate that each forecast expects of it."""

    size: int
    start_s: float
    rates: tuple[float, ...]


class Rivals:
    """Plays the same requests under `count` forecasts, each with the same room."""

    def __init__(self, count: int) -> None:
        self._held: list[dict[str, float]] = [{} for _ in range(count)]
        self._lost_s = [0.0] * count

    @property
    def best(self) -> int:
        """The forecast whose choices have made requests wait least of late; the first of those that are alike."""
        return self._lost_s.index(min(self._lost_s))

    @property
    def lost_s(self) -> tuple[float, ...]:
        """How long the choices of each forecast have made requests wait of late, those long ago counting less."""
        return tuple(self._lost_s)

    def asked(self, now: float, model: str, contenders: Mapping[str, Contender], room: int) -> None:
        """Play a request for a model that was idle; `room` is what all may hold together."""
        for place, held in enumerate(self._held):
            missed = model not in held
            if missed:
                _make_room(place, held, contenders, room - contenders[model].size)
                held[model] = now
            self._lost_s[place] = self._lost_s[place] * _KEPT + (contenders[model].start_s if missed else 0.0)


def _make_room(place: int, held: dict[str, float], contenders: Mapping[str, Contender], room: int) -> None:
    """Have models give way until the rest is within the room; who is no contender any more goes at once."""
    for gone in held.keys() - contenders.keys():
        del held[gone]
    used = sum(contenders[name].size for name in held)
    residents = {}
    if used > room:
        residents = {name: _resident(place, name, contenders[name], since) for name, since in held.items()}
    while used > room and residents:
        victim = first_to_go(list(residents.values())).name
        used -= contenders[victim].size
        del residents[victim], held[victim]


def _resident(place: int, name: str, contender: Contender, since: float) -> Resident:
    return Resident(name, contender.rates[place] * contender.start_s / max(1, contender.size), since)
