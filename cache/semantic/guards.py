"""The guards: small differences that make another question of one that looks the same. Pure functions of two texts.

Similarity cannot tell "5 km" from "50 km", nor "km to miles" from "miles to km". Each guard looks for one kind of such
a difference and vetoes with its reason; no guard can approve. Where a verifier judges what they leave open, only the
sure guards veto. Where there is none, the strict ones do: the strictest are `content`, for which two texts whose
content words differ are different questions, and `wording`, for which a question about words is only like itself.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from cache.semantic.direction import direction
from cache.semantic.inflection import forms, is_near, without_near
from cache.semantic.lexicon import (
    ARITHMETIC,
    ATTRIBUTE_JOINING_WORDS,
    ATTRIBUTES,
    CASED_WORDS,
    FUNCTION_WORDS,
    JOINING_WORDS,
    QUESTION_WORDS,
    STRONG_JOINING_WORDS,
)
from cache.semantic.order import order
from cache.semantic.reading import Reading, read
from cache.semantic.sure import (
    entities,
    exchanged,
    is_prefixed,
    letters,
    marks,
    pairs_among,
    polarity,
    sure_numbers,
    units,
    words_of,
)
from cache.semantic.tokens import Token
from cache.semantic.wording import find_wording, is_same_wording

# Long texts hide their difference in a crowd of equal words, and judging them would hold up the event loop.
MAX_TEXT_CHARS = 1000
_SHOWN_WORDS = 8


@dataclass(frozen=True, slots=True)
class Veto:
    """Which guard refused to let one text's answer serve the other, and why."""

    guard: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one guard says of a pair: why it would veto, or None. A sure one vetoes also where a verifier judges."""

    guard: str
    reason: str | None
    sure: bool


def read_ahead(text: str) -> None:
    """Find out all that guards need of a text, before it is known what it is compared with; they remember it."""
    if len(text) <= MAX_TEXT_CHARS:
        reading = read(text)
        for _, judge in (*SURE_GUARDS, *GUARDS):
            judge(reading, reading)


def find_veto(a: str, b: str, *, only_sure: bool = False) -> Veto | None:
    """Return the first veto of the guards, in their order; None where all let the pair pass. a and b are equals.

    `only_sure` asks the sure guards alone, and leaves the rest to a verifier.
    """
    if a.split() == b.split():
        return None
    if max(len(a), len(b)) > MAX_TEXT_CHARS:
        return Veto("length", f"more than {MAX_TEXT_CHARS} characters, where only equal texts match")
    first, second = read(a), read(b)
    for guard, judge in SURE_GUARDS if only_sure else GUARDS:
        reason = judge(first, second)
        if reason is not None:
            return Veto(guard, reason)
    return None


def find_vetoes(a: str, b: str, *, only_sure: bool = False) -> tuple[Veto, ...]:
    """Return the vetoes of all guards, in their order: what `find_veto` would say, and what it leaves unsaid."""
    first_veto = find_veto(a, b, only_sure=only_sure)
    if first_veto is None or first_veto.guard == "length":
        return () if first_veto is None else (first_veto,)
    first, second = read(a), read(b)
    reasons = [(guard, judge(first, second)) for guard, judge in (SURE_GUARDS if only_sure else GUARDS)]
    return tuple(Veto(guard, reason) for guard, reason in reasons if reason is not None)


def judge_all(a: str, b: str) -> tuple[Verdict, ...]:
    """Return what every guard says, the sure ones first, for who wants to know it all."""
    veto = find_veto(a, b)
    if veto is None and find_veto(a, b, only_sure=True) is None:
        return ()
    if veto is not None and veto.guard == "length":
        return (Verdict(veto.guard, veto.reason, sure=True),)
    first, second = read(a), read(b)
    sure = (Verdict(guard, judge(first, second), sure=True) for guard, judge in SURE_GUARDS)
    strict = (Verdict(guard, judge(first, second), sure=False) for guard, judge in GUARDS)
    return (*sure, *strict)


def numbers(a: Reading, b: Reading) -> str | None:
    """Veto unless both texts have the same quantities, each with the same unit."""
    if a.quantities == b.quantities:
        return None
    return f"{_quantities(a.quantities - b.quantities)} against {_quantities(b.quantities - a.quantities)}"


def negation(a: Reading, b: Reading) -> str | None:
    """Veto unless both texts negate equally often, and the same words."""
    if len(a.negated) != len(b.negated):
        return f"{len(a.negated)} negations against {len(b.negated)}"
    if all(is_near(x, y) for x, y in zip(a.negated, b.negated, strict=True)):
        return None
    return f"negated: {', '.join(a.negated)} against {', '.join(b.negated)}"


def time(a: Reading, b: Reading) -> str | None:
    """Veto unless both texts ask of one time: now, once, some day, or what would be."""
    if a.times == b.times:
        return None
    return " against ".join(" and ".join(sorted(r.times)) or "now" for r in (a, b))


def joining(a: Reading, b: Reading) -> str | None:
    """Veto where each text joins its parts by a word that the other lacks, or one by a word that is never left out."""
    allowed = _may_be_joined_otherwise(a, b)
    only_a, only_b = (words - allowed for words in _only(a, b))
    only_a, only_b = only_a & JOINING_WORDS, only_b & JOINING_WORDS
    if only_a and only_b:
        return f"{', '.join(sorted(only_a))} against {', '.join(sorted(only_b))}"
    strong = sorted((only_a | only_b) & STRONG_JOINING_WORDS)
    return f"{strong[0]} is in one text only" if strong else None


def case(a: Reading, b: Reading) -> str | None:
    """Veto where a word that is also a name is written as one in one text only."""
    if _attribute(a.text) and _attribute(b.text):
        # What has a capital or a currency is a country, however it is written.
        return None
    cased = {token.word: _is_cased(token) for token in a.tokens if token.word in CASED_WORDS}
    for token in b.tokens:
        if token.word in cased and _is_cased(token) != cased[token.word]:
            return f"{token.word} is written as a name in one text only"
    return None


def opposites(a: Reading, b: Reading) -> str | None:
    """Veto where a word of one text stands against its opposite in the other."""
    if a.persons and b.persons and a.persons.isdisjoint(b.persons):
        return f"about the {min(a.persons)} person against the {min(b.persons)}"
    only_a, only_b = _only(a, b)
    for x, y in pairs_among(only_a | only_b):
        if (x in only_a and y in only_b) or (y in only_a and x in only_b):
            return f"{x} against {y}"
    for x in only_a:
        for y in only_b:
            if is_prefixed(x, y) or is_prefixed(y, x):
                return f"{x} against {y}"
    return None


def names(a: Reading, b: Reading) -> str | None:
    """Veto unless every name and every quotation of each text occurs in the other, in whatever case."""
    for one, other in ((a, b), (b, a)):
        missing = without_near(one.names, words_of(other)) if one.names else []
        if missing:
            return f"{', '.join(missing)} is in one text only"
        if quoted := one.quoted - other.quoted:
            plain = " ".join(other.words)
            absent = sorted(q for q in quoted if " ".join(read(q).words) not in plain)
            if absent:
                return f"{absent[0]!r} is quoted in one text only"
    return None


def content(a: Reading, b: Reading) -> str | None:
    """Veto unless the content words are the same, up to inflection and a few synonyms, in whatever order."""
    if _is_vague(a) or _is_vague(b):
        same = a.words == b.words
        return None if same else "too little is said to compare"
    only_a, only_b = _unmatched(a.content, b.content)
    if _is_one_word(a) or _is_one_word(b):
        # Alone an ending is the question: what is a spirit, what are spirits.
        only_a, only_b = sorted(set(a.content) - set(b.content)), sorted(set(b.content) - set(a.content))
    only_a, only_b = _allow_fragment(only_a, a, b), _allow_fragment(only_b, b, a)
    if not only_a and not only_b:
        return None
    if only_a and only_b:
        return f"{', '.join(only_a[:_SHOWN_WORDS])} against {', '.join(only_b[:_SHOWN_WORDS])}"
    return f"{', '.join((only_a or only_b)[:_SHOWN_WORDS])} is in one text only"


def wording(a: Reading, b: Reading) -> str | None:
    """Veto unless the texts are the same but for their edges, where either is about words or a text."""
    about = find_wording(a.text) or find_wording(b.text)
    return None if about is None or is_same_wording(a.text, b.text) else f"asks about words: {about!r}"


SURE_GUARDS: tuple[tuple[str, Callable[[Reading, Reading], str | None]], ...] = (
    ("numbers", sure_numbers),
    ("units", units),
    ("polarity", polarity),
    ("marks", marks),
    ("letters", letters),
    ("entities", entities),
    ("direction", exchanged),
)
GUARDS: tuple[tuple[str, Callable[[Reading, Reading], str | None]], ...] = (
    ("numbers", numbers),
    ("letters", letters),
    ("negation", negation),
    ("opposites", opposites),
    ("names", names),
    ("direction", direction),
    ("time", time),
    ("content", content),
    ("order", order),
    ("joining", joining),
    ("case", case),
    ("wording", wording),
)


@lru_cache(maxsize=4096)
def _attribute(text: str) -> str | None:
    """Return the attribute that a text asks for, if it asks for one: the capital of something."""
    return next((form for word in read(text).content for form in forms(word) if form in ATTRIBUTES), None)


def _may_be_joined_otherwise(a: Reading, b: Reading) -> frozenset[str]:
    allowed: set[str] = set()
    if _attribute(a.text) is not None and _attribute(a.text) == _attribute(b.text):
        allowed |= ATTRIBUTE_JOINING_WORDS
    if a.is_conversion and b.is_conversion:
        allowed |= {"in", "into", "to", "of"}
    if a.is_passive != b.is_passive:
        allowed |= {"by", "like"}
    if a.quantities and b.quantities and not ARITHMETIC.isdisjoint(a.content):
        allowed |= {"by", "from", "and", "of", "to", "with", "if"}
    if "'s" in a.words or "'s" in b.words:
        allowed |= {"of", "in"}
    if "neighbour" in a.content and "neighbour" in b.content:
        allowed |= {"with", "to"}
    if "difference" in a.content and "difference" in b.content:
        allowed |= {"of", "from", "to", "and"}
    return frozenset(allowed)


def _is_cased(token: Token) -> bool:
    """Whether a word is written as a name; the capital that opens a text is one only of a word with content."""
    if token.word in FUNCTION_WORDS or token.word in QUESTION_WORDS:
        return token.text[:1].isupper() and (not token.initial or token.text.isupper())
    return token.text[:1].isupper()


def _is_one_word(reading: Reading) -> bool:
    return sum(1 for word in reading.content if not word.startswith("@")) + len(reading.quantities) == 1


def _is_vague(reading: Reading) -> bool:
    """Whether a text has no content of its own, or one word about the speakers: "what is that", "what is my name"."""
    words = sum(1 for word in reading.content if not word.startswith("@")) + len(reading.quantities)
    return words == 0 or (words == 1 and bool(reading.persons))


def _quantities(counts: Counter[tuple[str, str | None]]) -> str:
    return ", ".join(sorted(f"{value} {unit}" if unit else value for value, unit in counts.elements())) or "nothing"


def _only(a: Reading, b: Reading) -> tuple[frozenset[str], frozenset[str]]:
    words_a, words_b = words_of(a), words_of(b)
    return words_a - words_b, words_b - words_a


def _unmatched(a: Iterable[str], b: Iterable[str]) -> tuple[list[str], list[str]]:
    words_a, words_b = frozenset(a), frozenset(b)
    return without_near(words_a - words_b, words_b), without_near(words_b - words_a, words_a)


def _allow_fragment(only: list[str], own: Reading, other: Reading) -> list[str]:
    """Forgive how and who, where the other text asks nothing."""
    enough = len([word for word in own.content if not word.startswith("@")]) > 1
    if not enough or other.asks:
        return only
    return [word for word in only if word not in ("@how", "@who")]
