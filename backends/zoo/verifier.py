"""Builds the graph of the pair verifier: token vectors of two questions to the confidence that one answer serves both.

Each token is aligned with those of the other text and compared with what it is aligned to; two small transformer layers
over both texts weigh what was found. Exchanging the texts changes nothing. Training is scripts/train_verifier.py's
business, and the token vectors come from minilm's graph, in int8.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from backends.zoo.graph import Graph

Array = npt.NDArray[np.float32]
CONFIDENCE = "confidence"
TOKEN_SCALE = 16.0
HEADS = 4
MAX_TOKENS = 64
_FAR = 8
_MASKED = np.float32(-1e4)
_EPSILON = 1e-5


def load(path: Path) -> dict[str, Array]:
    """Read weights.npz. Raises OSError where it is missing."""
    with np.load(path) as arrays:
        return {name: arrays[name].astype(np.float32) for name in arrays.files}


def build(source: Path, target: Path) -> None:
    """Make model.onnx and model.yaml in `target`; `source` has weights.npz and model.yaml."""
    model = _Verifier(load(source / "weights.npz")).model()
    onnx.checker.check_model(model)
    onnx.save(model, target / "model.onnx")
    shutil.copyfile(source / "model.yaml", target / "model.yaml")


class _Verifier:
    """The graph under construction; every method adds nodes and returns the name of what they compute."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self._weights = weights
        self._width = weights["q.weight"].shape[0]
        self._graph = Graph()
        self._made = 0

    def model(self) -> onnx.ModelProto:
        places = self._places()
        x = self._joined("vectors", lambda name: self._op("Mul", self._float(name), self._value(1 / TOKEN_SCALE)))
        ids = self._joined("ids", lambda name: name)
        self._read_pair(ids, places)
        y = self._compared(x, places)
        for layer in range(sum(name.endswith(".qkv.weight") for name in self._weights)):
            y = self._layer(f"blocks.{layer}", y)
        self._decide(y)
        pairs, tokens = "pairs", self._width
        inputs = [
            helper.make_tensor_value_info("asked_vectors", TensorProto.INT8, [pairs, "asked_tokens", tokens]),
            helper.make_tensor_value_info("asked_ids", TensorProto.INT32, [pairs, "asked_tokens"]),
            helper.make_tensor_value_info("stored_vectors", TensorProto.INT8, [pairs, "stored_tokens", tokens]),
            helper.make_tensor_value_info("stored_ids", TensorProto.INT32, [pairs, "stored_tokens"]),
            helper.make_tensor_value_info("similarity", TensorProto.FLOAT, [pairs, 1]),
        ]
        outputs = [helper.make_tensor_value_info(CONFIDENCE, TensorProto.FLOAT, [pairs, 1])]
        graph = helper.make_graph(self._graph.nodes, "verifier", inputs, outputs, self._graph.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    def _joined(self, what: str, read: Callable[[str], str]) -> str:
        return self._op("Concat", read(f"asked_{what}"), read(f"stored_{what}"), axis=1)

    def _places(self) -> str:
        """Return each token's place in its own text, int64 [tokens], and note which text it is of."""
        asked, stored = (
            self._op("Range", self._int(0), self._size(f"{who}_ids"), self._int(1)) for who in ("asked", "stored")
        )
        places = self._op("Concat", asked, stored, axis=0)
        sides = self._op(
            "Concat",
            self._op("Mul", asked, self._int(0)),
            self._op("Add", self._op("Mul", stored, self._int(0)), self._int(1)),
            axis=0,
        )
        self._same_text = self._op(
            "Equal", self._op("Unsqueeze", sides, self._axes(1)), self._op("Unsqueeze", sides, self._axes(0))
        )
        return places

    def _size(self, name: str) -> str:
        return self._op("Squeeze", self._op("Shape", name, start=1, end=2))

    def _read_pair(self, ids: str, places: str) -> None:
        """Note the masks and biases that all steps share."""
        row, column = self._op("Unsqueeze", ids, self._axes(2)), self._op("Unsqueeze", ids, self._axes(1))
        zero = self._graph.constant("no_token", np.array(0, np.int32))
        real = self._op("Not", self._op("Equal", column, zero))
        self._real_row = self._op("Not", self._op("Equal", row, zero))
        self._same_id = self._op("Equal", row, column)
        self._across = self._op("And", self._op("Not", self._same_text), real)
        hidden = self._op("Where", real, self._value(0.0), self._value(_MASKED))
        self._hidden = self._op("Unsqueeze", hidden, self._axes(1))
        distance = self._op(
            "Sub", self._op("Unsqueeze", places, self._axes(0)), self._op("Unsqueeze", places, self._axes(1))
        )
        clipped = self._op("Clip", distance, self._int(-_FAR), self._int(_FAR))
        self._distance = self._op("Add", clipped, self._int(_FAR))
        kind = self._op("Where", self._same_id, self._int(1), self._int(2))
        self._kind = self._op("Where", self._same_text, self._int(0), kind)
        self._within = self._float(self._same_text)

    def _compared(self, x: str, places: str) -> str:
        """Align each token with the other text's and return what the comparison says of it."""
        query = self._linear("q", x)
        length = self._op("Max", self._op("ReduceL2", query, self._axes(2), keepdims=1), self._value(1e-12))
        unit = self._op("Div", query, length)
        likeness = self._op("MatMul", unit, self._op("Transpose", unit, perm=[0, 2, 1]))
        scale = self._value(4 * float(self._weights["scale"]))
        bias = self._op("Mul", self._float(self._same_id), self._value(float(self._weights["idb"])))
        scores = self._op("Add", self._op("Mul", likeness, scale), bias)
        scores = self._op("Where", self._across, scores, self._value(_MASKED))
        weights = self._op("Softmax", scores, axis=-1)
        aligned = self._op("MatMul", weights, x)
        best = self._op(
            "ReduceMax", self._op("Where", self._across, likeness, self._value(-1.0)), self._axes(2), keepdims=1
        )
        shared = self._float(self._op("And", self._same_id, self._across))
        has = self._op("ReduceMax", shared, self._axes(2), keepdims=1)
        place = self._op("Unsqueeze", self._float(places), self._axes(1))
        shift = self._op("Mul", self._op("Sub", self._op("MatMul", weights, place), place), self._value(1 / 8))
        difference = self._op("Abs", self._op("Sub", x, aligned))
        found = self._op("Concat", x, aligned, difference, self._op("Mul", x, aligned), best, has, shift, axis=2)
        place_vectors = self._op(
            "Gather", self._weight("pos.weight"), self._op("Min", places, self._int(MAX_TOKENS - 1))
        )
        return self._op("Add", self._op("Add", self._gelu(self._linear("cmp", found)), x), place_vectors)

    def _layer(self, name: str, y: str) -> str:
        head = self._width // HEADS
        parts = self._op(
            "Reshape", self._linear(f"{name}.qkv", self._norm(f"{name}.n1", y)), self._ints(0, 0, 3, HEADS, head)
        )
        parts = self._op("Transpose", parts, perm=[2, 0, 3, 1, 4])
        query, key, value = (self._op("Gather", parts, self._int(i), axis=0) for i in range(3))
        scores = self._op(
            "MatMul", self._op("Mul", query, self._value(head**-0.5)), self._op("Transpose", key, perm=[0, 1, 3, 2])
        )
        by_kind = self._op("Gather", self._weight(f"{name}.bias"), self._kind, axis=1)  # heads, pairs, tokens, tokens
        scores = self._op("Add", scores, self._op("Transpose", by_kind, perm=[1, 0, 2, 3]))
        by_distance = self._op(
            "Mul", self._op("Gather", self._weight(f"{name}.rel"), self._distance, axis=1), self._within
        )
        scores = self._op("Add", self._op("Add", scores, by_distance), self._hidden)
        mixed = self._op("MatMul", self._op("Softmax", scores, axis=-1), value)
        mixed = self._op("Reshape", self._op("Transpose", mixed, perm=[0, 2, 1, 3]), self._ints(0, 0, self._width))
        y = self._op("Add", y, self._linear(f"{name}.o", mixed))
        risen = self._gelu(self._linear(f"{name}.up", self._norm(f"{name}.n2", y)))
        return self._op("Add", y, self._linear(f"{name}.down", risen))

    def _decide(self, y: str) -> None:
        y = self._norm("fn", y)
        gate = self._op("Where", self._real_row, self._linear("gate", y), self._value(_MASKED))
        weighed = self._op(
            "ReduceSum", self._op("Mul", self._op("Softmax", gate, axis=1), y), self._axes(1), keepdims=0
        )
        largest = self._op(
            "ReduceMax", self._op("Where", self._real_row, y, self._value(_MASKED)), self._axes(1), keepdims=0
        )
        found = self._op("Concat", weighed, largest, "similarity", axis=1)
        logit = self._linear("out.2", self._gelu(self._linear("out.0", found)))
        slope, shift = (self._value(float(self._weights[name])) for name in ("calibration.slope", "calibration.shift"))
        self._graph.node("Sigmoid", self._op("Add", self._op("Mul", logit, slope), shift), output=CONFIDENCE)

    def _linear(self, name: str, x: str) -> str:
        kernel = self._constant(f"{name}.weight", self._weights[f"{name}.weight"].T)
        return self._op("Add", self._op("MatMul", x, kernel), self._weight(f"{name}.bias"))

    def _norm(self, name: str, x: str) -> str:
        weight, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._op("LayerNormalization", x, weight, bias, axis=-1, epsilon=_EPSILON)

    def _gelu(self, x: str) -> str:
        return self._op("Gelu", x)

    def _weight(self, name: str) -> str:
        return self._constant(name, self._weights[name])

    def _constant(self, name: str, value: npt.ArrayLike) -> str:
        if all(each.name != name for each in self._graph.constants):
            self._graph.constant(name, value)
        return name

    def _value(self, value: float | np.float32) -> str:
        return self._constant(f"value {float(value)!r}", np.array(value, np.float32))

    def _int(self, value: int) -> str:
        return self._constant(f"int {value}", np.array(value, np.int64))

    def _axes(self, *axes: int) -> str:
        return self._constant(f"axes {axes}", np.array(axes, np.int64))

    def _ints(self, *values: int) -> str:
        return self._axes(*values)

    def _float(self, name: str) -> str:
        return self._op("Cast", name, to=TensorProto.FLOAT)

    def _op(self, operator: str, *inputs: str, **attributes: Any) -> str:
        self._made += 1
        return self._graph.node(operator, *inputs, output=f"{operator}.{self._made}", **attributes)
