"""Reads the hand-made questions of scripts/data/verifier and words them. Draws nothing by itself: all chance is given.

The files: slots (what a slot may hold), families, roles and statements (blocks of lines that say different things,
each in several wordings), clusters (one question in several wordings, and what looks like it), phrases and things
(what stands in the frames of doing and being).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Self

SLOT = re.compile(r"\{(([a-z]+)\d*)\}")

_IRREGULAR = {"lie": "lying", "die": "dying", "tie": "tying", "be": "being", "see": "seeing", "quit": "quitting"}
_VOWELS = "aeiou"


@dataclass(frozen=True, slots=True)
class Line:
    """One question or statement in several wordings; in a symmetric one, slots of one kind may change places."""

    wordings: tuple[str, ...]
    symmetric: bool = False

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the slots, in the order of the first wording."""
        return tuple(dict.fromkeys(found[1] for wording in self.wordings for found in SLOT.finditer(wording)))


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

    def part(self, place: int, of: int, *, inside: bool) -> Self:
        """Return the grammar with only each block at that place of so many, or with all others; frames stay."""
        names = ("families", "clusters", "phrases", "things")
        kept = {
            name: tuple(each for at, each in enumerate(getattr(self, name)) if (at % of == place) is inside)
            for name in names
        }
        return replace(self, **kept)


def load(directory: Path) -> Grammar:
    """Read the files. Raises OSError where one is missing and ValueError where a slot is unknown."""
    texts = {name: _content(directory / f"{name}.txt") for name in ("slots", "families", "roles", "statements")}
    slots = {
        name: tuple(value.strip() for value in values.split(";"))
        for name, _, values in (line.partition(":") for line in texts["slots"] if line)
    }
    families = tuple(block for name in ("families", "statements", "roles") for block in _blocks(texts[name]))
    for line in (line for block in families for line in block):
        unknown = {found[2] for wording in line.wordings for found in SLOT.finditer(wording)} - slots.keys()
        if unknown:
            raise ValueError(f"{line.wordings[0]}: no slot is called {', '.join(sorted(unknown))}")
    clusters, phrases, things = (
        tuple(_cluster(line, mark) for line in _content(directory / f"{name}.txt") if line)
        for name, mark in (("clusters", "|"), ("phrases", "="), ("things", "="))
    )
    doing, being = (
        tuple(Line(tuple(line.split(" | "))) for line in _content(directory / f"{name}.txt") if line)
        for name in ("doing", "being")
    )
    return Grammar(slots, families, clusters, phrases, things, doing, being)


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


def _blocks(lines: Sequence[str]) -> Iterator[tuple[Line, ...]]:
    block: list[Line] = []
    for line in (*lines, ""):
        if line:
            block.append(
                Line(tuple(part.strip() for part in line.removeprefix("~ ").split(" | ")), line.startswith("~ "))
            )
        elif block:
            yield tuple(block)
            block = []


def _cluster(line: str, mark: str) -> Cluster:
    wordings, *others = line.split(" ! ")
    return Cluster(tuple(part.strip() for part in wordings.split(f" {mark} ")), tuple(each.strip() for each in others))
