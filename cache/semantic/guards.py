"""The guards: small differences that make another question of one that looks the same. Pure functions of two texts.

Similarity cannot tell "5 km" from "50 km", nor "km to miles" from "miles to km". Each guard looks for one kind of such
a difference and vetoes with its reason; no guard can approve. The last one is the strictest: two texts whose content
words differ are different questions, whatever a model thinks of them.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations

from cache.semantic.lexicon import (
    BACKWARD_WORDS,
    FORWARD_WORDS,
    FUNCTION_WORDS,
    OPPOSITES,
    PART_CONFLICTS,
    SYMMETRIC_WORDS,
    UNITS,
)
from cache.semantic.reading import Reading, is_near, read, without_near
from cache.semantic.wording import find_wording, is_same_wording

# Long texts hide their difference in a crowd of equal words, and judging them would hold up the event loop.
MAX_TEXT_CHARS = 1000
_SHOWN_WORDS = 8


@dataclass(frozen=True, slots=True)
class Veto:
    """Which guard refused to let one text's answer serve the other, and why."""

    guard: str
    reason: str


def find_veto(a: str, b: str) -> Veto | None:
    """Return the first veto of the guards, in their order; None where all let the pair pass. a and b are equals."""
    if a.split() == b.split():
        return None
    if max(len(a), len(b)) > MAX_TEXT_CHARS:
        return Veto("length", f"more than {MAX_TEXT_CHARS} characters, where only equal texts match")
    first, second = read(a), read(b)
    for guard, judge in GUARDS:
        reason = judge(first, second)
        if reason is not None:
            return Veto(guard, reason)
    return None


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


def tense(a: Reading, b: Reading) -> str | None:
    """Veto where one text asks about the present and the other about the past."""
    if a.tense is None or b.tense is None or a.tense == b.tense:
        return None
    return f"{a.tense} against {b.tense}"


def opposites(a: Reading, b: Reading) -> str | None:
    """Veto where a word of one text stands against its opposite in the other."""
    if a.persons and b.persons and a.persons.isdisjoint(b.persons):
        return f"about the {min(a.persons)} person against the {min(b.persons)}"
    only_a, only_b = _only(a, b)
    for x, y in OPPOSITES:
        if (x in only_a and y in only_b) or (y in only_a and x in only_b):
            return f"{x} against {y}"
    for x in only_a:
        for y in only_b:
            if _is_prefixed(x, y) or _is_prefixed(y, x):
                return f"{x} against {y}"
    return None


def names(a: Reading, b: Reading) -> str | None:
    """Veto unless every name and every quotation of each text occurs in the other, in whatever case."""
    for one, other in ((a, b), (b, a)):
        words = frozenset(token.word for token in other.tokens)
        missing = without_near(one.names, words)
        if missing:
            return f"{', '.join(missing)} is in one text only"
        plain = " ".join(token.word for token in other.tokens)
        absent = sorted(q for q in one.quoted - other.quoted if " ".join(t.word for t in read(q).tokens) not in plain)
        if absent:
            return f"{absent[0]!r} is quoted in one text only"
    return None


def direction(a: Reading, b: Reading) -> str | None:
    """Veto where both texts have the same parts in exchanged roles: A to B, B to A."""
    return _crossed_edges(a, b) or _other_part(a, b) or _swapped_pair(a, b) or _other_voice(a, b)


def content(a: Reading, b: Reading) -> str | None:
    """Veto unless the content words are the same, up to inflection and a few synonyms, in whatever order."""
    if _is_vague(a) or _is_vague(b):
        same = [token.word for token in a.tokens] == [token.word for token in b.tokens]
        return None if same else "too little is said to compare"
    only_a, only_b = _unmatched(a.content, b.content)
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


GUARDS: tuple[tuple[str, Callable[[Reading, Reading], str | None]], ...] = (
    ("numbers", numbers),
    ("negation", negation),
    ("opposites", opposites),
    ("names", names),
    ("direction", direction),
    ("tense", tense),
    ("content", content),
    ("wording", wording),
)


def _is_vague(reading: Reading) -> bool:
    """Whether a text has no content of its own, or one word about the speakers: "what is that", "what is my name"."""
    words = sum(1 for word in reading.content if not word.startswith("@")) + len(reading.quantities)
    return words == 0 or (words == 1 and bool(reading.persons))


def _quantities(counts: Counter[tuple[str, str | None]]) -> str:
    return ", ".join(sorted(f"{value} {unit}" if unit else value for value, unit in counts.elements())) or "nothing"


def _only(a: Reading, b: Reading) -> tuple[set[str], set[str]]:
    words_a, words_b = {token.word for token in a.tokens}, {token.word for token in b.tokens}
    return words_a - words_b, words_b - words_a


def _is_prefixed(x: str, y: str) -> bool:
    """Whether y is x turned into its opposite by a prefix."""
    return len(x) > 3 and any(y == prefix + x for prefix in ("un", "in", "im", "ir", "dis", "non", "anti", "de", "mis"))  # noqa: PLR2004


def _unmatched(a: Iterable[str], b: Iterable[str]) -> tuple[list[str], list[str]]:
    words_a, words_b = frozenset(a), frozenset(b)
    return without_near(words_a - words_b, words_b), without_near(words_b - words_a, words_a)


def _allow_fragment(only: list[str], own: Reading, other: Reading) -> list[str]:
    """Forgive what the other text leaves unsaid: how, where it asks nothing; who, where its noun says so."""
    enough = len([word for word in own.content if not word.startswith("@")]) > 1
    if not enough:
        return only
    if not other.asks:
        only = [word for word in only if word != "@how"]
    return [word for word in only if word != "@who"]


def _edges(reading: Reading) -> set[tuple[str, str]]:
    """Return (from, to) for the words on the two sides of each word of direction."""
    edges = set()
    words = [token.word for token in reading.tokens]
    for at, word in enumerate(words):
        if word in FORWARD_WORDS or word in BACKWARD_WORDS or (word == "in" and reading.is_conversion):
            left, right = _side(reading, at, -1), _side(reading, at, 1)
            backward = word in BACKWARD_WORDS or (word == "in" and words[:2] == ["how", "many"])
            edges |= {(y, x) if backward else (x, y) for x in left for y in right}
    return edges


def _side(reading: Reading, at: int, step: int) -> list[str]:
    """Return the unbroken run of content words, units and bare numbers beside a token."""
    by_place = dict(zip(reading.places, reading.content, strict=True))
    run: list[str] = []
    at += step
    while 0 <= at < len(reading.tokens):
        token = reading.tokens[at]
        if token.value is not None:
            run.append(token.unit or token.value)
        elif at in by_place and not by_place[at].startswith("@"):
            run.append(by_place[at])
        elif token.word not in ("a", "an", "the", "one") and not (run == [] and token.word in ("are", "is", "there")):
            break
        at += step
    return run


def _crossed_edges(a: Reading, b: Reading) -> str | None:
    edges_a, edges_b = _edges(a), _edges(b)
    for x, y in sorted(edges_a):
        if x != y and (y, x) in edges_b and (x, y) not in edges_b:
            return f"{x} to {y} against {y} to {x}"
    return None


def _other_part(a: Reading, b: Reading) -> str | None:
    parts_a, parts_b = _parts(a), _parts(b)
    for word in sorted(parts_a.keys() & parts_b.keys()):
        for x, y in PART_CONFLICTS:
            if {parts_a[word], parts_b[word]} == {x, y}:
                return f"{parts_a[word]} {word} against {parts_b[word]} {word}"
    return None


def _parts(reading: Reading) -> dict[str, str]:
    """Return the preposition that each content word follows, articles aside."""
    by_place = dict(zip(reading.places, reading.content, strict=True))
    parts: dict[str, str] = {}
    last = ""
    for at, token in enumerate(reading.tokens):
        if at in by_place:
            if last and by_place[at] not in UNITS:
                parts.setdefault(by_place[at], last)
            last = ""
        elif token.word not in ("a", "an", "the", "my"):
            last = token.word if token.word in FUNCTION_WORDS or token.word == "against" else ""
    return parts


def _swapped_pair(a: Reading, b: Reading) -> str | None:
    """Veto an exchange of two names, two numbers, or subject and object, that nothing symmetric joins."""
    if any(not SYMMETRIC_WORDS.isdisjoint(token.word for token in r.tokens) for r in (a, b)):
        return None
    if a.asks_about and b.asks_about and a.asks_about != b.asks_about:
        return f"asks for the {a.asks_about} against the {b.asks_about}"
    values_a = [token.value for token in a.tokens if token.value]
    values_b = [token.value for token in b.tokens if token.value]
    if values_a != values_b and sorted(values_a) == sorted(values_b) and not a.is_conversion:
        return f"{' '.join(values_a)} against {' '.join(values_b)}"
    if _is_passive(a) != _is_passive(b):
        return None
    # Whether it is so depends on the order, more than what it is: Paris in France, France in Paris.
    ordered = frozenset(a.content) if "@yesno" in a.content else a.names | b.names
    return _swapped_among(ordered, a, b) or _swapped_words(a, b)


def _swapped_among(wanted: frozenset[str], a: Reading, b: Reading) -> str | None:
    order_a = [word for word in a.content if word in wanted]
    order_b = [word for word in b.content if word in wanted]
    for x, y in combinations(dict.fromkeys(order_a), 2):
        if x in order_b and y in order_b and order_b.index(y) < order_b.index(x):
            return f"{x} … {y} against {y} … {x}"
    return None


def _swapped_words(a: Reading, b: Reading) -> str | None:
    """Veto where two words have changed places around others that stayed: dog chases cat, cat chases dog."""
    if len(a.content) != len(b.content):
        return None
    moved = [at for at, (x, y) in enumerate(zip(a.content, b.content, strict=True)) if not is_near(x, y)]
    if len(moved) != 2 or moved[1] - moved[0] == 1:  # noqa: PLR2004
        return None
    x, y = (a.content[at] for at in moved)
    if is_near(x, b.content[moved[1]]) and is_near(y, b.content[moved[0]]):
        return f"{x} … {y} against {y} … {x}"
    return None


def _other_voice(a: Reading, b: Reading) -> str | None:
    """Veto where one text is passive and the other is not, and yet the same word comes first."""
    if _is_passive(a) == _is_passive(b):
        return None
    plain = a if _is_passive(b) else b
    if any(token.word == "by" for token in plain.tokens):
        return None
    words_a, words_b = ([w for w in r.content if not w.startswith("@")] for r in (a, b))
    if len(words_a) == len(words_b) > 2 and all(map(is_near, words_a, words_b)):  # noqa: PLR2004
        return f"{words_a[0]} acts in one text and is acted on in the other"
    return None


def _is_passive(reading: Reading) -> bool:
    words = [token.word for token in reading.tokens]
    return "by" in words and not {"is", "are", "was", "were", "be", "been", "being"}.isdisjoint(
        words[: words.index("by")]
    )
