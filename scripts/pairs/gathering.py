"""Gathers what a verifier is trained on: pairs, with minilm's states of their texts. Knows no network."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from scripts.pairs.grammar import Grammar
from scripts.pairs.hidden import Hidden, Minilm
from scripts.pairs.lessons import Lessons
from scripts.pairs.sets import Pair, read_pairs

# What of checklist is never trained on, not even its tune half: whether the rest generalises shows there.
HELD_OUT = ("traditional SRL", "Order does not matter", "Who do X think", "A or B", "A and / or B", "a {nationality}")
HELD_OUT_IN_TIME = ("Is person X", "What was person's life", "Do you have to X", "Is it {ok, dangerous, ...} to {smoke")
_OF_EACH_TEST = 220
_NEIGHBOURS, _NEAR_SAME, _NEAR_OTHER, _BLOCK = 8, 0.75, 0.6, 256


@dataclass(frozen=True, slots=True)
class Gathered:
    """Pairs as places of their texts in `hidden`, whether one answer serves both, and their cosine."""

    hidden: Hidden
    a: NDArray[np.int64]
    b: NDArray[np.int64]
    same: NDArray[np.bool_]
    near: NDArray[np.float32]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many tokens the two texts of each pair have."""
        sizes = np.diff(self.hidden.starts)
        total: NDArray[np.int64] = sizes[self.a] + sizes[self.b]
        return total


def from_grammar(grammar: Grammar, rounds: int, seed: int, minilm: Minilm) -> Gathered:
    """Draw lessons from the hand-written questions."""
    return _gather([Pair(each.a, each.b, each.same) for each in Lessons(grammar, seed).draw(rounds)], minilm)


def from_sets(data: Path, minilm: Minilm) -> Gathered | None:
    """Return the tune halves: of kmemo three times, and of each test of checklist that is not held out a sample."""
    kmemo, checklist = data / "pairs" / "kmemo-near-miss.json", data / "pairs" / "checklist-qqp-mft.jsonl.gz"
    if not kmemo.exists() or not checklist.exists():
        print(f"not trained on the sets of {data / 'pairs'}: they are missing")
        return None
    tests: dict[str, list[Pair]] = {}
    for pair in read_pairs(checklist, half="tune"):
        if not pair.kind.startswith((*HELD_OUT, *HELD_OUT_IN_TIME)):
            tests.setdefault(pair.kind, []).append(pair)
    drawn = Random(5)
    chosen = [pair for test in tests.values() for pair in drawn.sample(test, min(len(test), _OF_EACH_TEST))]
    return _gather([*chosen, *read_pairs(kmemo, half="tune") * 3], minilm)


def from_banking(data: Path, minilm: Minilm) -> Gathered | None:
    """Return real questions: near ones of one intent as the same, near ones of two intents as not.

    One of another intent is near by its vector, or has more words in common than all others.
    """
    path = data / "queries" / "banking77-train.csv"
    if not path.exists():
        print(f"not trained on {path}: it is missing")
        return None
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]
    hidden = minilm.compute([text for text, _ in rows])
    labels = [label for _, label in rows]
    found = _neighbours(hidden.vectors, labels) | _look_alikes([text for text, _ in rows], labels)
    return _as_gathered(hidden, [(a, b, same) for (a, b), same in found.items()])


def _neighbours(vectors: NDArray[np.float32], labels: Sequence[str]) -> dict[tuple[int, int], bool]:
    found: dict[tuple[int, int], bool] = {}
    for one, vector in enumerate(vectors):
        row = vectors @ vector
        row[one] = -1
        for other in map(int, np.argsort(-row)[:_NEIGHBOURS]):
            same = labels[one] == labels[other]
            if row[other] > (_NEAR_SAME if same else _NEAR_OTHER):
                found[min(one, other), max(one, other)] = same
    return found


def _look_alikes(texts: Sequence[str], labels: Sequence[str]) -> dict[tuple[int, int], bool]:
    """Return each text with the one of another label that shares most of its words."""
    places: dict[str, int] = {}
    bags = [{places.setdefault(word, len(places)) for word in text.lower().split()} for text in texts]
    has = np.zeros((len(texts), len(places)), np.float32)
    for row, bag in zip(has, bags, strict=True):
        row[list(bag)] = 1
    sizes, kinds = has.sum(1), np.array(labels)
    found: dict[tuple[int, int], bool] = {}
    for start in range(0, len(texts), _BLOCK):
        some = slice(start, start + _BLOCK)
        shared = has[some] @ has.T
        likeness = np.where(kinds[some, None] == kinds, -1, shared / (sizes[some, None] + sizes - shared))
        for one, other in enumerate(map(int, likeness.argmax(1)), start):
            found[min(one, other), max(one, other)] = False
    return found


def _gather(pairs: Sequence[Pair], minilm: Minilm) -> Gathered:
    hidden = minilm.compute(sorted({text for pair in pairs for text in (pair.a, pair.b)}))
    return _as_gathered(hidden, [(hidden.places[pair.a], hidden.places[pair.b], pair.same) for pair in pairs])


def _as_gathered(hidden: Hidden, pairs: Sequence[tuple[int, int, bool]]) -> Gathered:
    a, b = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    near = (hidden.vectors[a] * hidden.vectors[b]).sum(1).astype(np.float32)
    return Gathered(hidden, a, b, np.array([pair[2] for pair in pairs], bool), near)
