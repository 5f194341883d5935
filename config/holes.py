"""Takes out of a file's values what cannot be read, so that the rest can be checked in the same round."""

from collections.abc import Collection, Iterable

from config.checks import Conflict
from config.problems import Path


def hole_at(path: Path) -> Path:
    """Return what has to be left out for a fault at this path: a list as a whole, as its items are counted."""
    first = next((index for index, step in enumerate(path) if isinstance(step, int)), len(path))
    return path[:first]


def without(value: object, holes: Collection[Path]) -> object:
    """Return the value without what is at these paths."""
    if not isinstance(value, dict) or not holes:
        return value
    gone = {path[0] for path in holes if len(path) == 1}
    return {
        key: without(inner, [path[1:] for path in holes if path[0] == key and path[1:]])
        for key, inner in value.items()
        if key not in gone
    }


def certain(conflicts: Iterable[Conflict], holes: Collection[Path]) -> list[Conflict]:
    """Return the conflicts that rest on nothing that was left out."""
    return [
        conflict
        for conflict in conflicts
        if not any(_overlap(place, hole) for place in (conflict.path, *conflict.because) for hole in holes)
    ]


def _overlap(one: Path, other: Path) -> bool:
    return all(step == twin for step, twin in zip(one, other, strict=False))
