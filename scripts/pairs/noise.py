"""Words a text a little otherwise, as people do, or makes another question of it. All chance is given."""

import re
from random import Random

_BEFORE = (
    "please tell me, ", "hi, ", "hello, ", "quick question: ", "just curious, ", "I was wondering, ", "sorry to ask, ",
    "hey, ", "I am new here. ", "one more thing: ", "so, ", "ok, ", "good morning, ", "for a friend: ", "honestly, ",
    "I have a question. ", "maybe a silly question, but ", "help please, ", "can anyone tell me: ",
)  # fmt: skip
_AFTER = (
    " Thanks!", " Thank you.", " please", " Thanks in advance", " Any ideas?", " Please help.", " Can you tell me?",
    " I would like to know.", " I'm curious.", " Any advice?",
)  # fmt: skip
_CONTRACTED = (
    ("What is ", "What's "), ("How is ", "How's "), ("Where is ", "Where's "), ("Who is ", "Who's "),
    (" I am ", " I'm "), (" do not ", " don't "), (" does not ", " doesn't "), (" cannot ", " can't "),
    (" is not ", " isn't "), (" will not ", " won't "), (" are not ", " aren't "), (" did not ", " didn't "),
)  # fmt: skip
# The first may always be exchanged for the second, not the other way round.
SAME = (
    ("buy", "purchase"), ("big", "large"), ("start", "begin"), ("movie", "film"), ("movies", "films"),
    ("quickly", "fast"), ("difficult", "hard"), ("get rid of", "remove"), ("earn", "make"), ("phone", "mobile phone"),
    ("a lot of", "many"), ("job", "work"), ("kids", "children"), ("apartment", "flat"), ("fix", "repair"),
    ("car", "automobile"), ("doctor", "physician"), ("pictures", "photos"), ("picture", "photo"), ("best", "ideal"),
    ("ways", "methods"), ("way", "method"), ("help", "assist"), ("show", "display"), ("wrong", "incorrect"),
    ("right", "correct"), ("often", "frequently"), ("happen", "occur"), ("happens", "occurs"), ("need", "require"),
    ("needed", "required"), ("build", "construct"), ("company", "firm"), ("money", "cash"), ("people", "folks"),
    ("increase", "raise"), ("reduce", "lower"), ("improve", "enhance"), ("finish", "complete"), ("choose", "pick"),
    ("answer", "reply"), ("end", "finish"), ("famous", "well-known"), ("smart", "clever"), ("rich", "wealthy"),
    ("angry", "mad"), ("sad", "unhappy"), ("tired", "exhausted"), ("scared", "afraid"), ("create", "make"),
    ("delete", "remove"), ("error", "mistake"), ("errors", "mistakes"), ("program", "application"), ("house", "home"),
    ("dangerous", "risky"), ("expensive", "costly"), ("important", "essential"), ("reason", "cause"),
    ("advantages", "benefits"), ("drawbacks", "disadvantages"), ("use", "utilize"), ("learn", "study"),
    ("teach", "instruct"), ("speak", "talk"), ("cure", "remedy"), ("illness", "disease"), ("sick", "ill"),
    ("price", "cost"), ("salary", "pay"), ("boss", "manager"), ("holiday", "vacation"), ("trip", "journey"),
    ("travel", "go"), ("stop", "quit"), ("try", "attempt"), ("forgot", "do not remember"), ("in order to", "to"),
)  # fmt: skip
# What makes another question of one where it stands instead.
OPPOSITE = (
    ("buy", "sell"), ("increase", "reduce"), ("start", "stop"), ("open", "close"), ("best", "worst"), ("more", "less"),
    ("before", "after"), ("with", "without"), ("good", "bad"), ("first", "last"), ("advantages", "disadvantages"),
    ("fastest", "slowest"), ("win", "lose"), ("gain", "lose"), ("enable", "disable"), ("install", "remove"),
    ("always", "never"), ("most", "least"), ("hot", "cold"), ("old", "new"), ("men", "women"), ("boy", "girl"),
    ("how", "why"), ("how", "when"), ("why", "when"), ("where", "when"), ("who", "when"), ("should", "can"),
    ("he", "she"), ("my", "your"), ("is", "was"), ("do", "did"), ("will", "did"), ("long", "much"), ("can", "must"),
    ("learn", "teach"), ("lend", "borrow"), ("legal", "illegal"), ("day", "night"), ("all", "some"), ("every", "no"),
    ("higher", "lower"), ("cheap", "expensive"), ("easy", "hard"), ("safe", "dangerous"), ("rich", "poor"),
    ("accept", "refuse"), ("import", "export"), ("inside", "outside"), ("causes", "effects"), ("love", "hate"),
    ("send", "receive"), ("remember", "forget"), ("arrive", "leave"), ("activate", "deactivate"), ("top", "bottom"),
)  # fmt: skip
RESTRICTIONS = (
    " in {country}", " in {city}", " for {group}", " without money", " at night", " in {year}", " at work",
    " at school", " for the first time", " as a {job}", " on {os}", " with {disease}", " at home", " before {month}",
    " if I am under 18", " every day", " while driving", " as a beginner", " without a degree", " with my {relative}",
    " in {num} days", " under {num} dollars", " for my {relative}", " from {country}", " during {season}", " by myself",
    " without the internet", " in {language}", " for a living", " on {weekday}", " for an old {animal}", " twice",
)  # fmt: skip

_QUALITIES = (
    "old", "new", "cheap", "small", "first", "second", "Chinese", "young", "digital", "local", "female", "broken",
    "free", "online", "private", "public", "modern", "electric", "wooden", "rare", "average", "former", "Indian",
)  # fmt: skip
_ADVERBIAL = re.compile(
    r" (?:in|for|on|at|during|before|after|without|with|if|when|while|as a|under) (?!a good|the case)"
)
_JOINED = re.compile(r"\b(\w+) (and|or) (\w+)(?=[?.,]|$)")
_NEAR_KEYS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
    "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "w", "r": "et", "s": "ad", "t": "ry",
    "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
_SMALL_WORDS = """
a an the is are was were do does did i you he she it we they my your his her our their of to in on at for from by
with and or if be been am can could should would will what which who when where why how that this there as about
not no than then so me us them has have had
"""
_SMALL = frozenset(_SMALL_WORDS.split())


def worded(text: str, rng: Random, strength: float = 1.0) -> str:
    """Return the text as somebody else might type it: the question stays the same."""
    if rng.random() < 0.25 * strength:
        text = synonym(text, rng)
    if rng.random() < 0.3 * strength:
        for whole, short in _CONTRACTED:
            text = text.replace(whole, short)
    if rng.random() < 0.06 * strength:
        opening = rng.choice(_BEFORE)
        text = opening[:1].upper() + opening[1:] + (text if text[:2] == "I " else text[:1].lower() + text[1:])
    if rng.random() < 0.05 * strength:
        text += rng.choice(_AFTER)
    if rng.random() < 0.08 * strength:
        text = mistyped(text, rng)
    if rng.random() < 0.2 * strength:
        text = text.rstrip("?.")
    if rng.random() < 0.2 * strength:
        text = text.lower()
    return text


def synonym(text: str, rng: Random) -> str:
    """Return the text with one word exchanged for one of the same sense, where there is one."""
    return _exchanged(text, SAME, rng) or text


def turned(text: str, rng: Random) -> str | None:
    """Return the text with one word exchanged for its opposite or like, where there is one."""
    return _exchanged(text, (*OPPOSITE, *((y, x) for x, y in OPPOSITE)), rng)


def fronted(text: str, rng: Random) -> str | None:
    """Return the text with its last adverbial in front: in summer, how do I learn Python? None where it has none."""
    body, end = text.rstrip("?."), text[-1] if text[-1:] in "?." else ""
    found = [at for at in _ADVERBIAL.finditer(body) if at.start() > 12]
    if not found or body.count("{"):
        return None
    at = found[-1].start()
    front, rest = body[at + 1 :], body[:at]
    if rest.endswith((" or", " and", " than", " not")):
        return None
    lowered = rest if rest[:2] == "I " or rest[1:2].isupper() else rest[:1].lower() + rest[1:]
    return front[:1].upper() + front[1:] + rng.choice((", ", " ")) + lowered + end


def conjoined(text: str, rng: Random) -> str | None:
    """Return the text with two words joined by "and" or "or" in each other's place; None where there are none."""
    found = [each for each in _JOINED.finditer(text) if each[1].lower() not in _SMALL and each[3].lower() not in _SMALL]
    if not found:
        return None
    each = rng.choice(found)
    return text[: each.start()] + f"{each[3]} {each[2]} {each[1]}" + text[each.end() :]


def restricted(text: str, rng: Random) -> tuple[str, str]:
    """Return the text with a restriction at its end, whose slots are still to be filled, and the mark it ended with."""
    end = text[-1] if text[-1:] in "?." else ""
    return text.rstrip("?.") + rng.choice(RESTRICTIONS), end


def swapped(text: str, rng: Random) -> str | None:
    """Return the text with two words of content in each other's place; None where it has too few."""
    words = text.split()
    places = [at for at, word in enumerate(words) if _is_content(word)]
    if len(places) < 2:
        return None
    x, y = sorted(rng.sample(places, 2))
    between = {word.lower() for word in words[x + 1 : y]}
    if y - x <= 2 and between & {"and", "or", "vs"}:
        return None
    tail = words[y][len(words[y].rstrip("?.!,")) :]
    first, second = words[x].rstrip("?.!,"), words[y].rstrip("?.!,")
    if first.lower() == second.lower():
        return None
    words[x], words[y] = second + words[x][len(first) :], first + tail
    return " ".join(words)


def dropped(text: str, rng: Random) -> str | None:
    """Return the text without one of its words of content; None where it has too few."""
    words = text.split()
    places = [at for at, word in enumerate(words[:-1]) if _is_content(word) and at]
    if len(places) < 3:
        return None
    del words[rng.choice(places)]
    return " ".join(words)


def qualified(text: str, rng: Random) -> str | None:
    """Return the text with an adjective put before one of its last words of content."""
    words = text.split()
    places = [at for at, word in enumerate(words) if _is_content(word) and at > 2 and word[:1].islower()]
    if not places:
        return None
    words.insert(rng.choice(places), rng.choice(_QUALITIES))
    return " ".join(words)


def renumbered(text: str, rng: Random) -> str | None:
    """Return the text with another number; None where it has none."""
    found = list(re.finditer(r"\b\d+\b", text))
    if not found:
        return None
    chosen = rng.choice(found)
    number = int(chosen.group())
    other = rng.choice([number + 1, number + 10, max(1, number - 1) if number != 1 else 7, number * 2 or 5])
    return text[: chosen.start()] + str(other) + text[chosen.end() :] if other != number else None


def mistyped(text: str, rng: Random) -> str:
    """Return the text with one letter doubled, left out, exchanged with its neighbour, or hit beside."""
    words = text.split(" ")
    places = [at for at, word in enumerate(words) if len(word) > 3 and word.isalpha() and word.islower()]
    if not places:
        return text
    at = rng.choice(places)
    word, i = words[at], rng.randrange(1, len(words[at]) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        word = word[:i] + word[i] + word[i:]
    elif kind == 1:
        word = word[:i] + word[i + 1 :]
    elif kind == 2:
        word = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    else:
        word = word[:i] + rng.choice(_NEAR_KEYS[word[i]] if word[i] in _NEAR_KEYS else word[i]) + word[i + 1 :]
    words[at] = word
    return " ".join(words)


def _is_content(word: str) -> bool:
    bare = word.strip("?.!,").lower()
    return len(bare) > 2 and bare not in _SMALL


def _exchanged(text: str, table: tuple[tuple[str, str], ...], rng: Random) -> str | None:
    lower = f" {text.lower()} "
    found = []
    for old, new in table:
        at = re.search(rf"(?<![\w-]){re.escape(old)}(?![\w-])", lower)
        if at is not None:
            found.append((at.start() - 1, at.end() - 1, new))
    if not found:
        return None
    start, end, new = rng.choice(found)
    return text[:start] + (new[:1].upper() + new[1:] if text[start].isupper() else new) + text[end:]
