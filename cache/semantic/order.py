"""Puts the words of a question in one order however it is turned round. Knows nothing of what the words stand for."""

from collections.abc import Sequence
from functools import lru_cache

from cache.semantic.inflection import forms, is_near
from cache.semantic.lexicon import ATTRIBUTES, SYMMETRIC_RELATIONS
from cache.semantic.reading import Reading, read

_EQUALS_JOINED = frozenset({"and", "or", "nor"})
_FRONTED_AFTER = frozenset({"in", "on", "for", "with", "using", "at"})


def order(a: Reading, b: Reading) -> str | None:
    """Veto where the same content words come in another order, unless one text is the other turned round."""
    if a.is_passive != b.is_passive or any(not SYMMETRIC_RELATIONS.isdisjoint(r.content) for r in (a, b)):
        return None
    for x, y in zip(_ordered(a.text), _ordered(b.text), strict=False):
        if not is_near(x, y):
            return f"{x} against {y} in this place"
    return None


@lru_cache(maxsize=4096)
def _ordered(text: str) -> tuple[str, ...]:
    """Return the content words, parts in front and possessors moved to their end, and what equals join sorted."""
    reading = read(text)
    at_places = sorted(zip(reading.places, reading.content, strict=True), key=lambda pair: pair[0])
    runs = _unfronted(reading, [(place, word) for place, word in at_places if not word.startswith("@")])
    runs = _with_owners_last(reading, runs)
    words = _with_equals_sorted(reading, runs)
    # What is asked of the rest comes first: France capital, capital of France.
    return tuple(sorted(dict.fromkeys(words), key=lambda word: ATTRIBUTES.isdisjoint(forms(word))))


def _unfronted(reading: Reading, words: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Move what stands before the question to its end: in Python, how do I sort."""
    asked_at = reading.asked_at or 0
    if asked_at == 0 or reading.tokens[0].word not in _FRONTED_AFTER:
        return words
    return [w for w in words if w[0] >= asked_at] + [w for w in words if w[0] < asked_at]


def _with_owners_last(reading: Reading, words: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Put the unbroken run of words before each 's behind the one after it."""
    for mark in (at for at, token in enumerate(reading.tokens) if token.word == "'s"):
        owner, owned = _run(words, mark, -1), _run(words, mark, 1)
        if owner and owned:
            start = words.index(owner[0])
            words = [w for w in words if w not in owner]
            end = words.index(owned[-1]) + 1 if start <= words.index(owned[-1]) else start
            words = words[:end] + owner + words[end:]
    return words


def _run(words: Sequence[tuple[int, str]], mark: int, step: int) -> list[tuple[int, str]]:
    by_place = dict(words)
    run = []
    at = mark + step
    while at in by_place:
        run.append((at, by_place[at]))
        at += step
    return run[::step]


def _with_equals_sorted(reading: Reading, words: list[tuple[int, str]]) -> list[str]:
    """Return the words, each two that "and" or "or" joins directly in the order of the alphabet."""
    ordered = list(words)
    for left in range(len(ordered) - 1):
        (place, x), (next_place, y) = ordered[left], ordered[left + 1]
        between = reading.words[place + 1 : next_place]
        if not _EQUALS_JOINED.isdisjoint(between) and y < x:
            ordered[left], ordered[left + 1] = (place, y), (next_place, x)
    return [word for _, word in ordered]
