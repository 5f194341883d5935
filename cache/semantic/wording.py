"""Tells whether a text is about words, texts or code rather than about what they stand for. Knows no other guard."""

import re
from functools import lru_cache

from cache.semantic.lexicon import FUNCTION_WORDS, QUESTION_WORDS, WORDING_WORDS

_WORD = re.compile(r"[^\W_]+")
# What follows a colon is given as it stands; calls, braces and assignments are code; quotations are what is asked of.
_GIVEN = re.compile(r":\s+\S|`|[{}=;]|\w\(\)|(?i:which is right)|\"[^\"]+\"|“[^”]+”")
_OUTER = " \t\r\n.,?!¿¡…"


@lru_cache(maxsize=4096)
def find_wording(text: str) -> str | None:
    """Return what shows that the exact words of the text count; None where only their meaning does."""
    words: list[str] = _WORD.findall(text.lower())
    named = next((word for word in words if word in WORDING_WORDS), None)
    if named is not None:
        return named
    # "when to use who", "when do I use is": a word that nothing follows has no other use.
    if words[-2:-1] == ["use"] and (words[-1] in FUNCTION_WORDS or words[-1] in QUESTION_WORDS):
        return f"use {words[-1]}"
    given = _GIVEN.search(text)
    return None if given is None else str(given.group()).strip()


def is_same_wording(a: str, b: str) -> bool:
    """Whether two texts are the same but for space, and punctuation around them."""
    return a.strip(_OUTER).split() == b.strip(_OUTER).split()
