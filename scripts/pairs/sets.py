"""Reads sets of question pairs, in whatever of three shapes, and parts them in halves. Judges nothing.

The halves are told apart by a hash of the texts: what is tuned or trained on (`tune`) and what is only reported on
(`report`) never meet.
"""

import csv
import gzip
import io
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

SEED = 1


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, whether one answer serves both, and what kind of pair it is, where the set says so."""

    a: str
    b: str
    same: bool
    kind: str = ""

    @property
    def half(self) -> str:
        """Which half the pair is in; the same however its questions are ordered."""
        texts = "\n".join(sorted((self.a, self.b))).encode()
        return "tune" if blake2b(texts, digest_size=1).digest()[0] % 2 == 0 else "report"


def read_pairs(path: Path, *, sample: int = 0, half: str = "all") -> list[Pair]:
    """Return a set's pairs: all or one half, and at most `sample` of them (0: no limit), drawn by a fixed seed."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    readers = {"csv": _same_label, "json": _listed, "jsonl": _lines}
    if kind not in readers:
        raise ValueError(f"{path}: not a set of pairs; .csv, .json and .jsonl are read, also with .gz")
    pairs = [pair for pair in readers[kind](text) if half in ("all", pair.half)]
    return random.Random(SEED).sample(pairs, sample) if 0 < sample < len(pairs) else pairs


def _lines(text: str) -> list[Pair]:
    return [_pair(json.loads(line)) for line in text.splitlines() if line.strip()]


def _listed(text: str) -> list[Pair]:
    content = json.loads(text)
    rows = content["pairs"] if isinstance(content, dict) else content
    return [_pair(row) for row in _flat(rows)]


def _flat(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows themselves, where they come in groups of near-misses."""
    flat: list[dict[str, Any]] = []
    for row in rows:
        inner = row.get("pairs")
        flat += [row] if inner is None else [{"label": 0, "category": row.get("category", "")} | each for each in inner]
    return flat


def _pair(row: dict[str, Any]) -> Pair:
    label = row["shouldMatch"] if "shouldMatch" in row else row["label"]
    kind = row.get("test") or row.get("category") or row.get("kind") or ""
    return Pair(str(row["a"]), str(row["b"]), bool(int(label)), str(kind))


def _same_label(text: str) -> list[Pair]:
    """Pair each text with one of its own label and with one of another label that shares most of its words.

    For a classifier the label is the answer, so a pair of one label is one that a single answer serves.
    """
    rows = [(row["text"].strip(), row["category"]) for row in csv.DictReader(io.StringIO(text))]
    drawn = random.Random(SEED)
    by_label: dict[str, list[str]] = {}
    for words, label in rows:
        by_label.setdefault(label, []).append(words)
    bags = [frozenset(words.lower().split()) for words, _ in rows]
    pairs = []
    for at in sorted(drawn.sample(range(len(rows)), min(len(rows), 1500))):
        words, label = rows[at]
        mates = [each for each in by_label[label] if each != words]
        if mates:
            pairs.append(Pair(words, drawn.choice(mates), same=True, kind=label))
        other = _nearest_other(at, rows, bags)
        pairs.append(Pair(words, rows[other][0], same=False, kind=label))
    return pairs


def _nearest_other(at: int, rows: Sequence[tuple[str, str]], bags: Sequence[frozenset[str]]) -> int:
    own, label = bags[at], rows[at][1]
    others = (place for place, row in enumerate(rows) if row[1] != label)
    return max(others, key=lambda place: len(own & bags[place]) / len(own | bags[place]))
