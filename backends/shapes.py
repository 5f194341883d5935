"""What is learned of one model's input shapes: which are asked for, and which cost more the first time. No clock."""

from collections.abc import Iterable, Sequence
from typing import Any

from backends.estimators import number

Shape = tuple[int, ...]
Seen = tuple[Sequence[int], int, float, float]

MOST_WARMED = 8
MOST_REMEMBERED = 64

LEAST_EXCESS_S = 0.005
LEAST_RATIO = 1.5
"""A first run is worth doing beforehand where it takes so much longer than the second; noise is less."""

# After so many runs what was before counts half.
_HALVED_AFTER = 4096.0


class LearnedShapes:
    """Counts of the shapes of real jobs, and the means of their first and second runs."""

    def __init__(self) -> None:
        self._of: dict[Shape, list[float]] = {}

    def heard(self, seen: Iterable[Seen]) -> None:
        """Learn from what a worker tells: shape, real runs since it last told, first and second run in seconds."""
        for shape, count, first_s, second_s in seen:
            known = self._of.setdefault(tuple(shape), [0.0, first_s, second_s])
            known[0] += count
            known[1:] = 0.5 * (known[1] + first_s), 0.5 * (known[2] + second_s)
        if sum(count for count, _, _ in self._of.values()) > _HALVED_AFTER:
            for known in self._of.values():
                known[0] *= 0.5
        while len(self._of) > MOST_REMEMBERED:
            del self._of[min(self._of, key=lambda shape: self._of[shape][0])]

    def worth(self) -> tuple[Shape, ...]:
        """Return the shapes to run before a worker counts as ready, the most frequent first; none where none gains."""
        gaining = [
            (count, shape)
            for shape, (count, first_s, second_s) in self._of.items()
            if first_s - second_s >= LEAST_EXCESS_S and first_s >= LEAST_RATIO * second_s
        ]
        return tuple([shape for _, shape in sorted(gaining, reverse=True)[:MOST_WARMED]])

    def dump(self) -> list[Any]:
        """Return what was learned as plain JSON values."""
        return [[list(shape), *known] for shape, known in self._of.items()]

    def load(self, data: object) -> None:
        """Take over what `dump` returned. Raises `ValueError` and keeps what it had where it cannot have."""
        if not isinstance(data, list):
            raise ValueError(f"{data!r} is no list of shapes")  # noqa: TRY004 - data of a file, like the rest
        fresh: dict[Shape, list[float]] = {}
        for row in data:
            match row:
                case [[*sizes], count, first_s, second_s] if all(type(size) is int for size in sizes):
                    fresh[tuple(sizes)] = [number(each) for each in (count, first_s, second_s)]
                case _:
                    raise ValueError(f"{row!r} is no shape with its count and two times")
        self._of = fresh
