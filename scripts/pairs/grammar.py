"""Reads the hand-made questions of scripts/data/verifier and words them. Draws nothing by itself: all chance is given.

The files: slots (what a slot may hold), families, roles and statements (blocks of lines that say different things,
each in several wordings), clusters (one question in several wordings, and what looks like it), phrases and things
(what stands in the frames of doing and being), patterns (families in which even the verbs are drawn) and words (what).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Self

SLOT = re.compile(r"\{(([a-z]+)\d*)\}")
_WORD = re.compile(r"<([a-z]+)(\d*)(?:\.(\d|\*))?(?::(\d))?>")
# Lists of words of which no two entries mean the same.
TELLING = ("verb", "aspect", "service", "item", "wrong", "stuff", "good")
_ALIKE = re.compile(r"~(\d*) ")

_IRREGULAR = {"lie": "lying", "die": "dying", "tie": "tying", "be": "being", "see": "seeing", "quit": "quitting"}
_VOWELS = "aeiou"


@dataclass(frozen=True, slots=True)
class Line:
    """One question or statement in several wordings.

    `alike` has the numbers of slots that may change places: none where it is None, and all where it is empty.
    """

    wordings: tuple[str, ...]
    alike: str | None = None

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the slots, in the order of the first wording."""
        return tuple(dict.fromkeys(found[1] for wording in self.wordings for found in SLOT.finditer(wording)))

    def is_symmetric(self, x: str, y: str) -> bool:
        """Whether the question stays the same where two slots change places."""
        return self.alike is not None and (not self.alike or (x[-1] in self.alike and y[-1] in self.alike))


@dataclass(frozen=True, slots=True)
class Cluster:
    """Wordings of one thing, and things that look like it and are none of it."""

    wordings: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grammar:
    """All that was written by hand."""

    slots: Mapping[str, tuple[str, ...]]
    families: tuple[tuple[Line, ...], ...]
    clusters: tuple[Cluster, ...]
    phrases: tuple[Cluster, ...]
    things: tuple[Cluster, ...]
    doing: tuple[Line, ...]
    being: tuple[Line, ...]
    patterns: tuple[tuple[Line, ...], ...]
    words: Mapping[str, tuple[tuple[str, ...], ...]]

    def part(self, place: int, of: int, *, inside: bool) -> Self:
        """Return the grammar with only each block at that place of so many, or with all others; frames stay."""
        names = ("families", "clusters", "phrases", "things", "patterns")
        kept = {
            name: tuple(each for at, each in enumerate(getattr(self, name)) if (at % of == place) is inside)
            for name in names
        }
        return replace(self, **kept)


def load(directory: Path) -> Grammar:
    """Read the files. Raises OSError where one is missing and ValueError where a slot is unknown."""
    texts = {
        name: _content(directory / f"{name}.txt") for name in ("slots", "families", "roles", "statements", "patterns")
    }
    slots = _lists(texts["slots"])
    words = {
        name: tuple(tuple(form.strip() for form in entry.split(",")) for entry in entries)
        for name, entries in _lists(_content(directory / "words.txt")).items()
    }
    families = tuple(block for name in ("families", "statements", "roles") for block in _blocks(texts[name]))
    patterns = tuple(_blocks(texts["patterns"]))
    _check([wording for block in (*families, *patterns) for line in block for wording in line.wordings], slots, words)
    _check([form.replace("#", "") for each in words.values() for entry in each for form in entry], slots, words)
    clusters, phrases, things = (
        tuple(_cluster(line, mark) for line in _content(directory / f"{name}.txt") if line)
        for name, mark in (("clusters", "|"), ("phrases", "="), ("things", "="))
    )
    doing, being = (
        tuple(Line(tuple(line.split(" | "))) for line in _content(directory / f"{name}.txt") if line)
        for name in ("doing", "being")
    )
    return Grammar(slots, families, clusters, phrases, things, doing, being, patterns, words)


def expanded(block: Sequence[Line], words: Mapping[str, Sequence[tuple[str, ...]]], rng: Random) -> tuple[Line, ...]:
    """Return a block of patterns as one of lines: of each list of words one entry is drawn for the whole block.

    Some lines are there twice, the second time with another entry that makes another question of them.
    """
    drawn: dict[str, tuple[str, ...]] = {}

    def word(found: re.Match[str]) -> str:
        name, number, form, slot = found.groups()
        if name + number not in drawn:
            taken = {entry for key, entry in drawn.items() if key.rstrip("0123456789") == name}
            drawn[name + number] = rng.choice([each for each in words[name] if each not in taken])
        forms = drawn[name + number]
        chosen = rng.choice(forms) if form == "*" else forms[int(form or 1) - 1]
        return chosen.replace("#", slot or "")

    def made(lines: Sequence[Line]) -> list[Line]:
        return [replace(line, wordings=tuple(_WORD.sub(word, each) for each in line.wordings)) for line in lines]

    lines = made(block)
    telling = [key for key in drawn if key.rstrip("0123456789") in TELLING]
    if telling:
        key = rng.choice(telling)
        former = drawn.pop(key)
        name = key.rstrip("0123456789")
        taken = {former, *(entry for other, entry in drawn.items() if other.rstrip("0123456789") == name)}
        drawn[key] = rng.choice([each for each in words[name] if each not in taken])
        having = [line for line in block if f"<{key}" in line.wordings[0]]
        lines += made(rng.sample(having, min(2, len(having))))
    return tuple(lines)


def fill(wording: str, values: Mapping[str, str]) -> str:
    """Put values in the slots, with a capital at the start."""
    text = SLOT.sub(lambda found: values[found[1]], wording)
    return text[:1].upper() + text[1:]


def draw_values(names: Sequence[str], slots: Mapping[str, Sequence[str]], rng: Random) -> dict[str, str]:
    """Draw a value for each slot; slots of one kind get different ones."""
    values: dict[str, str] = {}
    for name in names:
        kind = name.rstrip("0123456789")
        taken = {value for other, value in values.items() if other.rstrip("0123456789") == kind}
        values[name] = rng.choice([each for each in slots[kind] if each not in taken])
    return values


def gerund(phrase: str) -> str:
    """Return the phrase with its first word in -ing: lose weight, losing weight."""
    verb, space, rest = phrase.partition(" ")
    if verb in _IRREGULAR:
        made = _IRREGULAR[verb]
    elif verb.endswith("e") and not verb.endswith(("ee", "ye", "oe")):
        made = verb[:-1] + "ing"
    elif (
        len(verb) > 2
        and verb[-1] not in "wxyaeiou"
        and verb[-2] in _VOWELS
        and verb[-3] not in _VOWELS
        and _short(verb)
    ):
        made = verb + verb[-1] + "ing"
    else:
        made = verb + "ing"
    return made + space + rest


def framed(frame: str, phrase: str) -> str:
    """Put a phrase or a thing in a frame."""
    text = frame.replace("{doing}", gerund(phrase)).replace("{do}", phrase).replace("{it}", phrase)
    return text[:1].upper() + text[1:]


def _short(verb: str) -> bool:
    return sum(letter in _VOWELS for letter in verb) == 1


def _content(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]


def _lists(lines: Sequence[str]) -> dict[str, tuple[str, ...]]:
    return {
        name: tuple(value.strip() for value in values.split(";"))
        for name, _, values in (line.partition(":") for line in lines if line)
    }


def _check(texts: Sequence[str], slots: Mapping[str, object], words: Mapping[str, object]) -> None:
    for text in texts:
        unknown = {found[2] for found in SLOT.finditer(text)} - slots.keys()
        unknown |= {found[1] for found in _WORD.finditer(text)} - words.keys()
        if unknown:
            raise ValueError(f"{text}: nothing is called {', '.join(sorted(unknown))}")


def _blocks(lines: Sequence[str]) -> Iterator[tuple[Line, ...]]:
    block: list[Line] = []
    for line in (*lines, ""):
        if line:
            alike = _ALIKE.match(line)
            wordings = tuple(part.strip() for part in line[alike.end() if alike else 0 :].split(" | "))
            block.append(Line(wordings, alike[1] if alike else None))
        elif block:
            yield tuple(block)
            block = []


def _cluster(line: str, mark: str) -> Cluster:
    wordings, *others = line.split(" ! ")
    return Cluster(tuple(part.strip() for part in wordings.split(f" {mark} ")), tuple(each.strip() for each in others))
