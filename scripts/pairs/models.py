"""Runs the embedder and the verifier in this process, as workers do. Knows no sets of pairs."""

from collections.abc import Iterable
from pathlib import Path

import onnxruntime
from tokenizers import Tokenizer

from backends.worker.arrays import decode
from backends.worker.encode import pad
from backends.worker.rows import pack_tokens
from cache.contract import Meaning
from gateway.trust.verifier import known_of, tensors

BATCH = 64
MAX_TOKENS = 256


def session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open a graph on the processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Verifier:
    """The embedder and the verifier in this process, fed as the gateway feeds its workers."""

    def __init__(self, models: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(models / "minilm" / "tokenizer.json"))
        self._unknown = self.tokenizer.token_to_id("[UNK]")
        self.embedder = session(models / "minilm" / "model.onnx")
        self.verifier = session(models / "verifier" / "model.onnx")

    def meaning(self, text: str) -> Meaning:
        """Return what the cache keeps of a text."""
        return self.meanings([text])[text]

    def meanings(self, texts: Iterable[str]) -> dict[str, Meaning]:
        """Return what the cache keeps of each text; short ones share a batch first, so that little is padded."""
        ordered = sorted(set(texts), key=len)
        found: dict[str, Meaning] = {}
        for at in range(0, len(ordered), BATCH):
            batch = ordered[at : at + BATCH]
            rows = [encoding.ids[:MAX_TOKENS] for encoding in self.tokenizer.encode_batch(batch)]
            ids, mask = pad(rows)
            feed = {"input_ids": ids, "attention_mask": mask}
            vectors, tokens = self.embedder.run(["embedding", "token_vectors"], feed)
            for place, (text, row) in enumerate(zip(batch, rows, strict=True)):
                found[text] = Meaning(
                    b"", text, vectors[place].tobytes(), pack_tokens(row, tokens[place], self._unknown)
                )
        return found

    def confidences(self, asked: Meaning, stored: list[Meaning]) -> list[float]:
        """Return how likely it is that each stored answer serves, as the gateway's verifier tells it."""
        known = [known_of(asked, each) for each in stored]
        at = [place for place, confidence in enumerate(known) if confidence is None]
        told = [confidence or 0.0 for confidence in known]
        if at:
            feed = {each.name: decode(each) for each in tensors([(asked, stored[place]) for place in at])}
            for place, found in zip(at, self.verifier.run(["confidence"], feed)[0][:, 0], strict=True):
                told[place] = float(found)
        return told
