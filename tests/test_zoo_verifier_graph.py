"""The verifier's graph computes what the network is trained to compute, which is written out here without tricks."""

import math
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from backends.zoo import verifier

SOURCE = Path(__file__).parent.parent / "models" / "verifier"
HEADS = 4
Array = NDArray[np.float32]


class Reference:
    """One pair at a time, without padding: scripts/pairs/network.py, then the calibration."""

    def __init__(self) -> None:
        self.weights = verifier.load(SOURCE / "weights.npz")

    def linear(self, name: str, x: Array) -> Array:
        """Multiply and add."""
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: Array) -> Array:
        """Normalise each row."""
        even = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return even * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def confidence(self, texts: tuple[Array, Array], ids: tuple[NDArray[np.int32], ...], similarity: float) -> float:
        """Return the confidence that one answer serves both texts, given their tokens."""
        x, both = np.concatenate(texts), np.concatenate(ids)
        place = np.concatenate([np.arange(len(each)) for each in ids])
        text = np.repeat([0, 1], [len(each) for each in ids])
        same_text, same_id = text[:, None] == text, both[:, None] == both
        y = self.compared(x, place, same_id, ~same_text)
        distance = np.clip(place - place[:, None], -8, 8) + 8
        for name in ("blocks.0", "blocks.1"):
            kinds = self.weights[f"{name}.bias"][:, np.where(same_text, 0, np.where(same_id, 1, 2))]
            y = self.layer(name, y, kinds + self.weights[f"{name}.rel"][:, distance] * same_text)
        y = self.norm("fn", y)
        weighed = (softmax(self.linear("gate", y)[:, 0]) @ y, y.max(0), [similarity])
        (logit,) = self.linear("out.2", gelu(self.linear("out.0", np.concatenate(weighed))))
        return float(1 / (1 + np.exp(-(logit * self.weights["calibration.slope"] + self.weights["calibration.shift"]))))

    def compared(self, x: Array, place: Array, same_id: Array, across: Array) -> Array:
        """Align each token with the other text's, and compare it with what it is aligned to."""
        query = self.linear("q", x)
        unit = query / np.linalg.norm(query, axis=-1, keepdims=True)
        likeness = unit @ unit.T
        scores = self.weights["scale"] * 4 * likeness + self.weights["idb"] * same_id
        weights = softmax(np.where(across, scores, -1e4))
        aligned = weights @ x
        told = (np.where(across, likeness, -1).max(-1), (same_id & across).any(-1), (weights @ place - place) / 8)
        found = np.concatenate([x, aligned, np.abs(x - aligned), x * aligned, np.stack(told, 1)], 1)
        return gelu(self.linear("cmp", found)) + x + self.weights["pos.weight"][place]

    def layer(self, name: str, y: Array, bias: Array) -> Array:
        """Let each token hear the others, and then itself."""
        parts = self.linear(f"{name}.qkv", self.norm(f"{name}.n1", y)).reshape(len(y), 3, HEADS, -1)
        query, key, value = parts.transpose(1, 2, 0, 3)
        heard = softmax(query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1]) + bias) @ value
        y = y + self.linear(f"{name}.o", heard.transpose(1, 0, 2).reshape(y.shape))
        return y + self.linear(f"{name}.down", gelu(self.linear(f"{name}.up", self.norm(f"{name}.n2", y))))


def softmax(x: Array) -> Array:
    """Return the shares of each row."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def gelu(x: Array) -> Array:
    """Return the exact Gaussian error unit."""
    return x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2


def test_the_graph_computes_what_the_network_does(tmp_path):
    """Whatever the texts' lengths are, which tokens they share and how many others are judged in the same run."""
    verifier.build(SOURCE, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    random, reference = np.random.default_rng(1), Reference()
    lengths = [(1, 1), (5, 9), (9, 5), (12, 3), (20, 20), (64, 40)]
    longest = 2 * max(map(max, lengths))
    vectors = np.zeros((len(lengths), longest, 128), np.int8)
    ids = np.zeros((len(lengths), longest), np.int32)
    similarity = random.uniform(0.5, 1, (len(lengths), 1)).astype(np.float32)
    wanted = []
    for row, pair in enumerate(lengths):
        words = random.integers(1, 30, (30, 128), np.int32) - 15
        tokens = tuple(random.integers(1, 30, length, np.int32) for length in pair)
        texts = tuple(words[each] + random.integers(-4, 5, (len(each), 128), np.int32) for each in tokens)
        for text, (own, own_vectors) in enumerate(zip(tokens, texts, strict=True)):
            ids[row, text : 2 * len(own) : 2] = own
            vectors[row, text : 2 * len(own) : 2] = own_vectors
        scaled = tuple((each / verifier.TOKEN_SCALE).astype(np.float32) for each in texts)
        wanted.append(reference.confidence((scaled[0], scaled[1]), tokens, float(similarity[row, 0])))

    found = session.run(None, {"vectors": vectors, "ids": ids, "similarity": similarity})[0]

    assert max(wanted) - min(wanted) > 0.01, "pairs that are all alike show nothing"
    assert found[:, 0] == pytest.approx(wanted, abs=1e-4)
