"""Cuts a text into words, quantities and symbols. Knows spelling, not meaning."""

import re
import unicodedata
from typing import NamedTuple

from cache.semantic.units import (
    CARDINALS,
    CASED_UNITS,
    MAGNITUDES,
    MULTIPLIERS,
    ORDINALS,
    SHORT_UNITS,
    UNITS,
    WORD_NUMBERS,
)

_TOKEN = re.compile(
    r"""(?P<url>https?://\S+)
    |(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])|\d+(?:\.\d+)*)
    |(?P<word>'(?:s|d|m|ll|re|ve)\b|[^\W\d][\w]*(?:[.'_][\w]+)*(?:\+\+|\#)?)
    |(?P<symbol>!=+|[-=<>+*/^|~@#$%&\\°→⇒\u00d7÷€£¥₹√≠≤≥]+)
    |(?P<end>[.?!;:\n]+)
    |(?P<other>\S)""",
    re.VERBOSE,
)
_NOT = re.compile(r"\b(ca|wo|sha)?(n't)\b|\b(\w+)n't\b", re.IGNORECASE)
_IRREGULAR_NOT = {"ca": "can", "wo": "will", "sha": "shall"}
_IS_AFTER = re.compile(r"\b(what|who|where|how|when|why|that|it|there|here|let|which)'s\b", re.IGNORECASE)
_RUN_TOGETHER = {"whats": "what is", "whos": "who is", "wheres": "where is", "hows": "how is", "cannot": "can not"}
_ORDINAL_SUFFIXES = frozenset({"st", "nd", "rd", "th"})


class Token(NamedTuple):
    """A piece of text. `word` is in lower case; `initial` says that it opens a sentence.

    A quantity has a `value`, a canonical decimal, and maybe a canonical `unit`; then `word` is the value.
    """

    text: str
    word: str
    initial: bool = False
    value: str | None = None
    unit: str | None = None


def tokenise(text: str) -> list[Token]:
    """Return the words, quantities and symbols of the text, in order, without its punctuation."""
    return _join_quantities(_cut(_spell_out(text)))


def _spell_out(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    # Digits of every script become the ones that numbers are compared in.
    if not text.isascii():
        text = "".join(str(unicodedata.digit(c)) if c.isdecimal() and not c.isascii() else c for c in text)
    return _NOT.sub(_split_not, _IS_AFTER.sub(r"\1 is", text)) if "'" in text else text


def _split_not(match: re.Match[str]) -> str:
    irregular, _, regular = match.groups()
    stem = _IRREGULAR_NOT[irregular.lower()] if irregular else (regular or "")
    return f"{stem} not"


def _cut(text: str) -> list[Token]:
    tokens: list[Token] = []
    initial = True
    last_end = -1
    for match in _TOKEN.finditer(text):
        kind, piece = match.lastgroup, match.group()
        if kind == "end":
            initial = True
            continue
        if kind == "number":
            tokens.append(Token(piece, piece.replace(",", ""), initial, value=piece.replace(",", "")))
        elif kind == "symbol":
            tokens.extend(_symbol(piece, text, match.start(), match.end()))
        elif kind == "other":
            if unicodedata.category(piece)[0] in "PZC":
                continue
            tokens.append(Token(piece, piece, initial))
        else:
            glued = match.start() == last_end and bool(tokens) and tokens[-1].value is not None
            tokens.extend(_words(piece, initial=initial, glued=glued))
        initial = False
        last_end = match.end()
    return tokens


def _words(piece: str, *, initial: bool, glued: bool) -> list[Token]:
    lower = piece.lower()
    if lower.endswith("'s") and lower != "'s":
        return [Token(piece[:-2], lower[:-2], initial), Token("'s", "'s")]
    if lower in _RUN_TOGETHER:
        return [Token(part, part, initial and not at) for at, part in enumerate(_RUN_TOGETHER[lower].split())]
    # A letter that touches a number belongs to it; the mark tells the joining step.
    return [Token(piece, lower, initial, unit="glued" if glued else None)]


def _symbol(piece: str, text: str, start: int, end: int) -> list[Token]:
    before, after = text[start - 1 : start], text[end : end + 1]
    if piece == "&":
        return [Token(piece, "and")]
    if piece == "-" and after.isdigit() and not (before.isalnum() or before == ")"):
        return [Token(piece, "minus")]  # a sign, which changes the number as the word does
    if piece in "-/" and not (before.isdigit() or after.isdigit() or (before.isspace() and after.isspace())):
        # A hyphen or a slash between words only separates them.
        return []
    return [Token(piece, piece)]


def _join_quantities(tokens: list[Token]) -> list[Token]:
    joined: list[Token] = []
    at = 0
    while at < len(tokens):
        value, used = _read_number(tokens, at)
        if value is None:
            token = tokens[at]
            joined.append(token if token.unit is None else token._replace(unit=None))
            at += 1
            continue
        initial, spelled = tokens[at].initial, tokens[at].text
        at += used
        value, unit, used = _read_unit(value, tokens, at)
        at += used
        if unit is None and joined and joined[-1].text in ("$", "€", "£", "¥"):
            unit = UNITS[joined.pop().text]
        joined.append(Token(spelled, value, initial, value=value, unit=unit))
    return joined


def _read_number(tokens: list[Token], at: int) -> tuple[str | None, int]:
    """Return the number that starts here and how many tokens it takes; None where none does."""
    token = tokens[at]
    if token.value is not None:
        following = tokens[at + 1] if at + 1 < len(tokens) else None
        if following is not None and following.unit == "glued" and following.word in _ORDINAL_SUFFIXES:
            return f"{token.value}th", 2
        if following is not None and following.word in MULTIPLIERS and token.value.isdecimal():
            return str(int(token.value) * MULTIPLIERS[following.word]), 2
        return token.value, 1
    if token.word in WORD_NUMBERS:
        return WORD_NUMBERS[token.word], 1
    if token.word in ORDINALS:
        return f"{ORDINALS[token.word]}th", 1
    return _read_cardinal(tokens, at) if token.word in CARDINALS else (None, 0)


def _read_cardinal(tokens: list[Token], at: int) -> tuple[str | None, int]:
    total = current = used = 0
    previous = None
    for token in tokens[at:]:
        word = token.word
        if word in CARDINALS:
            # "twenty one" goes on, "five six" is two numbers.
            if previous is not None and not (previous >= 20 and CARDINALS[word] < 10):  # noqa: PLR2004
                break
            previous = CARDINALS[word]
            current += previous
        elif word in MULTIPLIERS and used:
            scale = MULTIPLIERS[word]
            current = max(current, 1) * scale
            if scale > 100:  # noqa: PLR2004 - hundreds still take tens
                total, current = total + current, 0
            previous = None
        else:
            break
        used += 1
        if previous is None and word in MULTIPLIERS:
            previous = None
    return (str(total + current), used) if used else (None, 0)


def _read_unit(value: str, tokens: list[Token], at: int) -> tuple[str, str | None, int]:
    """Return the value, scaled by a magnitude that touches it, the unit that follows and how many tokens it takes."""
    if at >= len(tokens) or value.endswith("th"):
        return value, None, 0
    token = tokens[at]
    if token.word in ("degrees", "degree", "°", "deg") and at + 1 < len(tokens):
        unit = _unit_of(tokens[at + 1])
        return (value, unit, 2) if unit is not None else (value, "degree", 1)
    if token.unit == "glued" and token.word in MAGNITUDES and token.word != "m" and value.isdecimal():
        scaled = str(int(value) * MAGNITUDES[token.word])
        unit = _unit_of(tokens[at + 1]) if at + 1 < len(tokens) else None
        return scaled, unit, 1 if unit is None else 2
    if token.word == "in" and token.unit != "glued":
        return value, None, 0
    unit = _unit_of(token)
    return (value, unit, 1) if unit is not None else (value, None, 0)


def _unit_of(token: Token) -> str | None:
    return CASED_UNITS.get(token.text) or UNITS.get(token.word) or SHORT_UNITS.get(token.word)
