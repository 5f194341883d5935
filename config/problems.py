"""What is wrong with a config file, in words for its author. Knows nothing of how it was found."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

SHOWN_PROBLEMS = 50
SHOWN_CHARACTERS = 60

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault. `value` is what was written, shortened, or None where there is none or it must not be shown.

    `message` says what is wrong and what is allowed; where there is a value, the message continues it
    ("'two'" + " is not a whole number ≥ 0"). `key` is "" for a fault of the whole file.
    """

    line: int | None
    key: str
    value: str | None
    message: str

    def __str__(self) -> str:
        """Return the fault without its file and line."""
        words = self.message if self.value is None else f"{self.value} {self.message}"
        return f"{self.key}: {words}" if self.key else words


class ConfigError(Exception):
    """The file cannot be used. `problems` has its faults by line; str() shows one a line, as `file:line: key: …`."""

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        super().__init__(self._text())

    def _text(self) -> str:
        shown = [
            f"{self.source}: {problem}" if problem.line is None else f"{self.source}:{problem.line}: {problem}"
            for problem in self.problems[:SHOWN_PROBLEMS]
        ]
        hidden = len(self.problems) - len(shown)
        return "\n".join([*shown, f"{self.source}: and {hidden} more"] if hidden else shown)


def dotted(path: Path) -> str:
    """Return a path as an operator reads it: `server.keys[0].name`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{_one_line(step)}" for step in path)
    return "".join(steps).removeprefix(".")


def shown(value: object) -> str:
    """Return a value as YAML would write it, on one line, shortened; collections by their kind alone."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return _shortened(str(value))
        case dict():
            return "a mapping"
        case tuple() | list():
            return "a list"
        case _:
            return _shortened(repr(str(value)[:SHOWN_CHARACTERS]))


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest allowed word, or "" where none is near."""
    near = difflib.get_close_matches(word[:SHOWN_CHARACTERS], list(allowed), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def _one_line(text: str) -> str:
    return _shortened(text if text.isprintable() else repr(text))


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
