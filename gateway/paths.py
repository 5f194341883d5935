"""Finds what is served at a path: exact paths, and patterns with `{name}` parts. Pure; knows no method."""

import re
from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")

_NAME = re.compile(r"\\{(\w+)\\}")
_NO_NAMES: Mapping[str, str] = {}


class Paths(Generic[T]):
    """What is served, by path. Where several patterns match, the one with the most literal text wins."""

    def __init__(self, table: Mapping[str, T]) -> None:
        self._exact = {path: served for path, served in table.items() if "{" not in path}
        patterns = sorted((path for path in table if "{" in path), key=_literal_chars, reverse=True)
        self._patterns = [(re.compile(_expression(path), re.DOTALL), table[path]) for path in patterns]

    def find(self, path: str) -> tuple[T, Mapping[str, str]] | None:
        """Return what is served at a path, with the values of its names; None where nothing is."""
        served = self._exact.get(path)
        if served is not None:
            return served, _NO_NAMES
        for expression, found in self._patterns:
            if match := expression.fullmatch(path):
                return found, match.groupdict()
        return None


def _expression(pattern: str) -> str:
    # A model's name may have slashes in it, so the first name takes in whatever lets the rest match. Those after it may
    # not: with two such names the time to match would grow with the square of the path's length.
    first = _NAME.sub(r"(?P<\1>.+?)", re.escape(pattern), count=1)
    return _NAME.sub(r"(?P<\1>[^/]+)", first)


def _literal_chars(pattern: str) -> int:
    return len(re.sub(r"\{\w+\}", "", pattern))
