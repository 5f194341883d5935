"""What changes between two sets of settings, and what each change does to a gateway that runs. Decides nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from config.effects import Effect, effect_of
from config.fields import HIDDEN_MARK
from config.plain import plain
from config.problems import Path, dotted, shown
from config.settings import Settings

# Lists whose items have names: an item that moves is no change.
_LISTED_BY_NAME: tuple[Path, ...] = (("server", "keys"),)


@dataclass(frozen=True, slots=True)
class Change:
    """One key that has another value. `old` and `new` are None where it is not written.

    A secret is "hidden", and a whole section is "".
    """

    path: Path
    old: str | None
    new: str | None
    effect: Effect
    words: str

    @property
    def key(self) -> str:
        """Return where the value stands, such as `models.atlas.pool.max`."""
        return dotted(self.path)

    def __str__(self) -> str:
        """Return the change and what it does, in one line."""
        if self.old is None:
            what = f"added, {self.new}" if self.new else "added"
        elif self.new is None:
            what = "removed"
        else:
            what = "changed" if self.old == self.new else f"{self.old} → {self.new}"
        return f"{self.key}: {what}: {self.words}"


@dataclass(frozen=True, slots=True)
class Difference:
    """All changes, by key; empty where nothing changes."""

    changes: tuple[Change, ...]

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def __str__(self) -> str:
        """Return one line for each change."""
        return "\n".join(map(str, self.changes))


def difference(old: Settings, new: Settings) -> Difference:
    """Compare what is in force with what is to come."""
    return difference_of_plain(plain(old), plain(new))


def difference_of_plain(old: Mapping[str, Any], new: Mapping[str, Any]) -> Difference:
    """Compare settings in their plain form, as `plain` makes it and as `/admin/config` shows it."""
    return Difference(tuple(_changes((), old, new)))


def _changes(path: Path, old: Any, new: Any) -> Iterator[Change]:
    if path in _LISTED_BY_NAME:
        old, new = ({item["name"]: item for item in items or ()} for items in (old, new))
    elif _has_sections(old) or _has_sections(new):
        old, new = (dict(enumerate(items or ())) for items in (old, new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for step in (*old, *(key for key in new if key not in old)):
            yield from _changes((*path, step), old.get(step), new.get(step))
    elif old != new:
        effect, words = effect_of(path, old, new)
        yield Change(path, _text(old), _text(new), effect, words)


def _has_sections(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _text(value: Any) -> str | None:
    """Return a value as the file has it, shortened; of a hidden one that it is there, and no more."""
    if value is None:
        return None
    if isinstance(value, str) and value.startswith(HIDDEN_MARK):
        return "hidden"
    if isinstance(value, Mapping):
        return ""  # what is in it is in the file
    if isinstance(value, list):
        return f"[{', '.join(str(_text(item)) for item in value)}]"
    return shown(value)
