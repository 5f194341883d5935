"""Gathers what a verifier is trained on: pairs, with minilm's states of their texts. Knows no network."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from scripts.pairs.grammar import Grammar
from scripts.pairs.hidden import Hidden, compute
from scripts.pairs.lessons import Lessons
from scripts.pairs.sets import Pair, read_pairs

# What of checklist is never trained on, not even its tune half: whether the rest generalises shows there.
HELD_OUT = ("traditional SRL", "Order does not matter", "Who do X think", "A or B", "A and / or B", "a {nationality}")
HELD_OUT_IN_TIME = ("Is person X", "What was person's life", "Do you have to X", "Is it {ok, dangerous, ...} to {smoke")
_OF_EACH_TEST = 220
_BANKING_TEXTS, _NEIGHBOURS, _NEAR_SAME, _NEAR_OTHER = 5000, 6, 0.86, 0.6


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


def from_grammar(grammar: Grammar, rounds: int, seed: int, minilm: Path) -> Gathered:
    """Draw lessons from the hand-written questions."""
    return _gather([Pair(each.a, each.b, each.same) for each in Lessons(grammar, seed).draw(rounds)], minilm)


def from_sets(data: Path, minilm: Path) -> Gathered | None:
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


def from_banking(data: Path, minilm: Path) -> Gathered | None:
    """Return real questions: very near ones of one intent as the same, near ones of two intents as not."""
    path = data / "queries" / "banking77-train.csv"
    if not path.exists():
        print(f"not trained on {path}: it is missing")
        return None
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]
    Random(5).shuffle(rows)
    rows = rows[:_BANKING_TEXTS]
    hidden = compute(minilm, [text for text, _ in rows])
    return _as_gathered(hidden, _neighbours(hidden.vectors, [label for _, label in rows]))


def _neighbours(vectors: NDArray[np.float32], labels: Sequence[str]) -> list[tuple[int, int, bool]]:
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    found: dict[tuple[int, int], bool] = {}
    for one, row in enumerate(cosines):
        for other in map(int, np.argsort(-row)[:_NEIGHBOURS]):
            same = labels[one] == labels[other]
            if row[other] > (_NEAR_SAME if same else _NEAR_OTHER):
                found[min(one, other), max(one, other)] = same
    return [(a, b, same) for (a, b), same in found.items()]


def _gather(pairs: Sequence[Pair], minilm: Path) -> Gathered:
    hidden = compute(minilm, sorted({text for pair in pairs for text in (pair.a, pair.b)}))
    return _as_gathered(hidden, [(hidden.places[pair.a], hidden.places[pair.b], pair.same) for pair in pairs])


def _as_gathered(hidden: Hidden, pairs: Sequence[tuple[int, int, bool]]) -> Gathered:
    a, b = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    near = (hidden.vectors[a] * hidden.vectors[b]).sum(1).astype(np.float32)
    return Gathered(hidden, a, b, np.array([pair[2] for pair in pairs], bool), near)
