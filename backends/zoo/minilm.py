"""Builds all-MiniLM-L6-v2 as one ONNX graph from token ids to a vector of length 1. Knows not whence the weights come.

In the same run it gives a short vector of each token, of two layers' states, for a verifier of pairs to compare.

The graph is written with the runtime's fused operators (Attention, SkipLayerNormalization, BiasGelu): a session on it
builds in two thirds of the time of one on the standard operators, and a single sentence takes the same time.
"""

import json
import mmap
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from ruamel.yaml import YAML

from backends.zoo.graph import FUSED, Graph
from backends.zoo.safetensors import Array, floats, read_safetensors

IDS, MASK, EMBEDDING, TOKENS = "input_ids", "attention_mask", "embedding", "token_vectors"
_LAYERS, _HEADS, _EPSILON = 6, 12, 1e-12
# The layers whose states make the token vectors, and the scale of those: int8, of what seldom exceeds 5.
TOKEN_LAYERS = (2, 5)
TOKEN_SCALE = 16.0


def build(source: Path, files: Path, target: Path) -> None:
    """Make model.onnx, tokenizer.json and model.yaml in the directory `target`.

    `source` holds model.yaml and tokens.npz, `files` model.safetensors and tokenizer.json. Raises OSError where
    one is missing, and KeyError for a missing tensor.
    """
    max_tokens = YAML(typ="safe").load(source / "model.yaml")["limits"]["max_tokens"]
    with (files / "model.safetensors").open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    with np.load(source / "tokens.npz") as arrays:
        projection = {name: arrays[name].astype(np.float32) for name in arrays.files}
    onnx.save(_Encoder(read_safetensors(data), max_tokens, projection).model(), target / "model.onnx")
    (target / "tokenizer.json").write_text(
        _tokenizer((files / "tokenizer.json").read_text("utf-8"), max_tokens), "utf-8"
    )
    shutil.copyfile(source / "model.yaml", target / "model.yaml")


def _tokenizer(text: str, max_tokens: int) -> str:
    """Make the tokenizer cut at the model's limit, and not pad: the worker pads a batch to its longest row."""
    tokenizer = json.loads(text)
    tokenizer["truncation"]["max_length"] = max_tokens
    tokenizer["padding"] = None
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))


class _Encoder:
    """BERT, mean pooling over the mask, and normalisation, as a graph under construction."""

    def __init__(
        self, tensors: dict[str, Array], max_tokens: int, projection: dict[str, npt.NDArray[np.float32]]
    ) -> None:
        self._tensors = tensors
        self._max_tokens = max_tokens
        self._projection = projection
        self._graph = Graph()

    def model(self) -> onnx.ModelProto:
        hidden = self._embeddings()
        mask = self._graph.node("Cast", MASK, output="mask", to=onnx.TensorProto.INT32)
        states = []
        for i in range(_LAYERS):
            hidden = self._layer(f"encoder.layer.{i}.", hidden, mask)
            states += [hidden] if i in TOKEN_LAYERS else []
        self._pool(hidden)
        tokens = self._token_vectors(states)
        width = self._weight("embeddings.LayerNorm.weight").size
        return self._graph.model("minilm", inputs=(IDS, MASK), output=EMBEDDING, width=width, more=(tokens,))

    def _token_vectors(self, states: list[str]) -> onnx.ValueInfoProto:
        """Project each token's states to a few numbers, normalise those, and round them to int8."""
        graph = self._graph
        names = {name: graph.constant(f"tokens.{name}", value) for name, value in self._projection.items()}
        wide = graph.node("Concat", *states, output="tokens.states", axis=2)
        few = graph.node("MatMul", wide, names["kernel"], output="tokens.few")
        moved = graph.node("Add", few, names["bias"], output="tokens.moved")
        even = graph.node(
            "LayerNormalization", moved, names["norm_weight"], names["norm_bias"], output="tokens.even", epsilon=1e-5
        )
        scaled = graph.node(
            "Mul", even, graph.constant("tokens.scale", np.float32(TOKEN_SCALE)), output="tokens.scaled"
        )
        whole = graph.node("Round", scaled, output="tokens.whole")
        limits = [graph.constant(f"tokens.{name}", np.float32(x)) for name, x in (("least", -127), ("most", 127))]
        clipped = graph.node("Clip", whole, *limits, output="tokens.clipped")
        graph.node("Cast", clipped, output=TOKENS, to=onnx.TensorProto.INT8)
        width = self._projection["bias"].size
        return onnx.helper.make_tensor_value_info(TOKENS, onnx.TensorProto.INT8, ["batch", "tokens", width])

    def _embeddings(self) -> str:
        graph = self._graph
        # Half precision: the table is half of the file, hence of its loading; cosines move by less than 1e-4.
        words = graph.constant("words", self._weight("embeddings.word_embeddings.weight").astype(np.float16))
        word = graph.node(
            "Cast", graph.node("Gather", words, IDS, output="word16"), output="word", to=onnx.TensorProto.FLOAT
        )
        # Every sentence has token type 0, so that row joins the positions.
        places = self._weight("embeddings.position_embeddings.weight")[: self._max_tokens]
        table = graph.constant("places", places + self._weight("embeddings.token_type_embeddings.weight")[0])
        start = graph.constant("start", np.array([0]))
        length = graph.node("Shape", IDS, output="length", start=1, end=2)
        place = graph.node("Slice", table, start, length, start, output="place")
        return graph.node(
            "LayerNormalization",
            graph.node("Add", word, place, output="word_place"),
            *self._norm("embeddings.LayerNorm"),
            output="embeddings",
            epsilon=_EPSILON,
        )

    def _layer(self, prefix: str, hidden: str, mask: str) -> str:
        attention = f"{prefix}attention.output."
        mixed = self._project(f"{attention}dense", self._attention(prefix, hidden, mask))
        hidden = self._add_norm(attention, mixed, hidden)
        rise = self._project(f"{prefix}intermediate.dense", hidden)
        bias = self._constant(f"{prefix}intermediate.dense.bias")
        active = self._graph.node("BiasGelu", rise, bias, output=f"{prefix}gelu", domain=FUSED)
        return self._add_norm(f"{prefix}output.", self._project(f"{prefix}output.dense", active), hidden)

    def _attention(self, prefix: str, hidden: str, mask: str) -> str:
        names = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self._weight(f"{name}.weight").T for name in names], axis=1)
        bias = np.concatenate([self._weight(f"{name}.bias") for name in names])
        inputs = [self._graph.constant(f"{prefix}qkv.weight", weight), self._graph.constant(f"{prefix}qkv.bias", bias)]
        output = f"{prefix}attention"
        return self._graph.node("Attention", hidden, *inputs, mask, output=output, domain=FUSED, num_heads=_HEADS)

    def _project(self, name: str, x: str) -> str:
        """Multiply by a weight; its bias is added by the operator that follows."""
        weight = self._graph.constant(f"{name}.weight", self._weight(f"{name}.weight").T)
        return self._graph.node("MatMul", x, weight, output=name)

    def _add_norm(self, prefix: str, x: str, skip: str) -> str:
        inputs = [*self._norm(f"{prefix}LayerNorm"), self._constant(f"{prefix}dense.bias")]
        output = f"{prefix}norm"
        return self._graph.node(
            "SkipLayerNormalization", x, skip, *inputs, output=output, domain=FUSED, epsilon=_EPSILON
        )

    def _pool(self, hidden: str) -> None:
        """Normalise the sum over the real tokens: its direction is that of their mean."""
        graph = self._graph
        weights = graph.node("Cast", MASK, output="weights", to=onnx.TensorProto.FLOAT)
        axis = graph.constant("axis1", np.array([1]))
        row = graph.node("Unsqueeze", weights, axis, output="row")
        total = graph.node("Squeeze", graph.node("MatMul", row, hidden, output="sums"), axis, output="sum")
        length = graph.node("ReduceL2", total, axis, output="norm", keepdims=1)
        least = graph.constant("least", np.float32(1e-12))
        graph.node("Div", total, graph.node("Max", length, least, output="divisor"), output=EMBEDDING)

    def _norm(self, name: str) -> tuple[str, str]:
        return self._constant(f"{name}.weight"), self._constant(f"{name}.bias")

    def _constant(self, name: str) -> str:
        return self._graph.constant(name, self._weight(name))

    def _weight(self, name: str) -> npt.NDArray[np.float32]:
        return floats(self._tensors, name)
