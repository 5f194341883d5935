"""Builds the graph of the pair verifier: token vectors of two questions to the confidence that one answer serves both.

Each token is aligned with those of the other text and compared with what it is aligned to; two small transformer layers
over both texts weigh what was found. Exchanging the texts changes nothing. Training is scripts/train_verifier.py's
business, and the token vectors come from minilm's graph, in int8.

The tokens of both texts take turns, so that whatever depends on their places alone is a corner of a constant. A pair is
so small that each node costs more than its sums: what can be folded into weights is, and fused operators are used.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from backends.zoo.graph import FUSED, Graph

Array = npt.NDArray[np.float32]
CONFIDENCE = "confidence"
TOKEN_SCALE = 16.0
HEADS = 4
MAX_TOKENS = 64
_FAR = 8
_MASKED = np.float32(-1e4)
_EPSILON = 1e-5
_TABLE = 2 * MAX_TOKENS


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
        self._layers = sum(name.endswith(".qkv.weight") for name in weights)
        self._graph = Graph()
        self._made = 0

    def model(self) -> onnx.ModelProto:
        self._read_pair()
        normed, y = self._compared()
        for layer in range(self._layers):
            after = f"blocks.{layer + 1}.n1" if layer + 1 < self._layers else "fn"
            normed, y = self._layer(f"blocks.{layer}", normed, y, after)
        self._decide(normed)
        pairs, tokens = "pairs", "tokens"
        inputs = [
            helper.make_tensor_value_info("vectors", TensorProto.INT8, [pairs, tokens, self._width]),
            helper.make_tensor_value_info("ids", TensorProto.INT32, [pairs, tokens]),
            helper.make_tensor_value_info("similarity", TensorProto.FLOAT, [pairs, 1]),
        ]
        outputs = [helper.make_tensor_value_info(CONFIDENCE, TensorProto.FLOAT, [pairs, 1])]
        graph = helper.make_graph(self._graph.nodes, "verifier", inputs, outputs, self._graph.constants)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(FUSED, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _read_pair(self) -> None:
        """Note the masks that all steps share: where no token is, and where the other text has the same token."""
        tokens = self._op("Shape", "ids", start=1, end=2)
        self._sizes = (tokens, self._op("Concat", tokens, tokens, axis=0))
        row, column = self._op("Unsqueeze", "ids", self._ints(2)), self._op("Unsqueeze", "ids", self._ints(1))
        places = np.arange(_TABLE)
        across = self._corner("across", (places[:, None] + places[None, :]) % 2 == 1, 0, 1)
        self._same = self._float(self._op("And", self._op("Equal", row, column), across))
        no_token = self._constant("no token", np.array(0, np.int32))
        self._empty = self._op("Where", self._op("Equal", "ids", no_token), self._value(_MASKED), self._value(0.0))
        hidden = self._op("Unsqueeze", self._empty, self._ints(1))
        self._hidden = hidden
        self._elsewhere = self._op("Where", across, hidden, self._value(_MASKED))
        self._real = self._op("Min", "ids", self._constant("a token", np.array(1, np.int32)))

    def _compared(self) -> tuple[str, str]:
        """Align each token with the other text's and return what the comparison says of it, normalised and as it is."""
        x = self._op("Mul", self._float("vectors"), self._value(1 / TOKEN_SCALE))
        scale = 4 * float(self._weights["scale"])
        if scale <= 0:
            raise ValueError(f"the verifier's scale is {scale}, it must be above 0")
        unit = self._op("LpNormalization", self._linear("q", x), axis=-1, p=2)
        scaled = self._fused("FusedMatMul", unit, unit, transB=1, alpha=scale)
        likeness = self._op("Add", scaled, self._elsewhere)
        bias = self._op("Mul", self._same, self._value(float(self._weights["idb"])))
        weights = self._op("Softmax", self._op("Add", likeness, bias), axis=-1)
        aligned = self._op("MatMul", weights, x)
        best = self._op("ReduceMax", likeness, self._ints(2), keepdims=1)
        has = self._op("ReduceMax", self._same, self._ints(2), keepdims=1)
        place = self._corner("place", (np.arange(_TABLE) // 2)[:, None].astype(np.float32), 0)
        shift = self._op("Sub", self._op("MatMul", weights, place), place)
        difference = self._op("Abs", self._op("Sub", x, aligned))
        found = self._op("Concat", x, aligned, difference, self._op("Mul", x, aligned), best, has, shift, axis=2)
        kernel = self._weights["cmp.weight"].T.copy()
        kernel[-3] /= scale
        kernel[-1] /= _FAR
        compared = self._op("MatMul", found, self._constant("cmp.weight", kernel))
        compared = self._fused("BiasGelu", compared, self._weight("cmp.bias"))
        places = self._corner("pos", np.repeat(self._weights["pos.weight"], 2, axis=0), 0)
        return self._norm_sum("blocks.0.n1", compared, self._op("Add", x, places))

    def _layer(self, name: str, normed: str, y: str, after: str) -> tuple[str, str]:
        """Return the layer's output as the norm `after` makes it, and as it is."""
        kernel = self._constant(f"{name}.qkv.weight", self._weights[f"{name}.qkv.weight"].T)
        mixed = self._fused(
            "Attention",
            normed,
            kernel,
            self._weight(f"{name}.qkv.bias"),
            self._real,
            "",
            self._attention_bias(name),
            num_heads=HEADS,
        )
        normed, y = self._norm_sum(f"{name}.n2", self._product(f"{name}.o", mixed), y, f"{name}.o.bias")
        risen = self._fused("BiasGelu", self._product(f"{name}.up", normed), self._weight(f"{name}.up.bias"))
        return self._norm_sum(after, self._product(f"{name}.down", risen), y, f"{name}.down.bias")

    def _attention_bias(self, name: str) -> str:
        """Return what a layer adds to its scores [pairs, heads, tokens, tokens]: by distance, and by sameness."""
        kinds, by_distance = self._weights[f"{name}.bias"], self._weights[f"{name}.rel"]
        places, texts = np.arange(_TABLE) // 2, np.arange(_TABLE) % 2
        distance = np.clip(places[None, :] - places[:, None], -_FAR, _FAR) + _FAR
        same_text = texts[:, None] == texts[None, :]
        values = np.where(same_text, kinds[:, 0, None, None] + by_distance[:, distance], kinds[:, 2, None, None])
        near = self._corner(f"{name}.near", values[None].astype(np.float32), 2, 3)
        more = self._constant(f"{name}.same", (kinds[:, 1] - kinds[:, 2]).reshape(1, -1, 1, 1))
        same = self._op("Unsqueeze", self._same, self._ints(1))
        return self._op("Add", near, self._op("Mul", same, more))

    def _decide(self, y: str) -> None:
        # The gate's bias would move all its scores alike.
        gate = self._constant("gate.weight", self._weights["gate.weight"][None])
        scores = self._op("Add", self._fused("FusedMatMul", gate, y, transB=1), self._hidden)
        weighed = self._op("Squeeze", self._op("MatMul", self._op("Softmax", scores, axis=-1), y), self._ints(1))
        hidden = self._op("Unsqueeze", self._empty, self._ints(2))
        largest = self._op("ReduceMax", self._op("Add", y, hidden), self._ints(1), keepdims=0)
        found = self._op("Concat", weighed, largest, "similarity", axis=1)
        slope, shift = (float(self._weights[f"calibration.{name}"]) for name in ("slope", "shift"))
        first = self._constant("out.0.weight", self._weights["out.0.weight"].T)
        last = self._constant("out.2.weight", slope * self._weights["out.2.weight"].T)
        bias = self._constant("out.2.bias", slope * self._weights["out.2.bias"] + shift)
        risen = self._op("Gelu", self._op("Gemm", found, first, self._weight("out.0.bias")))
        self._graph.node("Sigmoid", self._op("Gemm", risen, last, bias), output=CONFIDENCE)

    def _norm_sum(self, norm: str, x: str, skip: str, *bias: str) -> tuple[str, str]:
        """Return the sum of both, normalised and as it is."""
        total = self._op("Add", x, skip)
        for each in bias:
            total = self._op("Add", total, self._weight(each))
        inputs = (total, self._weight(f"{norm}.weight"), self._weight(f"{norm}.bias"))
        return self._op("LayerNormalization", *inputs, axis=-1, epsilon=_EPSILON), total

    def _corner(self, name: str, table: npt.NDArray[Any], *axes: int) -> str:
        """Return the beginning of a constant table, as long as the pair along each of the axes."""
        first = self._ints(*(0 for _ in axes))
        return self._op("Slice", self._constant(name, table), first, self._sizes[len(axes) - 1], self._ints(*axes))

    def _linear(self, name: str, x: str) -> str:
        return self._op("Add", self._product(name, x), self._weight(f"{name}.bias"))

    def _product(self, name: str, x: str) -> str:
        return self._op("MatMul", x, self._constant(f"{name}.weight", self._weights[f"{name}.weight"].T))

    def _weight(self, name: str) -> str:
        return self._constant(name, self._weights[name])

    def _constant(self, name: str, value: npt.ArrayLike) -> str:
        if all(each.name != name for each in self._graph.constants):
            self._graph.constant(name, value)
        return name

    def _value(self, value: float | np.float32) -> str:
        return self._constant(f"value {float(value)!r}", np.array(value, np.float32))

    def _ints(self, *values: int) -> str:
        return self._constant(f"ints {values}", np.array(values, np.int64))

    def _float(self, name: str) -> str:
        return self._op("Cast", name, to=TensorProto.FLOAT)

    def _fused(self, operator: str, *inputs: str, **attributes: Any) -> str:
        return self._op(operator, *inputs, domain=FUSED, **attributes)

    def _op(self, operator: str, *inputs: str, **attributes: Any) -> str:
        self._made += 1
        return self._graph.node(operator, *inputs, output=f"{operator}.{self._made}", **attributes)
