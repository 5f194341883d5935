"""The head of intents, trained with numpy and put behind an encoder, and the built model on real questions."""

import csv
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tokenizers import Tokenizer

from backends.zoo import intents
from backends.zoo.graph import Graph
from backends.zoo.intents import Head
from backends.zoo.intents_training import Schedule, accuracy, train

ROOT = Path(__file__).parent.parent
DIRECTORY = ROOT / "var" / "models" / "intents"
QUESTIONS = ROOT.parent / "shared" / "data" / "queries" / "banking77-test.csv"
WIDTH = 4


def a_head(labels: int = 3) -> Head:
    """Return a head with five hidden units and weights that half precision holds exactly."""
    numbers = np.random.default_rng(1)
    shapes = [(WIDTH, 5), (5,), (5, labels), (labels,)]
    return Head(*(numbers.integers(-8, 8, shape).astype(np.float32) / 8 for shape in shapes))


def an_encoder(directory: Path) -> Path:
    """Write a model directory whose vector is the first four ids of a row."""
    graph = Graph()
    start, end, axis = (graph.constant(name, np.array([i])) for name, i in (("start", 0), ("end", WIDTH), ("axis", 1)))
    ids = graph.node("Slice", "input_ids", start, end, axis, output="first")
    graph.node("Cast", ids, output="embedding", to=onnx.TensorProto.FLOAT)
    model = graph.model("encoder", inputs=("input_ids", "attention_mask"), output="embedding", width=WIDTH)
    directory.mkdir()
    onnx.save(model, directory / "model.onnx")
    (directory / "tokenizer.json").write_text("{}")
    return directory


def a_source(directory: Path, head: Head, labels: str) -> Path:
    """Write the committed parts of a classifier."""
    directory.mkdir()
    head.save(directory / "head.npz")
    (directory / "labels.txt").write_text(labels)
    (directory / "model.yaml").write_text("task: predict\n")
    return directory


def loaded(directory: Path) -> onnxruntime.InferenceSession:
    """Load a built model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(directory / "model.onnx", options, providers=["CPUExecutionProvider"])


def test_the_graph_gives_the_probabilities_of_the_head(tmp_path):
    """The one output is the soft-max of the head over the encoder's vector, and the directory is complete."""
    head, target = a_head(), tmp_path / "target"
    target.mkdir()
    ids = np.array([[1, 2, 3, 4], [-1, 0, 2, 1]])

    intents.build(a_source(tmp_path / "source", head, "a\nb\nc\n"), an_encoder(tmp_path / "encoder"), target)
    (found,) = loaded(target).run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})

    logits = np.maximum(ids @ head.rise + head.rise_bias, 0) @ head.fall + head.fall_bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found == pytest.approx(expected, abs=1e-6)
    assert {path.name for path in target.iterdir()} == {"model.onnx", "tokenizer.json", "labels.txt", "model.yaml"}


def test_labels_that_do_not_fit_the_head_are_refused(tmp_path):
    """A head and a list of labels from different trainings never make a model."""
    source = a_source(tmp_path / "source", a_head(labels=3), "a\nb\n")

    with pytest.raises(ValueError, match=r"3 labels apart, labels\.txt names 2"):
        intents.build(source, an_encoder(tmp_path / "encoder"), tmp_path)


def test_a_head_survives_its_file(tmp_path):
    """Half precision is enough for what it holds exactly."""
    head = a_head()
    head.save(tmp_path / "head.npz")

    read = Head.load(tmp_path / "head.npz")

    assert all(np.array_equal(getattr(read, name), getattr(head, name)) for name in Head.__slots__)
    assert read.rise.dtype == np.float32


def test_training_tells_clusters_apart_that_no_line_does():
    """The members, folded into one head, learn an exclusive or."""
    numbers = np.random.default_rng(2)
    corners = numbers.integers(0, 2, (512, 2))
    vectors = ((corners * 2 - 1) * 0.05 + numbers.normal(0, 0.01, (512, 2))).astype(np.float32)
    labels = corners[:, 0] ^ corners[:, 1]

    head = train(vectors, labels, Schedule(members=2, hidden=16, epochs=20, batch=32, rate=0.02, dropout=0.1), seed=3)

    assert head.rise.shape == (2, 32)
    assert accuracy(head, vectors, labels) > 0.98


def test_training_is_repeatable():
    """The same seed gives the same head."""
    vectors = np.random.default_rng(4).normal(0, 0.05, (64, 3)).astype(np.float32)
    labels = np.arange(64) % 2
    schedule = Schedule(hidden=4, epochs=2, batch=16)

    heads = [train(vectors, labels, schedule, seed) for seed in (5, 5, 6)]

    assert np.array_equal(heads[0].rise, heads[1].rise)
    assert not np.array_equal(heads[0].rise, heads[2].rise)


def test_the_built_model_knows_the_intents_of_real_questions():
    """Of every 20th question of the test file, 88 % and more get their intent."""
    if not (DIRECTORY / "model.onnx").exists():
        pytest.skip("var/models/intents is missing: run scripts/setup")
    if not QUESTIONS.exists():
        pytest.skip("banking77-test.csv is missing")
    with QUESTIONS.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::20]
    labels = (DIRECTORY / "labels.txt").read_text().split()
    tokenizer, session = Tokenizer.from_file(str(DIRECTORY / "tokenizer.json")), loaded(DIRECTORY)

    found = []
    for row in rows:
        ids = np.array([tokenizer.encode(row["text"]).ids])
        (probabilities,) = session.run(["probabilities"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        assert probabilities.sum() == pytest.approx(1, abs=1e-5)
        found.append(labels[probabilities.argmax()])

    assert np.mean([label == row["category"] for label, row in zip(found, rows, strict=True)]) >= 0.88
