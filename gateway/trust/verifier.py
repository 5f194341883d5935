"""Judges pairs of questions with a model of token vectors, in a worker. Knows tensors, not how pairs differ.

What is stored of a question is its token ids (uint16) and then their vectors (int8), as the embedder's worker packs
them. Pairs that are asked for at one moment share a run, as each costs a worker more of its time apart than together;
who was alone of late waits for nobody.
"""

import asyncio
import bisect
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.contract import BackendError, Tensor
from cache.contract import Meaning
from cache.semantic.contract import VerifierError

# What a confidence must reach until labels tell more: at most half a percent of near-misses does, on the tune halves.
START_CONFIDENCE = 0.95
WIDTH = 128
CONFIDENCE = "confidence"
# Where the strict guards agree it is 0.995 with their word; without it, it serves nothing.
_SAME_TOKENS = 0.7
_TOKEN_BYTES = 2 + WIDTH
_MOST_PAIRS = 32
# Tokens of the longest text up to which requests share a run.
_LENGTHS = (8, 12, 16, 24, 32, 48)

Infer = Callable[[tuple[Tensor, ...]], Awaitable[tuple[Tensor, ...]]]


class _Asked(NamedTuple):
    """A text, those that are stored, all with token vectors of one width, and who waits for their confidences."""

    asked: Meaning
    stored: Sequence[Meaning]
    told: "asyncio.Future[list[float]]"

    @property
    def longest(self) -> int:
        """The bytes of the longest text's tokens."""
        return max(len(self.asked.tokens), *(len(meaning.tokens) for meaning in self.stored))


class PairVerifier:
    """A verifier whose model runs elsewhere: `infer` takes the model's tensors to its answer."""

    def __init__(self, version: str, infer: Infer, *, deadline_s: float) -> None:
        self._version = version
        self._infer = infer
        self._deadline_s = deadline_s
        self._under_way = 0
        self._crowded = False
        self._waiting: list[_Asked] = []
        self._runs: set[asyncio.Task[None]] = set()

    @property
    def version(self) -> str:
        """What exactly judges."""
        return self._version

    async def verify(self, asked: Meaning, stored: list[Meaning]) -> list[float]:
        """Return how likely it is that each stored answer serves; 0 where a text has no token vectors.

        Of texts whose tokens are the same it knows nothing: those are for guards.

        Raises VerifierError where the model does not answer in time, or answers something else.
        """
        known = [known_of(asked, meaning) for meaning in stored]
        chosen = [meaning for meaning, confidence in zip(stored, known, strict=True) if confidence is None]
        if not chosen:
            told: Iterator[float] = iter(())
        elif self._crowded or self._under_way:
            self._crowded = True
            told = iter(await self._share(asked, chosen))
        else:
            told = iter(await self._confidences([(asked, meaning) for meaning in chosen]))
        return [next(told) if confidence is None else confidence for confidence in known]

    async def _share(self, asked: Meaning, stored: Sequence[Meaning]) -> list[float]:
        """Have pairs judged beside those of others who ask in this turn of the loop."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._begin)
        told: asyncio.Future[list[float]] = loop.create_future()
        self._waiting.append(_Asked(asked, stored, told))
        return await told

    def _begin(self) -> None:
        """Have all that was asked for in this turn of the loop judged, texts of about one length together."""
        waiting, self._waiting = self._waiting, []
        self._crowded = len(waiting) > 1
        for run in share([(each.longest // _TOKEN_BYTES, len(each.stored)) for each in waiting]):
            task = asyncio.create_task(self._judge([waiting[place] for place in run]), name="verifier")
            self._runs.add(task)
            task.add_done_callback(self._runs.discard)

    async def _judge(self, run: Sequence[_Asked]) -> None:
        """Judge pairs together, and tell who waits for them; who has left is not told."""
        try:
            found = iter(await self._confidences([(each.asked, meaning) for each in run for meaning in each.stored]))
        except VerifierError as error:
            for each in run:
                if not each.told.done():
                    each.told.set_exception(VerifierError(*error.args))
            return
        for each in run:
            confidences = list(itertools.islice(found, len(each.stored)))
            if not each.told.done():
                each.told.set_result(confidences)

    async def _confidences(self, pairs: Sequence[tuple[Meaning, Meaning]]) -> list[float]:
        self._under_way += 1
        try:
            async with asyncio.timeout(self._deadline_s):
                return read_confidences(await self._infer(tensors(pairs)), len(pairs))
        except (BackendError, TimeoutError, ValueError) as error:
            raise VerifierError(f"{type(error).__name__}: {error}") from error
        finally:
            self._under_way -= 1


def share(waiting: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Say which requests share a run, given the tokens of the longest text and the pairs of each.

    Texts are padded to the longest of their run, so that a long one would cost them all its time.
    """
    runs: dict[int, list[int]] = {}
    full: list[list[int]] = []
    pairs: Counter[int] = Counter()
    for place, (tokens, count) in enumerate(waiting):
        kind = bisect.bisect_left(_LENGTHS, tokens)
        if pairs[kind] + count > _MOST_PAIRS and kind in runs:
            full.append(runs.pop(kind))
            pairs[kind] = 0
        runs.setdefault(kind, []).append(place)
        pairs[kind] += count
    return [*full, *runs.values()]


def known_of(asked: Meaning, stored: Meaning) -> float | None:
    """Return the confidence in a pair that needs no model; None where it judges: both have token vectors of one width.

    Texts of the same tokens it cannot tell apart, however they differ in letters: that they do not is for guards.
    """
    sizes = [len(each.tokens) for each in (asked, stored)]
    if not all(size and size % _TOKEN_BYTES == 0 for size in sizes) or len(asked.vector) != len(stored.vector):
        return 0.0
    ids = slice(0, 2 * (sizes[0] // _TOKEN_BYTES))
    return _SAME_TOKENS if sizes[0] == sizes[1] and asked.tokens[ids] == stored.tokens[ids] else None


def tensors(pairs: Sequence[tuple[Meaning, Meaning]]) -> tuple[Tensor, ...]:
    """Return what the model takes: of each pair the tokens of both texts in turns, with id 0 where one has no more."""
    longest = max(len(meaning.tokens) for pair in pairs for meaning in pair) // _TOKEN_BYTES
    ids = np.zeros((len(pairs), 2 * longest), np.int32)
    vectors = np.zeros((len(pairs), 2 * longest, WIDTH), np.int8)
    similarity = np.empty((len(pairs), 1), np.float32)
    for row, pair in enumerate(pairs):
        for text, meaning in enumerate(pair):
            count = len(meaning.tokens) // _TOKEN_BYTES
            taken = slice(text, 2 * count, 2)
            ids[row, taken] = np.frombuffer(meaning.tokens, "<u2", count)
            vectors[row, taken] = np.frombuffer(meaning.tokens, np.int8, offset=2 * count).reshape(count, WIDTH)
        asked, stored = (np.frombuffer(meaning.vector, "<f4") for meaning in pair)
        similarity[row] = stored @ asked
    return (
        _tensor("vectors", "INT8", vectors),
        _tensor("ids", "INT32", ids),
        _tensor("similarity", "FP32", similarity),
    )


def read_confidences(answer: Sequence[Tensor], pairs: int) -> list[float]:
    """Return the confidences of a model's answer. Raises ValueError where it has not one for each pair in [0, 1]."""
    found = next((np.frombuffer(each.data, "<f4") for each in answer if each.name == CONFIDENCE), None)
    if found is None or found.shape != (pairs,) or not bool(((found >= 0) & (found <= 1)).all()):
        raise ValueError("the verifier's answer has not one confidence for each pair")
    return [float(each) for each in found]


def _tensor(name: str, datatype: str, values: NDArray[Any]) -> Tensor:
    return Tensor(name, datatype, values.shape, values.tobytes())
