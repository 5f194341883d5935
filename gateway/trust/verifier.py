"""Judges pairs of questions with a model of token vectors, in a worker. Knows tensors, not how pairs differ.

What is stored of a question is its token ids (uint16) and then their vectors (int8), as the embedder's worker packs
them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.contract import BackendError, Tensor
from cache.contract import Meaning
from cache.semantic.contract import VerifierError

# What a confidence must reach until labels tell more: half a percent of near-misses does, in kinds of questions unseen.
START_CONFIDENCE = 0.96
WIDTH = 128
CONFIDENCE = "confidence"
_TOKEN_BYTES = 2 + WIDTH

Infer = Callable[[tuple[Tensor, ...]], Awaitable[tuple[Tensor, ...]]]


class PairVerifier:
    """A verifier whose model runs elsewhere: `infer` takes the model's tensors to its answer."""

    def __init__(self, version: str, infer: Infer, *, deadline_s: float) -> None:
        self._version = version
        self._infer = infer
        self._deadline_s = deadline_s

    @property
    def version(self) -> str:
        """What exactly judges."""
        return self._version

    async def verify(self, asked: Meaning, stored: list[Meaning]) -> list[float]:
        """Return how likely it is that each stored answer serves; 0 where a text has no token vectors.

        Raises VerifierError where the model does not answer in time, or answers something else.
        """
        confidences = [0.0] * len(stored)
        at = [place for place, meaning in enumerate(stored) if can_compare(asked, meaning)]
        if not at:
            return confidences
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await self._infer(tensors(asked, [stored[place] for place in at]))
            found = read_confidences(answer, len(at))
        except (BackendError, TimeoutError, ValueError) as error:
            raise VerifierError(f"{type(error).__name__}: {error}") from error
        for place, confidence in zip(at, found, strict=True):
            confidences[place] = confidence
        return confidences


def can_compare(asked: Meaning, stored: Meaning) -> bool:
    """Whether both texts have token vectors, and vectors of one width."""
    sizes = [len(each.tokens) for each in (asked, stored)]
    return all(size and size % _TOKEN_BYTES == 0 for size in sizes) and len(asked.vector) == len(stored.vector)


def tensors(asked: Meaning, stored: Sequence[Meaning]) -> tuple[Tensor, ...]:
    """Return what the model takes: each stored text beside the one asked, short ones padded with id 0."""
    texts = [_read(meaning.tokens) for meaning in stored]
    longest = max(len(ids) for ids, _ in texts)
    stored_ids = np.zeros((len(texts), longest), np.int32)
    stored_vectors = np.zeros((len(texts), longest, WIDTH), np.int8)
    for row, (ids, vectors) in enumerate(texts):
        stored_ids[row, : len(ids)] = ids
        stored_vectors[row, : len(ids)] = vectors
    ids, vectors = _read(asked.tokens)
    own = np.frombuffer(asked.vector, "<f4")
    similarity = np.array([[float(np.frombuffer(meaning.vector, "<f4") @ own)] for meaning in stored], np.float32)
    pairs = len(texts)
    return (
        _tensor("asked_vectors", "INT8", np.broadcast_to(vectors, (pairs, *vectors.shape))),
        _tensor("asked_ids", "INT32", np.broadcast_to(ids.astype(np.int32), (pairs, len(ids)))),
        _tensor("stored_vectors", "INT8", stored_vectors),
        _tensor("stored_ids", "INT32", stored_ids),
        _tensor("similarity", "FP32", similarity),
    )


def read_confidences(answer: Sequence[Tensor], pairs: int) -> list[float]:
    """Return the confidences of a model's answer. Raises ValueError where it has not one for each pair in [0, 1]."""
    found = next((np.frombuffer(each.data, "<f4") for each in answer if each.name == CONFIDENCE), None)
    if found is None or found.shape != (pairs,) or not bool(((found >= 0) & (found <= 1)).all()):
        raise ValueError("the verifier's answer has not one confidence for each pair")
    return [float(each) for each in found]


def _read(tokens: bytes) -> tuple[NDArray[np.uint16], NDArray[np.int8]]:
    count = len(tokens) // _TOKEN_BYTES
    ids = np.frombuffer(tokens, "<u2", count)
    return ids, np.frombuffer(tokens, np.int8, offset=2 * count).reshape(count, WIDTH)


def _tensor(name: str, datatype: str, values: NDArray[Any]) -> Tensor:
    return Tensor(name, datatype, values.shape, values.tobytes())
