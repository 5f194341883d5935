"""Refuses JSON that names a field twice: one reader takes the first, another the last. Knows no request.

RFC 8259 §4 leaves open what such an object means. Here the last would count for the cache's key, and the body goes on
to an upstream as it came: another's answer would be stored under that key.
"""

import json
import re
from typing import Any

from gateway.errors import InvalidRequest
from gateway.json_marks import Marks

# A quote cannot stand within a string but escaped, so that this ends a name, or begins a text that begins so.
_COLON = re.compile(rb'"[ \t\r\n]*+:')
_ESCAPED_COLON = re.compile(rb'\\"[ \t\r\n]*+:')
# Such a quote may end a string all the same.
_BACKSLASH_AT_END = rb"\\" + b'"'
_SHOWN_CHARS = 80


def check_names_once(body: bytes, value: dict[str, Any], marks: Marks) -> None:
    """Raise `InvalidRequest` where an object in the body, which was read as `value`, has a name more than once.

    What was read has as many names as the body has colons after quotes, but for names that are there twice, for JSON
    within texts, and for texts that begin so. Only where the two differ is it read again, name by name.
    """
    found = len(_COLON.findall(body)) if marks.named is None else marks.named
    names = _names(value, marks.braces)
    if found > names and _BACKSLASH_AT_END not in body:
        found -= len(_ESCAPED_COLON.findall(body))
    if found != names:
        json.loads(body, object_pairs_hook=_once, parse_int=_skipped, parse_float=_skipped)


def _names(value: dict[str, Any], most: int) -> int:
    """Return how many names all objects within have together; there are no more than `most` of them."""
    count, objects = 0, 0
    left: list[Any] = [value]
    while left:
        each = left.pop()
        if type(each) is dict:
            count += len(each)
            objects += 1
            if objects == most:
                break
            each = each.values()
        left += [inner for inner in each if type(inner) in _HOLDING]
    return count


_HOLDING = (dict, list)


def _skipped(number: str) -> None:
    """Read no number: some have more digits than are taken."""


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) == len(pairs):
        return
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            shown = name if len(name) <= _SHOWN_CHARS else name[:_SHOWN_CHARS] + "…"
            raise InvalidRequest(f"the body names '{shown}' more than once in one object", shown)
        seen.add(name)
