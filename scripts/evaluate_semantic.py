#!/usr/bin/env python
"""Measures threshold and guards of the semantic cache: served where one answer fits both questions, and where not.

Every set of pairs is split in halves by a hash of its texts. Lists and threshold are chosen on the tune half; figures
are reported on the other. `--half tune` also prints a grid of thresholds, and the pairs that went wrong.
"""

import argparse
import gzip
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from cache.semantic import DEFAULT_THRESHOLD
from cache.semantic.guards import find_veto

ROOT = Path(__file__).resolve().parent.parent
GRID = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
CHECKLIST_SAMPLE = 4000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, and whether one answer serves both."""

    a: str
    b: str
    same: bool

    @property
    def half(self) -> str:
        """Which half the pair is in; the same however its questions are ordered."""
        texts = "\n".join(sorted((self.a, self.b))).encode()
        return "tune" if blake2b(texts, digest_size=1).digest()[0] % 2 == 0 else "report"


@dataclass(frozen=True, slots=True)
class Judged:
    """A pair with its cosine similarity and the guard that vetoes it, if one does."""

    pair: Pair
    similarity: float
    guard: str | None

    def is_served(self, threshold: float) -> bool:
        """Whether the cache would answer one question with the other's answer."""
        return self.similarity >= threshold and self.guard is None


class Embedder:
    """minilm in this process: texts to normalised vectors."""

    def __init__(self, directory: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            directory / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.enable_truncation(256)
        self._tokenizer.enable_padding()

    def embed(self, texts: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Return the vector of each text, short texts first so that little is padded."""
        ordered = sorted(set(texts), key=len)
        vectors: dict[str, NDArray[np.float32]] = {}
        for at in range(0, len(ordered), 64):
            batch = ordered[at : at + 64]
            encoded = self._tokenizer.encode_batch(batch)
            ids = np.array([e.ids for e in encoded], dtype=np.int64)
            mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
            (rows,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
            vectors.update(zip(batch, rows, strict=True))
        return vectors


def read_sets(data: Path, replays: list[Path]) -> Iterator[tuple[str, list[Pair]]]:
    """Yield the sets that are on this machine, by name; say which are not."""
    readers = {
        "kmemo-near-miss.json": lambda text: [
            Pair(row["a"], row["b"], bool(row["shouldMatch"])) for row in json.loads(text)["pairs"]
        ],
        "finance-adversarial.json": lambda text: [
            Pair(row["a"], row["b"], False) for trap in json.loads(text) for row in trap["pairs"]
        ],
        "checklist-qqp-mft.jsonl.gz": lambda text: random.Random(1).sample(
            [Pair(row["a"], row["b"], bool(row["label"])) for row in read_lines(text)], CHECKLIST_SAMPLE
        ),
    }
    for name, reader in readers.items():
        path = data / "pairs" / name
        if not path.exists():
            print(f"{name}: not measured, {path} is missing")
            continue
        raw = path.read_bytes()
        yield name, reader((gzip.decompress(raw) if path.suffix == ".gz" else raw).decode())
    for path in replays:
        yield path.name, pair_all(read_lines(path.read_text()))


def read_lines(text: str) -> list[dict[str, Any]]:
    """Return one JSON value a line."""
    return [json.loads(line) for line in text.splitlines()]


def pair_all(questions: list[dict[str, Any]]) -> list[Pair]:
    """Return every pair of different questions; the truth is whether their answers are equal."""
    answers = {row["question"]: row["answer"] for row in questions}
    return [Pair(a, b, answers[a] == answers[b]) for a, b in combinations(answers, 2)]


def judge(pairs: list[Pair], embedder: Embedder) -> list[Judged]:
    """Measure every pair by the model and the guards."""
    vectors = embedder.embed(text for pair in pairs for text in (pair.a, pair.b))
    judged = []
    for pair in pairs:
        veto = find_veto(pair.a, pair.b)
        score = float(vectors[pair.a] @ vectors[pair.b])
        judged.append(Judged(pair, score, None if veto is None else f"{veto.guard}: {veto.reason}"))
    return judged


def report(name: str, judged: list[Judged], threshold: float) -> None:
    """Print one set at one threshold: served of those that match, served of those that do not, and who stopped them."""
    same, other = ([j for j in judged if j.pair.same is truth] for truth in (True, False))
    reached = [j for j in other if j.similarity >= threshold]
    wrong = [j for j in reached if j.guard is None]
    served = [j for j in same if j.is_served(threshold)]
    share = f"{len(served) / len(same):.1%}" if same else "-"
    print(
        f"{name} at {threshold:.2f}: matching pairs served {len(served)} of {len(same)} ({share}); "
        f"others served {len(wrong)} of {len(other)}, of {len(reached)} that reach the threshold"
    )
    stopped = Counter((j.guard or "").partition(":")[0] for j in reached if j.guard)
    lost = Counter((j.guard or "").partition(":")[0] for j in same if j.similarity >= threshold and j.guard)
    low = sum(j.similarity < threshold for j in same)
    print(f"    others stopped by guard: {dict(stopped.most_common())}")
    print(f"    matching pairs lost to the threshold: {low}; to guards: {dict(lost.most_common())}")


def show_errors(judged: list[Judged], threshold: float) -> None:
    """Print what was served wrongly, and the matching pairs that were not served."""
    for j in sorted(judged, key=lambda j: -j.similarity):
        if j.pair.same != j.is_served(threshold):
            kind = "LOST " if j.pair.same else "WRONG"
            print(f"    {kind} {j.similarity:.3f} {j.pair.a} | {j.pair.b} | {j.guard or ''}")


def main() -> None:
    """Read the sets, judge one half of each, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="where pairs/ lies")
    parser.add_argument("--model", type=Path, default=ROOT / "var" / "models" / "minilm", help="directory of minilm")
    parser.add_argument("--half", choices=["tune", "report"], default="report", help="which half of the pairs")
    parser.add_argument("--threshold", type=float, default=DEFAULT_THRESHOLD, help="cosine similarity")
    parser.add_argument(
        "--replay", type=Path, nargs="*", default=[], help="files of questions with answers, used whole"
    )
    options = parser.parse_args()
    embedder = Embedder(options.model)
    for name, pairs in read_sets(options.data, options.replay):
        chosen = pairs if name.startswith("replay") else [pair for pair in pairs if pair.half == options.half]
        judged = judge(chosen, embedder)
        report(name, judged, options.threshold)
        if options.half == "tune":
            for threshold in GRID:
                report(name, judged, threshold)
            show_errors(judged, options.threshold)


if __name__ == "__main__":
    main()
