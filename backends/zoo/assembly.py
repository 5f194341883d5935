"""Makes a model directory out of its inputs, whole or not at all, unless it is already made of them. Knows no model."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_STAMP = "made-of.json"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one model is made: the digests of all that it depends on, and the step that fills an empty directory."""

    name: str
    inputs: Mapping[str, str]
    build: Callable[[Path], None]


def digests(paths: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of each file by its name; a missing one is left out, for the step that needs it to name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}


def assemble(recipe: Recipe, models: Path) -> bool:
    """Bring `models/<name>` up to date and tell whether there was anything to do."""
    target = models / recipe.name
    stamp = json.dumps(recipe.inputs, indent=1, sort_keys=True)
    if _stamp(target) == stamp:
        return False
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=f".{recipe.name}-") as scratch:
        fresh = Path(scratch, "fresh")
        fresh.mkdir()
        recipe.build(fresh)
        (fresh / _STAMP).write_text(stamp)
        if target.exists():
            target.rename(Path(scratch, "old"))
        fresh.rename(target)
    return True


def _stamp(target: Path) -> str | None:
    try:
        return (target / _STAMP).read_text()
    except FileNotFoundError:
        return None
