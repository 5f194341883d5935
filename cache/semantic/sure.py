"""The sure guards: differences that make another question of a text whatever the rest of it says.

They leave open whatever may be the same in other words, which is for a verifier of pairs to judge; where there is none
the strict guards judge it too. Pure functions of two readings.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from cache.semantic.direction import crossed_edges, other_voice
from cache.semantic.entities import find_exchange
from cache.semantic.letters import find_unread
from cache.semantic.lexicon import FUNCTION_WORDS, NEGATIONS, OPPOSITES, QUESTION_WORDS, SYMMETRIC_WORDS
from cache.semantic.marks import find_mark
from cache.semantic.reading import Reading, read
from cache.semantic.tokens import Token
from cache.semantic.units import CASED_UNITS, UNITS

# Words that are numbers only now and then: one does not know, a first time, half of it, in a second.
_UNSURE_VALUES = frozenset({"1", "1th", "2th", "0.5"})
# Pairs that stand against each other in one sentence pattern, and by chance in others.
_CHANCE_OPPOSITES = frozenset(
    {"in", "out", "on", "off", "over", "up", "main", "these", "this", "they", "them", "their", "first", "long", "last"}
)
_NOT_AFTER = frozenset({"or", "why", "whether"})
_NOT_BEFORE = frozenset({"only", "just", "matter"})
# Words that differ in these alone are opposites: hypertension, hypotension.
_OPPOSITE_PREFIXES = (("hyper", "hypo"), ("macro", "micro"), ("inter", "intra"), ("pre", "post"))
_PREFIXES_WITH_OPPOSITES = tuple(prefix for prefix, _ in _OPPOSITE_PREFIXES)
_TURNING_PREFIXES = frozenset({"un", "in", "im", "ir", "dis", "non", "anti", "de", "mis"})
_LEAST_STEM = 3
# What stands on their two sides may change places, and nothing else may.
_JOINS = frozenset({"and", "or", "nor"})
# Signs of one sense are one sign.
_SIGNS = {sign: sign for sign in "+-*/^<>=≤≥≠"} | {
    "\u00d7": "*", "÷": "/", "**": "^", "==": "=", "<=": "≤", ">=": "≥", "!=": "≠",
}  # fmt: skip
_COMMON_UNITS = frozenset({"second", "minute", "foot", "stone", "pound", "yard", "cup", "day", "year", "hour"})


_PAIRS_OF_WORD: dict[str, list[int]] = {}
for _place, _pair in enumerate(OPPOSITES):
    for _word in _pair:
        _PAIRS_OF_WORD.setdefault(_word, []).append(_place)


class _Traits(NamedTuple):
    """What the guards compare of one text."""

    numbers: frozenset[tuple[str, str | None]]
    sure_numbers: frozenset[tuple[str, str | None]]
    signs: frozenset[str]
    units: frozenset[str]
    words: frozenset[str]
    negations: int


@lru_cache(maxsize=4096)
def _traits(text: str) -> _Traits:
    """Return a text's traits; those of late are remembered, as a text is compared with several."""
    reading = read(text)
    return _Traits(
        numbers=_numbers(reading, sure=False),
        sure_numbers=_numbers(reading, sure=True),
        signs=_signs(reading),
        units=_units(reading),
        words=frozenset(reading.words),
        negations=_negations(reading),
    )


def sure_numbers(a: Reading, b: Reading) -> str | None:
    """Veto where a number of one text, with its unit, is not in the other; words such as "one" may be no numbers.

    So do signs that each text has between numbers or letters, where the other has none of them.
    """
    of_a, of_b = _traits(a.text), _traits(b.text)
    for one, other in ((of_a, of_b), (of_b, of_a)):
        missing = one.sure_numbers - other.numbers
        if missing:
            value, unit = min(missing, key=str)
            return f"{value} {unit}" if unit else f"{value} is in one text only"
    only_a, only_b = of_a.signs - of_b.signs, of_b.signs - of_a.signs
    return f"{min(only_a)} against {min(only_b)}" if only_a and only_b else None


def units(a: Reading, b: Reading) -> str | None:
    """Veto where each text names a unit that the other does not."""
    first, second = _traits(a.text).units, _traits(b.text).units
    only_a, only_b = first - second, second - first
    return f"{min(only_a)} against {min(only_b)}" if only_a and only_b else None


def polarity(a: Reading, b: Reading) -> str | None:
    """Veto where negations and opposites together turn the sense round; two turns may cancel each other."""
    of_a, of_b = _traits(a.text), _traits(b.text)
    turns = [f"{x} against {y}" for x, y in _opposites(of_a.words - of_b.words, of_b.words - of_a.words)]
    times_a, times_b = of_a.negations, of_b.negations
    if times_a != times_b:
        turns.append(f"{times_a} negations against {times_b}")
    return turns[0] if len(turns) % 2 else None


def marks(a: Reading, b: Reading) -> str | None:
    """Veto where only one text gives a quotation, an address, code or an identifier."""
    found = find_mark(a.text, b.text)
    return None if found is None else f"the {found[0]} {found[1]!r} is in one text only"


def letters(a: Reading, b: Reading) -> str | None:
    """Veto where the texts differ in other scripts, accents or signs, which models of English do not read."""
    return find_unread(a.text, b.text)


def entities(a: Reading, b: Reading) -> str | None:
    """Veto where each text names one of a kind that the other does not: a country, a month, a language."""
    return find_exchange(a.text, b.text)


def exchanged(a: Reading, b: Reading) -> str | None:
    """Veto where the parts are in exchanged roles, and all else is the same: A to B, B to A."""
    edges = None if _only_sounds_like_conversion(a) else crossed_edges(a, b)
    roles = edges or other_voice(a, b)
    if roles is not None:
        return roles
    first, second = a.words, b.words
    if len(first) != len(second) or not (SYMMETRIC_WORDS - _JOINS).isdisjoint(first):
        return None
    places = [at for at, (x, y) in enumerate(zip(first, second, strict=True)) if x != y]
    if len(places) != 2 or places[1] - places[0] == 1:  # noqa: PLR2004 - neighbours are often one thing
        return None
    x, y = (first[at] for at in places)
    if {x, y} & (FUNCTION_WORDS | QUESTION_WORDS.keys()) or [x, y] != [second[places[1]], second[places[0]]]:
        return None
    if _are_joined(first[places[0] + 1 : places[1]]):
        return None
    return f"{x} … {y} against {y} … {x}"


def _are_joined(between: Sequence[str]) -> bool:
    """Whether what stands between two words joins them: Tom or Anna, but not Tom, who owes Anna and Jim."""
    content = [word for word in between if word not in FUNCTION_WORDS and word not in _JOINS]
    return not _JOINS.isdisjoint(between) and len(content) <= 1


def _only_sounds_like_conversion(reading: Reading) -> bool:
    """Whether a quantity stands beside "in" and yet nothing is converted: three days in Vienna."""
    measured = {token.unit for token in reading.tokens if token.unit is not None} | _units(reading)
    return reading.is_conversion and len(measured) < 2  # noqa: PLR2004 - from one unit into another


def _numbers(reading: Reading, *, sure: bool) -> frozenset[tuple[str, str | None]]:
    return frozenset(
        (token.value, token.unit)
        for token in reading.tokens
        if token.value is not None and not (sure and _is_unsure(token))
    )


def _is_unsure(token: Token) -> bool:
    return token.value in _UNSURE_VALUES and not token.text[:1].isdigit()


def _units(reading: Reading) -> frozenset[str]:
    """Return the units that are named without a number; those that are also plain words count only as measures."""
    words = (CASED_UNITS.get(token.text) or UNITS.get(token.word) for token in reading.tokens if token.value is None)
    return frozenset(unit for unit in words if unit is not None and unit not in _COMMON_UNITS)


def _signs(reading: Reading) -> frozenset[str]:
    """Return the signs that stand beside a number or a single letter, as in 2 + 2 and x < y."""
    found = set()
    for at, token in enumerate(reading.tokens):
        sign = _SIGNS.get(token.text)
        beside = (*reading.tokens[max(0, at - 1) : at], *reading.tokens[at + 1 : at + 2])
        if sign is not None and any(each.value is not None or len(each.word) == 1 for each in beside):
            found.add(sign)
    return frozenset(found)


def _negations(reading: Reading) -> int:
    words = reading.words
    count = 0
    for at, word in enumerate(words):
        if word not in NEGATIONS:
            continue
        before, after = words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else ""
        count += word != "not" or (before not in _NOT_AFTER and after not in _NOT_BEFORE)
    return count


def _opposites(only_a: frozenset[str], only_b: frozenset[str]) -> list[tuple[str, str]]:
    """Return the words of one text alone that stand against words of the other alone."""
    found = []
    differing = only_a | only_b
    for x, y in pairs_among(differing):
        if x in _CHANCE_OPPOSITES and len(differing) > 2:  # noqa: PLR2004 - then much else differs
            continue
        if (x in only_a and y in only_b) or (y in only_a and x in only_b):
            found.append((x, y))
    found += [(x, y) for x in sorted(only_a) for y in sorted(only_b) if is_prefixed(x, y) or is_prefixed(y, x)]
    return found


def pairs_among(words: frozenset[str]) -> list[tuple[str, ...]]:
    """Return the pairs of opposites that one of the words is in, in the order of the lexicon."""
    return [OPPOSITES[place] for place in sorted({place for word in words for place in _PAIRS_OF_WORD.get(word, ())})]


def words_of(reading: Reading) -> frozenset[str]:
    """Return the words of a text."""
    return _traits(reading.text).words


def is_prefixed(x: str, y: str) -> bool:
    """Whether y is x turned into its opposite by a prefix, or by another one than it has."""
    if x.startswith(_PREFIXES_WITH_OPPOSITES):
        for one, other in _OPPOSITE_PREFIXES:
            if x.startswith(one) and len(x) >= len(one) + _LEAST_STEM and y == other + x.removeprefix(one):
                return True
    return len(x) > 3 and y.endswith(x) and y.removesuffix(x) in _TURNING_PREFIXES  # noqa: PLR2004
