"""English inflection: whether two words are forms of one. Knows spelling, and the plurals with a sense of their own."""

from collections.abc import Iterable
from functools import lru_cache

from cache.semantic.lexicon import FORMS_APART

_SHORT = 5
_VOWELS = frozenset("aeiou")
# Bases end in these two letters too: filling is of fill, but planning is never of plann.
_DOUBLE_ENDINGS = frozenset({"ll", "ss", "ff", "zz"})


def is_near(a: str, b: str) -> bool:
    """Whether two canonical words are forms of one: plural, -ing, -ed."""
    return a == b or not without_near({a}, frozenset({b}))


def without_near(words: Iterable[str], others: frozenset[str]) -> list[str]:
    """Return those of the words, sorted, that are a form of none of the others."""
    unknown = [word for word in words if word not in others]
    if not unknown:
        return []
    bases = {form for other in others for form in forms(other)}
    # Short words share forms by chance: bases of two inflected ones are compared only where they are long.
    long_bases = {form for other in others if len(other) > _SHORT for form in forms(other)}
    return sorted(
        word
        for word in unknown
        if word not in bases
        and others.isdisjoint(forms(word))
        and (len(word) <= _SHORT or long_bases.isdisjoint(forms(word)))
    )


@lru_cache(maxsize=8192)
def forms(word: str) -> frozenset[str]:
    """Return the words that this one may be an inflection of, itself included."""
    if word in FORMS_APART:
        return frozenset({word})
    found = {word} | _singulars(word)
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 2:  # noqa: PLR2004
            found |= _bases(stem)
    return frozenset(found)


def _singulars(word: str) -> set[str]:
    found = set()
    if word.endswith("ies") and len(word) > 4:  # noqa: PLR2004
        found.add(word[:-3] + "y")
    if word.endswith(("xes", "zes", "ches", "shes", "oes")):
        found.add(word[:-2])
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:  # noqa: PLR2004
        found.add(word[:-1])
    return found


def _bases(stem: str) -> set[str]:
    """Return what a word may be that makes this stem before -ing or -ed: strip makes stripp, stripe makes strip."""
    if stem[-1] == stem[-2]:
        return {stem, stem[:-1]} if stem[-2:] in _DOUBLE_ENDINGS else {stem[:-1]}
    return {stem + "e"} if _doubles(stem) else {stem, stem + "e"}


def _doubles(word: str) -> bool:
    """Whether the word, of one syllable and with one vowel before one consonant, doubles that before an ending."""
    vowels = [at for at, letter in enumerate(word) if letter in _VOWELS]
    return vowels == [len(word) - 2] and word[-1] not in "wxy"
