"""The guard of direction: the same parts in exchanged roles. Pure functions of two readings."""

from functools import lru_cache
from itertools import combinations

from cache.semantic.inflection import is_near
from cache.semantic.lexicon import BACKWARD_WORDS, FORWARD_WORDS, SYMMETRIC_WORDS
from cache.semantic.reading import Reading, read


def direction(a: Reading, b: Reading) -> str | None:
    """Veto where both texts have the same parts in exchanged roles: A to B, B to A."""
    return crossed_edges(a, b) or _swapped_pair(a, b) or other_voice(a, b)


@lru_cache(maxsize=4096)
def _edges(text: str) -> frozenset[tuple[str, str]]:
    """Return (from, to) for the words on the two sides of each word of direction."""
    reading = read(text)
    edges = set()
    words = reading.words
    for at, word in enumerate(words):
        if word in FORWARD_WORDS or word in BACKWARD_WORDS or (word == "in" and reading.is_conversion):
            left, right = _side(reading, at, -1), _side(reading, at, 1)
            backward = word in BACKWARD_WORDS or (word == "in" and words[:2] == ("how", "many"))
            edges |= {(y, x) if backward else (x, y) for x in left for y in right}
    return frozenset(edges)


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


def crossed_edges(a: Reading, b: Reading) -> str | None:
    """Veto where what goes from one part to another goes the other way in the other text."""
    edges_a, edges_b = _edges(a.text), _edges(b.text)
    if not edges_a or not edges_b:
        return None
    for one, other in ((edges_a, edges_b), (edges_b, edges_a)):
        for x, y in sorted(one):
            if x != y and (y, x) in other and (x, y) not in other:
                return f"{x} to {y} against {y} to {x}"
    return None


def _swapped_pair(a: Reading, b: Reading) -> str | None:
    """Veto an exchange of two names, two numbers, or subject and object, that nothing symmetric joins."""
    if any(not SYMMETRIC_WORDS.isdisjoint(r.words) for r in (a, b)):
        return None
    if a.asks_about and b.asks_about and a.asks_about != b.asks_about:
        return f"asks for the {a.asks_about} against the {b.asks_about}"
    values_a = [token.value for token in a.tokens if token.value]
    values_b = [token.value for token in b.tokens if token.value]
    if values_a != values_b and sorted(values_a) == sorted(values_b) and not a.is_conversion:
        return f"{' '.join(values_a)} against {' '.join(values_b)}"
    if a.is_passive != b.is_passive:
        return None
    # Whether it is so depends on the order, more than what it is: Paris in France, France in Paris.
    ordered = frozenset(a.content) if "@yesno" in a.content else a.names | b.names
    return _swapped_among(ordered, a, b)


def _swapped_among(wanted: frozenset[str], a: Reading, b: Reading) -> str | None:
    order_a = [word for word in a.content if word in wanted]
    order_b = [word for word in b.content if word in wanted]
    for x, y in combinations(dict.fromkeys(order_a), 2):
        if x in order_b and y in order_b and order_b.index(y) < order_b.index(x):
            return f"{x} … {y} against {y} … {x}"
    return None


def other_voice(a: Reading, b: Reading) -> str | None:
    """Veto where one text is passive and the other is not, and yet the same word comes first."""
    if a.is_passive == b.is_passive:
        return None
    plain = a if b.is_passive else b
    if "by" in plain.words:
        return None
    words_a, words_b = ([w for w in r.content if not w.startswith("@")] for r in (a, b))
    if len(words_a) == len(words_b) > 2 and all(map(is_near, words_a, words_b)):  # noqa: PLR2004
        return f"{words_a[0]} acts in one text and is acted on in the other"
    return None
