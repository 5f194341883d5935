"""The shapes that real jobs gave the graph, and what the first and the second run of each took. Knows no sessions.

On some devices the first run of a shape chooses its algorithms, which takes many times the run itself; what was
measured here tells the gateway which shapes are worth a run before the worker counts as ready.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from backends import messages
from backends.frames import Buffer

Shape = tuple[int, ...]

MOST_SHAPES = 64
"""More than these are not told apart: what is asked for so variously cannot be prepared for."""


def bucket(size: int, most: int = 0) -> int:
    """Return the least of 1, 2, 3, 4, 6, 8, 12, 16, 24, … that is not below `size`, and `most` where that is less."""
    top = 1
    while top < size:
        top *= 2
    found = 3 * top // 4 if top > 2 and 3 * top // 4 >= size else top  # noqa: PLR2004 - below, there is no half step
    return min(found, most) if most else found


class _Seen:
    """One shape: `fresh` real runs since they were last told; its first and second run in seconds, 0 before."""

    __slots__ = ("first_s", "fresh", "real", "second_s")

    def __init__(self) -> None:
        self.fresh = self.real = 0
        self.first_s = self.second_s = 0.0


class Shapes:
    """The shapes of one worker's life."""

    def __init__(self) -> None:
        self._seen: dict[Shape, _Seen] = {}
        self._due: list[Shape] = []
        self.is_warming = False

    @contextmanager
    def run(self, shape: Shape) -> Iterator[None]:
        """Time a run of the graph on a shape; while warming, it says nothing of what is asked for."""
        began = time.perf_counter()
        yield
        took_s = time.perf_counter() - began
        seen = self._seen.get(shape)
        if seen is None:
            if len(self._seen) >= MOST_SHAPES:
                return
            seen = self._seen[shape] = _Seen()
        if not seen.first_s:
            seen.first_s = took_s
        elif not seen.second_s:
            seen.second_s = took_s
        if not self.is_warming:
            seen.fresh += 1
            seen.real += 1
            if seen.second_s and seen.real & (seen.real - 1) == 0:
                self._due.append(shape)

    def forget(self) -> None:
        """Begin anew."""
        self._seen.clear()
        self._due.clear()

    def due(self) -> Sequence[Buffer]:
        """Return the frame that tells what is new: each shape once its second run is known, then ever more seldom."""
        if not self._due:
            return ()
        told = []
        for shape in self._due:
            seen = self._seen[shape]
            told.append((shape, seen.fresh, seen.first_s, seen.second_s))
            seen.fresh = 0
        self._due.clear()
        return (messages.shapes_frame(told),)
