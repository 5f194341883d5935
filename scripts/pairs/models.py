"""Runs minilm, and what it tells besides, in this process. Knows no pairs."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from backends.worker.arrays import decode
from backends.worker.rows import pack_tokens
from cache.contract import Meaning
from gateway.verifier import can_compare, tensors

BATCH = 64


def session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open a graph on the processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Embedder:
    """minilm in this process: texts to normalised vectors."""

    def __init__(self, directory: Path) -> None:
        self._session = session(directory / "model.onnx")
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.enable_truncation(256)
        self._tokenizer.enable_padding()

    def embed(self, texts: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Return the vector of each text, short texts first so that little is padded."""
        ordered = sorted(set(texts), key=len)
        vectors: dict[str, NDArray[np.float32]] = {}
        for at in range(0, len(ordered), BATCH):
            batch = ordered[at : at + BATCH]
            encoded = self._tokenizer.encode_batch(batch)
            ids = np.array([e.ids for e in encoded], dtype=np.int64)
            mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
            rows = self._session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})[0]
            vectors.update(zip(batch, rows, strict=True))
        return vectors


class Verifier:
    """The embedder and the verifier in this process, fed as the gateway feeds its workers."""

    def __init__(self, models: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(models / "minilm" / "tokenizer.json"))
        self.embedder = session(models / "minilm" / "model.onnx")
        self.verifier = session(models / "verifier" / "model.onnx")

    def meaning(self, text: str) -> Meaning:
        """Return what the cache keeps of a text."""
        ids = self.tokenizer.encode(text).ids[:256]
        feed = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        vector, tokens = self.embedder.run(["embedding", "token_vectors"], feed)
        return Meaning(b"", text, vector[0].tobytes(), pack_tokens(ids, tokens[0]))

    def confidences(self, asked: Meaning, stored: list[Meaning]) -> list[float]:
        """Return how likely it is that each stored answer serves; 0 where a text has no token vectors."""
        at = [place for place, each in enumerate(stored) if can_compare(asked, each)]
        told = [0.0] * len(stored)
        if at:
            feed = {each.name: decode(each) for each in tensors(asked, [stored[place] for place in at])}
            for place, found in zip(at, self.verifier.run(["confidence"], feed)[0][:, 0], strict=True):
                told[place] = float(found)
        return told
