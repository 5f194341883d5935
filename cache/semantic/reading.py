"""Reads a question: what it asks, about what, with which quantities, names and negations. Judges nothing."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from cache.semantic.inflection import forms
from cache.semantic.lexicon import (
    ARITHMETIC,
    ARITHMETIC_WORDS,
    ASKING_ENDS,
    ASKING_NOUNS,
    AUXILIARIES,
    CONVERSION_WORDS,
    COURTESY_PHRASES,
    COURTESY_WORDS,
    DO_FORMS,
    FIRST_PERSON,
    FUNCTION_WORDS,
    GENERIC_AFTER,
    IMPERATIVES,
    IMPLIED,
    LINKING_WORDS,
    MEASURES,
    NEGATIONS,
    PAIRS,
    PAST_VERBS,
    QUESTION_WORDS,
    SECOND_PERSON,
    STRESS_WORDS,
    SYNONYMS,
    SYNONYMS_IN_SUMS,
    SYNONYMS_OF_PERSONS,
    SYNONYMS_OF_SUBJECTS,
    TIMES,
    WEAK_WORDS,
)
from cache.semantic.tokens import Token, tokenise
from cache.semantic.units import SHORT_UNITS, UNITS

_QUOTED = re.compile(r'"([^"]{1,200})"|“([^”]{1,200})”|`([^`]{1,200})`')
_TARGET_WORDS = frozenset({"to", "into", "in", "from"})
_MODALS = {"can": "@can", "could": "@can", "may": "@can", "might": "@can", "should": "@should", "must": "@should"}
_LONGEST_TITLE = 0.6
_LONGEST_ACRONYMS = 3
# A question too short to have a word that only links.
_SHORT = 4
# How far behind "has" its verb may stand.
_FAR = 4
_NOT_VERBS = frozenset({"used", "called", "named", "located", "situated", "need", "speed", "indeed"})
_BEING = frozenset({"is", "are", "was", "were", "be", "been", "being"})
_NEVER_NEGATED = FUNCTION_WORDS | NEGATIONS


@dataclass(frozen=True, slots=True)
class Reading:
    """What the guards compare: the text itself, and what was found in it. All words are in lower case.

    Sequences keep the order of the text. `content` is what remains when function words, courtesy and quantities are
    taken out, in canonical words; the asking word and a modal are in it as `@why`, `@can`, and a unit as itself;
    `places` are theirs among the tokens. `quantities` count (value, unit) pairs; `names` are capitalised words;
    `negated` are the words that negations apply to; `times` say when it is, empty where it is now; `asked_at` is the
    place of the question word; `asks_about` is "object" after "what does it …", "subject" after "what …s it", where
    there is no other auxiliary; `is_passive` where something is done by somebody; `persons` are those of the speaker
    and the one spoken to whom the text is about.
    """

    text: str
    tokens: tuple[Token, ...]
    words: tuple[str, ...]
    content: tuple[str, ...]
    places: tuple[int, ...]
    quantities: Counter[tuple[str, str | None]]
    names: frozenset[str]
    quoted: frozenset[str]
    negated: tuple[str, ...]
    times: frozenset[str]
    persons: frozenset[str]
    asks: bool
    asked_at: int | None
    asks_about: str | None
    is_conversion: bool
    is_passive: bool


@lru_cache(maxsize=4096)
def read(text: str) -> Reading:
    """Return the reading of a text; those of late are remembered, as a stored question is judged again and again."""
    # In a text that shouts, capitals mark neither names nor acronyms.
    shouts = text.isupper() and len(text.split()) > _LONGEST_ACRONYMS
    tokens = _without_courtesy(tokenise(text.lower() if shouts else text))
    words = [token.word for token in tokens]
    quantities = _quantities(tokens)
    is_conversion = _is_conversion(tokens)
    names = _names(tokens)
    asked_at = next((at for at, word in enumerate(words) if word in QUESTION_WORDS), None)
    content, places = _content(_Scan(tokens, names, asked_at, is_conversion))
    return Reading(
        text=text,
        tokens=tuple(tokens),
        words=tuple(words),
        content=tuple(content),
        places=tuple(places),
        quantities=quantities,
        names=names,
        quoted=frozenset(" ".join(filter(None, found)).lower().strip() for found in _QUOTED.findall(text)),
        negated=_negated(tokens),
        times=_times(words),
        asked_at=asked_at,
        persons=_persons(tokens),
        asks_about=_asks_about(words, asked_at),
        asks=asked_at is not None or "@yesno" in content,
        is_conversion=is_conversion,
        is_passive=_is_passive(words),
    )


def _without_courtesy(tokens: list[Token]) -> list[Token]:
    kept: list[Token] = []
    at = 0
    # "one" has become a number by now, and is a word again in "one another".
    words = ["one" if token.text.lower() == "one" else token.word for token in tokens]
    while at < len(tokens):
        phrases = COURTESY_PHRASES.get(words[at], ())
        phrase = next((p for p in phrases if tuple(words[at : at + len(p)]) == p), ())
        if not phrase:
            kept.append(tokens[at])
        at += len(phrase) or 1
    # A text that is nothing but courtesy is compared as it stands.
    return kept or tokens


@dataclass(frozen=True, slots=True)
class _Scan:
    """What the reading of one token needs to know of the whole text. `asked_at` is where its question word is."""

    tokens: list[Token]
    names: frozenset[str]
    asked_at: int | None
    is_conversion: bool

    @property
    def asked(self) -> str:
        return "" if self.asked_at is None else self.tokens[self.asked_at].word

    def word(self, at: int) -> str:
        return self.tokens[at].word if 0 <= at < len(self.tokens) else ""


def _quantities(tokens: Sequence[Token]) -> Counter[tuple[str, str | None]]:
    found = [token for token in tokens if token.value is not None]
    if all(token.value == "1" and (token.unit or token.text.lower() == "one") for token in found):
        # "one mile" is "a mile".
        return Counter()
    return Counter((token.value or "", token.unit) for token in found)


def _is_conversion(tokens: Sequence[Token]) -> bool:
    units = sum(1 for token in tokens if token.unit or token.word in UNITS)
    return units > 1 or (units == 1 and any(t.word in SHORT_UNITS or t.word == "convert" for t in tokens))


def _content(scan: _Scan) -> tuple[list[str], list[int]]:
    content: list[str] = []
    places: list[int] = []
    if scan.asked_at is None and scan.word(0) in AUXILIARIES:
        content.append("@yesno")
        places.append(0)
    for at, token in enumerate(scan.tokens):
        if token.value is not None:
            word = token.unit or "" if token.value == "1" else ""
        else:
            word = _asking_part(scan, at) if _may_ask(scan, at) else _canonical(scan, at)
            if word in IMPERATIVES and not content and not scan.asked:
                word = ""
        if word:
            content.append(word)
            places.append(at)
    return _drop_implied(content, places, is_conversion=scan.is_conversion)


def _may_ask(scan: _Scan, at: int) -> bool:
    word = scan.word(at)
    if word in QUESTION_WORDS:
        return not _is_acronym(scan.tokens[at].text)
    asking_noun = word in ASKING_NOUNS and scan.asked in ("", "what", "which")
    is_measure = word in MEASURES and scan.asked == "how" and scan.asked_at == at - 1
    return asking_noun or is_measure or word in _MODALS or word in LINKING_WORDS or at == len(scan.tokens) - 1


def _asking_part(scan: _Scan, at: int) -> str:  # noqa: PLR0911 - a table of cases, in order
    """Return what this token adds to how the text asks; what it is about, where it adds nothing of the kind."""
    word, after = scan.word(at), scan.word(at + 1)
    if word in QUESTION_WORDS:
        return _asking_word(scan, at)
    if word in MEASURES and scan.asked == "how" and scan.asked_at == at - 1:
        return MEASURES[word]
    if word in _MODALS:
        return "" if scan.asked in ("how", "where", "when") else _MODALS[word]
    if word in ("used", "uses", "use") and after in ("for", "of", "to"):
        return "@formerly" if after == "to" else "purpose"
    if (
        word in LINKING_WORDS
        and scan.asked in ("what", "which")
        and scan.asked_at != at - 1
        and len(scan.tokens) > _SHORT
    ):
        return ""
    if word in ASKING_NOUNS and scan.asked in ("", "what", "which"):
        return ASKING_NOUNS[word]
    if word in ASKING_ENDS and scan.word(at - 1) not in ("used", "use", "uses"):
        return word
    return _canonical(scan, at)


def _asking_word(scan: _Scan, at: int) -> str:
    after = scan.word(at + 1)
    if at != scan.asked_at or (scan.word(at) == "how" and after in MEASURES):
        # A later one only joins clauses: "… when they vest".
        return ""
    if (scan.word(at), after) in (("how", "come"), ("what", "makes"), ("what", "causes")):
        return "@why"
    return QUESTION_WORDS[scan.word(at)]


def _canonical(scan: _Scan, at: int) -> str:  # noqa: PLR0911 - a table of cases, in order
    """Return the content word that this token stands for; empty where it has no content."""
    word = scan.word(at)
    if (word, scan.word(at + 1)) in PAIRS:
        return PAIRS[word, scan.word(at + 1)]
    if (scan.word(at - 1), word) in PAIRS:
        return ""
    unit = _bare_unit(word, scan.word(at - 1)) if scan.is_conversion else UNITS.get(word)
    if unit is not None:
        return unit
    if _is_acronym(scan.tokens[at].text) or word in scan.names:
        return SYNONYMS.get(word, word)
    if word in DO_FORMS and any(token.word in DO_FORMS for token in scan.tokens[:at]):
        # The second one is the verb: what did the cat do.
        return "do"
    if word == "am" and "i" not in (scan.word(at - 1), scan.word(at + 1)):
        return word
    if word in NEGATIONS or (word in "-/" and not _between_numbers(scan.tokens, at)):
        return ""
    if (
        word in FUNCTION_WORDS
        or word in COURTESY_WORDS
        or (word in STRESS_WORDS and scan.asked)
        or (word in ("makes", "causes") and scan.word(at - 1) == "what")
    ):
        return ""
    return _synonym(scan, at)


def _synonym(scan: _Scan, at: int) -> str:
    word = scan.word(at)
    if word in SYNONYMS_IN_SUMS and sum(token.value is not None for token in scan.tokens) > 1:
        return SYNONYMS_IN_SUMS[word]
    if word in SYNONYMS_OF_PERSONS and scan.asked == "who":
        return SYNONYMS_OF_PERSONS[word]
    if word in SYNONYMS_OF_SUBJECTS and _is_subject(scan, at):
        return SYNONYMS_OF_SUBJECTS[word]
    return SYNONYMS.get(word, SYNONYMS.get(word.removesuffix("s"), word))


def _is_subject(scan: _Scan, at: int) -> bool:
    """Whether a word that has other senses stands for what is asked for, by the words about it."""
    word, words = scan.word(at), [token.word for token in scan.tokens]
    if word == "money":
        return "called" in words or (scan.asked in ("what", "which") and scan.asked_at == at - 1)
    if word.startswith("border"):
        return scan.word(at - 1) not in ("a", "the") or "with" in words[at:]
    return "language" in words or "languages" in words


def _persons(tokens: Sequence[Token]) -> frozenset[str]:
    persons = set()
    for at, token in enumerate(tokens):
        if at and tokens[at - 1].word in GENERIC_AFTER:
            continue
        if token.word in FIRST_PERSON and not _is_acronym(token.text):
            persons.add("first")
        elif token.word in SECOND_PERSON:
            persons.add("second")
    return frozenset(persons)


def _bare_unit(word: str, before: str) -> str | None:
    if word in UNITS:
        return UNITS[word]
    return SHORT_UNITS.get(word) if before in _TARGET_WORDS and word != "in" else None


def _between_numbers(tokens: list[Token], at: int) -> bool:
    return 0 < at < len(tokens) - 1 and tokens[at - 1].value is not None and tokens[at + 1].value is not None


def _is_acronym(text: str) -> bool:
    return len(text) > 1 and text.isupper() and text.isalpha()


def _drop_implied(content: list[str], places: list[int], *, is_conversion: bool) -> tuple[list[str], list[int]]:
    implied: set[str] = set(CONVERSION_WORDS) if is_conversion else set()
    if not ARITHMETIC.isdisjoint(content):
        implied |= ARITHMETIC_WORDS
    if sum(1 for word in content if word[0] != "@" and word not in WEAK_WORDS) > 1:
        implied |= WEAK_WORDS
    for word in content:
        implied |= _implied_by(word)
    kept = [(word, place) for word, place in zip(content, places, strict=True) if not _is_any_form(word, implied)]
    if not kept:
        return content, places
    return [word for word, _ in kept], [place for _, place in kept]


def _implied_by(word: str) -> frozenset[str]:
    return next((IMPLIED[form] for form in forms(word) if form in IMPLIED), frozenset())


def _is_any_form(word: str, of: set[str]) -> bool:
    return bool(of) and not of.isdisjoint(forms(word))


def _names(tokens: Sequence[Token]) -> frozenset[str]:
    cased = [token for token in tokens if token.text[:1].isalpha()]
    capitalised = [token for token in cased if token.text[:1].isupper()]
    if len(cased) > 2 and len(capitalised) > _LONGEST_TITLE * len(cased):  # noqa: PLR2004
        # A title, or shouting: the case of a word says nothing.
        return frozenset()
    return frozenset(token.word for token in capitalised if _is_name(token) and token.word not in UNITS)


def _is_name(token: Token) -> bool:
    text = token.text
    if len(text) > 1 and any(c.isupper() for c in text[1:]):
        return True
    return not token.initial and token.word not in FUNCTION_WORDS and token.word not in QUESTION_WORDS and text != "I"


def _negated(tokens: Sequence[Token]) -> tuple[str, ...]:
    negated = []
    for at, token in enumerate(tokens):
        if token.word in NEGATIONS:
            negated.append(next((t.word for t in tokens[at + 1 :] if t.word not in _NEVER_NEGATED), ""))
    return tuple(sorted(negated))


def _is_passive(words: Sequence[str]) -> bool:
    return "by" in words and not _BEING.isdisjoint(words[: words.index("by")])


def _asks_about(words: Sequence[str], asked_at: int | None) -> str | None:
    if asked_at is None or words[asked_at] not in ("who", "whom", "what", "which"):
        return None
    if not DO_FORMS.isdisjoint(words[asked_at:]):
        return "object"
    return "subject" if AUXILIARIES.isdisjoint(words) else None


def _times(words: Sequence[str]) -> frozenset[str]:
    """Return when it is, by the auxiliaries; by the verbs where there are none."""
    done = [at for at, word in enumerate(words) if _is_past_verb(word)]
    times = {TIMES[word] for word in words if word in TIMES}
    if any(word in ("has", "have") and any(at < d <= at + _FAR for d in done) for at, word in enumerate(words)):
        times.add("done")
    if done and AUXILIARIES.isdisjoint(words):
        times.add("past")
    return frozenset(times)


def _is_past_verb(word: str) -> bool:
    regular = word.endswith("ed") and len(word) > 4  # noqa: PLR2004
    return (regular or word in PAST_VERBS) and word not in _NOT_VERBS
