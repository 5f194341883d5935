"""What a text gives literally: quotations, addresses, code and identifiers. Judges by spelling, knows no words."""

import re
from functools import lru_cache

from cache.semantic.units import SHORT_UNITS, UNITS

_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"']+|[\w.+-]+@[\w-]+\.[\w.]+", re.IGNORECASE)
_QUOTED = re.compile(r"\"([^\"]{1,200})\"|“([^”]{1,200})”|(?<!\w)'([^']{2,200})'(?!\w)")
_CODE = re.compile(
    r"`[^`]+`"  # given as code
    r"|\w[\w.]*\(\)"  # a call
    r"|(?<!\S)--?[a-zA-Z][\w-]*"  # a flag
    r"|(?<!\S)[~.]?/[\w.-]+(?:/[\w.-]+)*"  # a path
    r"|[=!<>]=+|&&|\|\||->|::|=>"  # an operator
)
_IDENTIFIER = re.compile(r"\b(?:[A-Za-z]+[-_]?\d+[A-Za-z\d]*|\d+[A-Za-z]{2,}\d*|[A-Za-z]\w*_\w+)\b")
# What none of these is in has no mark of the kind: most questions are told so at once.
_URL_SIGN = re.compile(r"://|www\.|@", re.IGNORECASE)
_QUOTE = re.compile("[\"“']")
_CODE_SIGN = re.compile(r"[`(/=!<>&|:-]")
_IDENTIFIER_SIGN = re.compile(r"[\d_]")
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th|s)$", re.IGNORECASE)
_PLAIN = re.compile(r"[^a-z0-9]+")


def find_mark(a: str, b: str) -> tuple[str, str] | None:
    """Return the kind of what only one of the texts gives literally, and it; None where both give the same."""
    for (kind, marks_of_a), (_, marks_of_b) in zip(_marks(a), _marks(b), strict=True):
        for marks, other in ((marks_of_a, b), (marks_of_b, a)):
            missing = _missing(kind, marks, other) if marks else None
            if missing is not None:
                return kind, missing
    return None


@lru_cache(maxsize=4096)
def _marks(text: str) -> tuple[tuple[str, list[str]], ...]:
    """Return the marks of each kind; those of late are remembered, as a text is compared with several."""
    without_urls = _URL.sub(" ", text) if _URL_SIGN.search(text) else text
    return (
        ("url", _urls(text) if _URL_SIGN.search(text) else []),
        ("quotation", _quotations(text) if _QUOTE.search(text) else []),
        ("code", _code(without_urls) if _CODE_SIGN.search(without_urls) else []),
        ("identifier", _identifiers(without_urls) if _IDENTIFIER_SIGN.search(without_urls) else []),
    )


def _missing(kind: str, marks: list[str], other: str) -> str | None:
    plain = _squeezed(other)
    for mark in marks:
        told = mark in other if kind in ("url", "code") else _squeezed(mark) in plain
        if not told:
            return mark
    return None


def _urls(text: str) -> list[str]:
    return [found.rstrip(".,;:!?)") for found in _URL.findall(text)]


def _quotations(text: str) -> list[str]:
    return [part for found in _QUOTED.findall(text) for part in found if part and _squeezed(part)]


def _code(text: str) -> list[str]:
    return [found.strip("`") for found in _CODE.findall(text)]


def _identifiers(text: str) -> list[str]:
    found = []
    for each in _IDENTIFIER.findall(text):
        letters = each.lstrip("0123456789").lower()
        # A number that touches its unit is a quantity, and numbers are judged elsewhere.
        if not _ORDINAL.match(each) and letters not in UNITS and letters not in SHORT_UNITS:
            found.append(each)
    return found


def _squeezed(text: str) -> str:
    return _PLAIN.sub("", text.lower())
