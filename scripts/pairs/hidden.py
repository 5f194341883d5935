"""What minilm says of each token of many texts: two layers' states, or its token vectors. Knows no pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scripts.pairs.encoder import LAYERS, TOKEN_WIDTH, WIDTH, Encoder

MAX_TOKENS = 64
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Hidden:
    """The tokens of many texts, one after the other: text i has those from starts[i] to starts[i + 1].

    `states` has the hidden states of all LAYERS side by side, or the token vectors that minilm makes of them, without
    the two special tokens; `vectors` has the embeddings.
    """

    places: dict[str, int]
    starts: NDArray[np.int64]
    ids: NDArray[np.int32]
    states: NDArray[np.float16] | NDArray[np.int8]
    vectors: NDArray[np.float32]


class Minilm:
    """The built minilm, which tells the states of its layers, or its token vectors where the projection is `fixed`."""

    def __init__(self, model: Path, *, fixed: bool) -> None:
        self.fixed = fixed
        self._encoder = Encoder(model / "model.onnx")
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))

    def compute(self, texts: Sequence[str]) -> Hidden:
        """Run minilm over the texts; of a long one only the first tokens are kept."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        kept = [min(len(row) - 2, MAX_TOKENS) for row in rows]
        starts = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        ids = np.zeros(starts[-1], np.int32)
        states = np.zeros((starts[-1], TOKEN_WIDTH if self.fixed else WIDTH * len(LAYERS)), self._kind)
        vectors = np.zeros((len(texts), WIDTH), np.float32)
        order = sorted(range(len(texts)), key=lambda at: len(rows[at]))
        for at in range(0, len(order), _BATCH):
            chosen = order[at : at + _BATCH]
            embeddings, found = self._run([rows[i] for i in chosen])
            for place, i in enumerate(chosen):
                span = slice(starts[i], starts[i + 1])
                ids[span] = rows[i][1 : 1 + kept[i]]
                states[span] = found[place, 1 : 1 + kept[i]]
                vectors[i] = embeddings[place]
        return Hidden({text: i for i, text in enumerate(texts)}, starts, ids, states, vectors)

    @property
    def _kind(self) -> type[np.int8] | type[np.float16]:
        return np.int8 if self.fixed else np.float16

    def _run(self, rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.float32], NDArray[np.int8] | NDArray[np.float16]]:
        embeddings, states = self._encoder.run(rows)
        return embeddings, self._encoder.token_vectors(states) if self.fixed else states.numpy().astype(np.float16)
