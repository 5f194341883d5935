"""What models of English do not read: other scripts, accents, signs. Judges by the kinds of characters, knows no words.

A tokenizer makes one token of all words that it does not know, and may take accents away: to a model that compares
tokens, texts that differ in these alone are the same.
"""

import unicodedata
from collections import Counter, defaultdict
from functools import lru_cache
from typing import NamedTuple

# Signs that are read as quantities or as signs between them, and judged there.
_READ = frozenset("€£¥₹°→⇒\u00d7÷≠≤≥√")


class _Letters(NamedTuple):
    """Pieces of a text in other scripts and its signs, each as often as it is there; words by what accents leave."""

    foreign: "Counter[str]"
    accented: dict[str, frozenset[str]]


def find_unread(a: str, b: str) -> str | None:
    """Return what the texts differ in that is not read; None where there is nothing of the kind."""
    if a.isascii() and b.isascii():
        return None
    of_a, of_b = _letters(a), _letters(b)
    for one, other in ((of_a, of_b), (of_b, of_a)):
        missing = one.foreign - other.foreign
        if missing:
            return f"{min(missing)!r} is in one text only"
        for plain, forms in one.accented.items():
            others = other.accented.get(plain)
            if others is not None and forms != others:
                return f"{min(forms)!r} against {min(others)!r}"
    return None


@lru_cache(maxsize=4096)
def _letters(text: str) -> _Letters:
    foreign: Counter[str] = Counter()
    accented: dict[str, set[str]] = defaultdict(set)
    for piece in unicodedata.normalize("NFKC", text).casefold().split():
        word = "".join(character for character in piece if unicodedata.category(character)[0] in "LM")
        plain = _without_accents(word)
        if not plain.isascii():
            foreign[word] += 1
        elif plain:
            accented[plain].add(word)
        foreign.update(character for character in piece if _is_sign(character))
    return _Letters(foreign, {plain: frozenset(words) for plain, words in accented.items()})


def _is_sign(character: str) -> bool:
    return not character.isascii() and unicodedata.category(character)[0] == "S" and character not in _READ


def _without_accents(word: str) -> str:
    if word.isascii():
        return word
    return "".join(each for each in unicodedata.normalize("NFD", word) if unicodedata.category(each)[0] != "M")
