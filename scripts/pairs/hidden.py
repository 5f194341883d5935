"""Token vectors of minilm for training: the hidden states of two of its layers, kept on disk. Knows no pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

LAYERS = (2, 5)
WIDTH = 384
MAX_TOKENS = 64
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Hidden:
    """The tokens of many texts, one after the other: text i has those from starts[i] to starts[i + 1].

    `states` has the hidden states of all LAYERS side by side, without the two special tokens; `vectors` the embeddings.
    """

    places: dict[str, int]
    starts: NDArray[np.int64]
    ids: NDArray[np.int32]
    states: NDArray[np.float16]
    vectors: NDArray[np.float32]


def compute(model: Path, texts: Sequence[str]) -> Hidden:
    """Run minilm over the texts; of a long one only the first tokens are kept."""
    session = _session(model / "model.onnx")
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    kept = [min(len(row) - 2, MAX_TOKENS) for row in rows]
    starts = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    ids = np.zeros(starts[-1], np.int32)
    states = np.zeros((starts[-1], WIDTH * len(LAYERS)), np.float16)
    vectors = np.zeros((len(texts), WIDTH), np.float32)
    order = sorted(range(len(texts)), key=lambda at: len(rows[at]))
    names = ["embedding", *(f"encoder.layer.{layer}.output.norm" for layer in LAYERS)]
    for at in range(0, len(order), _BATCH):
        chosen = order[at : at + _BATCH]
        width = max(len(rows[i]) for i in chosen)
        feed = np.zeros((2, len(chosen), width), np.int64)
        for place, i in enumerate(chosen):
            feed[0, place, : len(rows[i])] = rows[i]
            feed[1, place, : len(rows[i])] = 1
        found = session.run(names, {"input_ids": feed[0], "attention_mask": feed[1]})
        for place, i in enumerate(chosen):
            span = slice(starts[i], starts[i + 1])
            ids[span] = rows[i][1 : 1 + kept[i]]
            states[span] = np.concatenate([layer[place, 1 : 1 + kept[i]] for layer in found[1:]], axis=1)
            vectors[i] = found[0][place]
    return Hidden({text: i for i, text in enumerate(texts)}, starts, ids, states, vectors)


def _session(path: Path) -> onnxruntime.InferenceSession:
    model = onnx.load(path)
    for layer in LAYERS:
        name = f"encoder.layer.{layer}.output.norm"
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", "tokens", WIDTH])
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
