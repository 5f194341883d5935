"""Builds the ONNX graph of atlas, the demonstration chat model, from its weights: a decoder with its KV cache in slots.

It does not run the graph and knows nothing of training.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from ruamel.yaml import YAML

Array = npt.NDArray[np.float32]
_OPSET, _IR_VERSION = 21, 10
_EPSILON = 1e-5
_MASKED = np.float32(-1e9)


def build(source: Path, target: Path) -> None:
    """Make model.onnx, tokenizer.json and model.yaml in `target`; `source` has weights.npz and the other two.

    Raises FileNotFoundError where the source is incomplete.
    """
    context = YAML(typ="safe").load((source / "model.yaml").read_text())["limits"]["max_tokens"]
    with np.load(source / "weights.npz") as archive:
        heads = int(archive["heads"])
        weights = {name: archive[name].astype(np.float32) for name in archive.files if name != "heads"}
    model = _Graph(weights, heads, context).model()
    onnx.checker.check_model(model)
    target.mkdir(parents=True, exist_ok=True)
    onnx.save(model, target / "model.onnx")
    for name in ("tokenizer.json", "model.yaml"):
        shutil.copyfile(source / name, target / name)


class _Graph:
    """The graph under construction; every method adds nodes and returns the names of what they compute."""

    def __init__(self, weights: Mapping[str, Array], heads: int, context: int) -> None:
        self._weights = weights
        self._heads = heads
        self._context = context
        self._vocabulary, self._width = weights["embedding"].shape
        self._head = self._width // heads
        self._layers = sum(name.endswith(".qkv") for name in weights)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def model(self) -> onnx.ModelProto:
        """Return the finished model."""
        self._body()
        graph = helper.make_graph(self._nodes, "atlas", self._inputs(), self._outputs(), list(self._constants.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)

    def _inputs(self) -> list[onnx.ValueInfoProto]:
        past = ["batch", self._heads, self._context, self._head]
        caches = [f"past_{kind}.{i}" for i in range(self._layers) for kind in ("key", "value")]
        return [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"]),
            helper.make_tensor_value_info("past_length", TensorProto.INT64, ["batch"]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, past) for name in caches),
        ]

    def _outputs(self) -> list[onnx.ValueInfoProto]:
        new = ["batch", self._heads, "tokens", self._head]
        caches = [f"new_{kind}.{i}" for i in range(self._layers) for kind in ("key", "value")]
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", self._vocabulary])
        return [logits, *(helper.make_tensor_value_info(name, TensorProto.FLOAT, new) for name in caches)]

    def _body(self) -> None:
        embedding = self._weights["embedding"]
        centred = embedding - embedding.mean(axis=1, keepdims=True)
        table = centred / np.sqrt(centred.var(axis=1, keepdims=True) + _EPSILON)
        x = self._add("Gather", self._constant("table", table), "ids")
        steps, lengths = self._positions()
        rotations, masks = self._rotations(steps, lengths), self._masks(steps, lengths)
        for i in range(self._layers):
            x = self._attention(i, x, rotations, masks)
            x = self._network(i, x)
        head = self._constant("head", np.ascontiguousarray(embedding.T))
        self._add("MatMul", self._norm(x, "norm"), head, outputs=["logits"])

    def _positions(self) -> tuple[str, str]:
        """0..tokens-1 [tokens] and the past lengths [batch, 1]."""
        zero, one = self._constant("zero", np.int64(0)), self._constant("one", np.int64(1))
        tokens = self._add("Gather", self._add("Shape", "ids"), one)
        steps = self._add("Range", zero, tokens, one)
        return steps, self._add("Unsqueeze", "past_length", self._constant("axis1", np.array([1])))

    def _rotations(self, steps: str, lengths: str) -> tuple[str, str]:
        """Cosines and sines for the new tokens, [batch, 1, tokens, head / 2] each."""
        frequencies = 10000.0 ** (-np.arange(0, self._head, 2) / self._head)
        # A padded column may stand past the context: its output is ignored, but its look-up must succeed.
        angles = (np.arange(2 * self._context)[:, None] * frequencies).astype(np.float32)
        rows = self._add("Unsqueeze", self._add("Add", lengths, steps), self._constant("axis1", np.array([1])))
        cos = self._add("Gather", self._constant("cosines", np.cos(angles)), rows)
        return cos, self._add("Gather", self._constant("sines", np.sin(angles)), rows)

    def _masks(self, steps: str, lengths: str) -> tuple[str, str]:
        """Masks to add to the scores: of unused slots [batch, 1, 1, context], of later tokens [tokens, tokens]."""
        shown, hidden = self._constant("shown", np.float32(0)), self._constant("hidden", _MASKED)
        used = self._add("Less", self._constant("slots", np.arange(self._context)), lengths)
        unused = self._add("Where", used, shown, hidden)
        past = self._add("Unsqueeze", unused, self._constant("axes12", np.array([1, 2])))
        column = self._add("Unsqueeze", steps, self._constant("axis1", np.array([1])))
        return past, self._add("Where", self._add("Greater", steps, column), hidden, shown)

    def _attention(self, i: int, x: str, rotations: tuple[str, str], masks: tuple[str, str]) -> str:
        query, key, value = self._heads_of(i, x, rotations)
        scores = [
            self._add("Add", self._add("MatMul", query, self._add("Transpose", keys, perm=[0, 1, 3, 2])), mask)
            for keys, mask in zip((f"past_key.{i}", key), masks, strict=True)
        ]
        shares = self._add("Softmax", self._add("Concat", *scores, axis=3), axis=3)
        start, border = self._constant("start", np.array([0])), self._constant("border", np.array([self._context]))
        end, axis3 = self._constant("end", np.array([np.iinfo(np.int64).max])), self._constant("axis3", np.array([3]))
        old = self._add("MatMul", self._add("Slice", shares, start, border, axis3), f"past_value.{i}")
        new = self._add("MatMul", self._add("Slice", shares, border, end, axis3), value)
        mixed = self._add("Transpose", self._add("Add", old, new), perm=[0, 2, 1, 3])
        flat = self._add("Reshape", mixed, self._constant("flat", np.array([0, 0, self._width])))
        return self._add("Add", x, self._add("MatMul", flat, self._weight(f"layers.{i}.out")))

    def _heads_of(self, i: int, x: str, rotations: tuple[str, str]) -> tuple[str, str, str]:
        """Query (already scaled), key and value of the new tokens, [batch, heads, tokens, head] each."""
        qkv = self._add("MatMul", self._norm(x, f"layers.{i}.norm1"), self._weight(f"layers.{i}.qkv"))
        split = self._add("Reshape", qkv, self._constant("split", np.array([0, 0, 3 * self._heads, self._head])))
        by_head = self._add("Transpose", split, perm=[0, 2, 1, 3])
        sizes = self._constant("sizes", np.array([2 * self._heads, self._heads]))
        qk, value = f"qk.{i}", f"new_value.{i}"
        self._add("Split", by_head, sizes, outputs=[qk, value], axis=1)
        query, key = f"query.{i}", f"new_key.{i}"
        self._add("Split", self._rotated(i, qk, rotations), outputs=[query, key], axis=1, num_outputs=2)
        return self._add("Mul", query, self._constant("scale", np.float32(self._head**-0.5))), key, value

    def _rotated(self, i: int, x: str, rotations: tuple[str, str]) -> str:
        cos, sin = rotations
        first, second = f"first.{i}", f"second.{i}"
        self._add("Split", x, outputs=[first, second], axis=3, num_outputs=2)
        left = self._add("Sub", self._add("Mul", first, cos), self._add("Mul", second, sin))
        right = self._add("Add", self._add("Mul", first, sin), self._add("Mul", second, cos))
        return self._add("Concat", left, right, axis=3)

    def _network(self, i: int, x: str) -> str:
        rise = self._add("MatMul", self._norm(x, f"layers.{i}.norm2"), self._weight(f"layers.{i}.up"))
        active = self._add("Relu", rise)
        fall = self._add("MatMul", self._add("Mul", active, active), self._weight(f"layers.{i}.down"))
        return self._add("Add", x, fall)

    def _norm(self, x: str, name: str) -> str:
        return self._add("LayerNormalization", x, self._weight(name), axis=-1, epsilon=_EPSILON)

    def _weight(self, name: str) -> str:
        return self._constant(name, self._weights[name])

    def _constant(self, name: str, value: npt.ArrayLike) -> str:
        """Keep an array under a name once; the same name must stand for the same value."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def _add(self, operator: str, *inputs: str, outputs: list[str] | None = None, **attributes: object) -> str:
        outputs = outputs or [f"value.{len(self._nodes)}"]
        node = helper.make_node(operator, list(inputs), outputs)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return outputs[0]
