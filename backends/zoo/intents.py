"""Puts the trained head of intents behind the built minilm: token ids to the probabilities of a question's intents.

The head is two affine maps with a ReLU between. It does not know how the head was trained.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import onnx

from backends.zoo.graph import Graph, vector
from backends.zoo.minilm import EMBEDDING

PROBABILITIES = "probabilities"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Head:
    """Weights from a vector of width D over H hidden units to L labels: [D, H], [H], [H, L], [L]."""

    rise: Floats
    rise_bias: Floats
    fall: Floats
    fall_bias: Floats

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read head.npz. Raises OSError or KeyError where the file or an array is missing."""
        with np.load(path) as arrays:
            return cls(*(arrays[name].astype(np.float32) for name in cls.__slots__))

    def save(self, path: Path) -> None:
        """Write head.npz in half precision."""
        np.savez_compressed(path, **{name: getattr(self, name).astype(np.float16) for name in self.__slots__})


def build(source: Path, encoder: Path, target: Path) -> None:
    """Make model.onnx, tokenizer.json, labels.txt and model.yaml in the directory `target`.

    `source` holds head.npz, labels.txt and model.yaml; `encoder` is the built directory of minilm. Raises OSError where
    a file is missing, ValueError where the head does not fit the labels.
    """
    head = Head.load(source / "head.npz")
    labels = (source / "labels.txt").read_text("utf-8").split()
    if head.fall_bias.size != len(labels):
        raise ValueError(f"{source}: head.npz tells {head.fall_bias.size} labels apart, labels.txt names {len(labels)}")
    model = onnx.load(encoder / "model.onnx")
    attach(model, head)
    onnx.save(model, target / "model.onnx")
    shutil.copyfile(encoder / "tokenizer.json", target / "tokenizer.json")
    for name in ("labels.txt", "model.yaml"):
        shutil.copyfile(source / name, target / name)


def attach(model: onnx.ModelProto, head: Head) -> None:
    """Replace the model's output, the vector, by the probabilities that the head makes of it."""
    graph = Graph()
    names = [graph.constant(f"head.{name}", getattr(head, name)) for name in head.__slots__]
    hidden = graph.node("Gemm", EMBEDDING, *names[:2], output="head.hidden")
    logits = graph.node("Gemm", graph.node("Relu", hidden, output="head.active"), *names[2:], output="head.logits")
    graph.node("Softmax", logits, output=PROBABILITIES, axis=-1)
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(graph.constants)
    del model.graph.output[:]
    model.graph.output.append(vector(PROBABILITIES, head.fall_bias.size))
