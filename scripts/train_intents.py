"""Train the head of intents on banking77 and write it to models/intents; `--evaluate` measures the built model instead.

Needs the built minilm (scripts/setup). A fifth of the training file is held out to judge the settings; then the head is
trained on all of it, and the test file is looked at once.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from backends.zoo.intents import Floats
from backends.zoo.intents_training import Labels, Schedule, accuracy, train

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "models" / "intents"
QUERIES = ROOT.parent / "shared" / "data" / "queries"
BATCH = 32
SEED = 77


class Model:
    """A built model directory, run in this process."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._session = onnxruntime.InferenceSession(directory / "model.onnx", providers=["CPUExecutionProvider"])

    def __call__(self, texts: list[str]) -> Floats:
        """Run texts and return the model's rows in the same order; texts of like length share a batch."""
        tokens = [np.array(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(texts)]
        order = np.argsort([len(ids) for ids in tokens])
        rows: list[npt.NDArray[np.float32]] = []
        for start in range(0, len(order), BATCH):
            chosen = [tokens[i] for i in order[start : start + BATCH]]
            rows.extend(self._session.run(None, padded(chosen))[0])
        return np.stack(rows)[np.argsort(order)]


def padded(rows: list[npt.NDArray[np.int64]]) -> dict[str, npt.NDArray[np.int64]]:
    """Return ids and mask, [rows, longest] each, with zeros on the right of the shorter rows."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = np.concatenate(rows)
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}


def read(path: Path) -> tuple[list[str], list[str]]:
    """Return the texts and the categories of a file of banking77."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["category"] for row in rows]


def numbered(categories: list[str], labels: list[str]) -> Labels:
    """Return the place of each category among the labels."""
    places = {label: i for i, label in enumerate(labels)}
    return np.array([places[category] for category in categories])


def train_head(queries: Path, models: Path) -> None:
    """Judge the settings on a held-out fifth, train on everything, save, and report on the test file."""
    embed = Model(models / "minilm")
    texts, categories = read(queries / "banking77-train.csv")
    labels = sorted(set(categories))
    vectors, truth = embed(texts), numbered(categories, labels)
    order = np.random.default_rng(SEED).permutation(len(truth))
    held, rest = np.split(order, [len(order) // 5])
    started = time.perf_counter()
    judged = train(vectors[rest], truth[rest], Schedule(), SEED)
    print(f"held-out fifth: {accuracy(judged, vectors[held], truth[held]):.2%} ({time.perf_counter() - started:.0f} s)")
    head = train(vectors, truth, Schedule(), SEED)
    head.save(HOME / "head.npz")
    (HOME / "labels.txt").write_text("\n".join(labels) + "\n")
    texts, categories = read(queries / "banking77-test.csv")
    print(f"test file: {accuracy(head, embed(texts), numbered(categories, labels)):.2%}")


def evaluate(queries: Path, models: Path) -> None:
    """Print the accuracy of the built model on the test file."""
    texts, categories = read(queries / "banking77-test.csv")
    labels = (models / "intents" / "labels.txt").read_text().split()
    found = Model(models / "intents")(texts).argmax(axis=1)
    print(f"intents on {len(texts)} questions: {(found == numbered(categories, labels)).mean():.2%} right")


def main() -> None:
    """Read the arguments and do the one or the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=Path, default=QUERIES, help="directory of banking77-train.csv and -test.csv")
    parser.add_argument("--models", type=Path, default=ROOT / "var" / "models", help="directory of the built models")
    parser.add_argument("--evaluate", action="store_true", help="measure the built model")
    options = parser.parse_args()
    (evaluate if options.evaluate else train_head)(options.queries, options.models)


if __name__ == "__main__":
    main()
