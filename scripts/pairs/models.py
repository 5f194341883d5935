"""Runs minilm, and what it tells besides, in this process. Knows no pairs."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

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
