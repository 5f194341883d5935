"""The semantic cache: finds a remembered answer to a question that means the same. Knows nothing of embedders.

The store is the truth. The index only proposes keys; whatever it proposes is read from the store, scored again with
the vector kept there, and vetoed by the guards on the text kept there. One whose entry is gone gives way to the next.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from cache.contract import Entry, Meaning, Store
from cache.semantic.guards import Veto, find_veto
from cache.semantic.index import Candidate, VectorIndex, similarity, use_one_core

_log = logging.getLogger(__name__)

# Chosen for minilm with `scripts/evaluate_semantic.py` on the tune halves of the pair sets and the development replay:
# behind the guards nothing wrong was served from 0.70 up, so this leaves a margin; at 0.85 a third of the paraphrases
# that are served here would be lost.
DEFAULT_THRESHOLD = 0.75
_CANDIDATES = 4


@dataclass(frozen=True, slots=True)
class Match:
    """A live entry whose question means the same, its cosine similarity, and that question."""

    entry: Entry
    similarity: float
    matched_text: str


@dataclass(frozen=True, slots=True)
class Miss:
    """Why nothing was served. `best_similarity` is that of the nearest stored question, 0 where there is none.

    `veto` is that of the most similar candidate that reached the threshold, where a guard stopped it.
    """

    reason: Literal["empty", "below-threshold", "vetoed", "gone", "deadline", "bad-vector"]
    best_similarity: float = 0.0
    veto: Veto | None = None


@dataclass(slots=True)
class SemanticCounters:
    """What happened since the start. `dropped`: additions lost to a full queue; `refused`: vectors of no use."""

    additions: int = 0
    dropped: int = 0
    evictions: int = 0
    refused: int = 0
    deadlines: int = 0


class SemanticCache:
    """Finds entries of `store` by meaning, within one partition. All index work runs on one thread of its own.

    `threshold` is a cosine similarity in (0, 1]; `deadline_s` bounds what `find` may wait.
    """

    def __init__(
        self,
        store: Store,
        *,
        threshold: float = DEFAULT_THRESHOLD,
        max_bytes: int = 256 << 20,
        deadline_s: float = 0.05,
        queue_entries: int = 1024,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not 0.0 < threshold <= 1.0:
            raise ValueError(f"threshold is {threshold}, it must be above 0 and at most 1")
        self.counters = SemanticCounters()
        self.threshold = threshold
        self._store = store
        self._deadline_s = deadline_s
        self._queue_entries = queue_entries
        self._clock = clock
        self._index = VectorIndex(max_bytes)
        self._queued = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache-semantic", initializer=use_one_core)

    async def find(self, partition: bytes, text: str, vector: bytes) -> Match | Miss:
        """Return the most similar live entry of the partition that reaches the threshold and that no guard vetoes."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._deadline_s):
                candidates = await loop.run_in_executor(
                    self._thread, self._index.nearest, partition, vector, _CANDIDATES
                )
                return await self._choose(candidates, Meaning(partition, text, vector))
        except TimeoutError:
            self.counters.deadlines += 1
            return Miss("deadline")
        except ValueError:
            self.counters.refused += 1
            return Miss("bad-vector")

    def add(self, entry: Entry) -> None:
        """Make the entry findable by its meaning, in place of one of the same text; never waits.

        An entry without a meaning is not for this cache, and left alone.
        """
        if entry.meaning is None:
            return
        if self._queued >= self._queue_entries:
            self.counters.dropped += 1
            return
        self._queued += 1
        self._submit(self._index_entries, [entry]).add_done_callback(self._count_done)

    def remove(self, key: bytes) -> None:
        """Stop finding the entry; never waits."""
        self._submit(self._index.remove, key)

    async def load(self, batches: AsyncIterator[list[Entry]]) -> int:
        """Index what the disk remembers, batch by batch; return how many entries there were."""
        loop = asyncio.get_running_loop()
        count = 0
        async for batch in batches:
            await loop.run_in_executor(self._thread, self._index_entries, batch)
            count += len(batch)
        return count

    async def clear(self) -> None:
        """Stop finding anything."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._index.clear)

    def close(self) -> None:
        """Let the thread end when it has done what is queued; nothing may be asked afterwards."""
        self._thread.shutdown(wait=False)

    async def _choose(self, candidates: list[Candidate], wanted: Meaning) -> Match | Miss:
        if not candidates:
            return Miss("empty")
        best = candidates[0].similarity
        miss = Miss("below-threshold", best)
        for candidate in candidates:
            # The index and the store round differently; what is a hair below is scored with the stored vector.
            if candidate.similarity < self.threshold - 1e-3:
                break
            verdict = await self._judge(candidate, wanted)
            if isinstance(verdict, Match):
                return verdict
            if miss.veto is None and verdict.reason != "below-threshold":
                miss = Miss(verdict.reason, best, verdict.veto)
        return miss

    async def _judge(self, candidate: Candidate, wanted: Meaning) -> Match | Miss:
        entry = await self._store.get(candidate.key)
        if entry is None or entry.meaning is None or entry.expires_at <= self._clock():
            self.remove(candidate.key)
            return Miss("gone")
        if entry.meaning.partition != wanted.partition:
            # The key was stored again, for somebody else, since it was indexed.
            return Miss("gone")
        score = similarity(entry.meaning.vector, wanted.vector)
        if score < self.threshold:
            return Miss("below-threshold", score)
        veto = find_veto(entry.meaning.text, wanted.text)
        if veto is not None:
            return Miss("vetoed", score, veto)
        return Match(entry, score, entry.meaning.text)

    def _index_entries(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry.meaning is None:
                continue
            try:
                self.counters.evictions += self._index.add(entry.key, entry.meaning, entry.stored_at)
            except ValueError as error:
                self.counters.refused += 1
                _log.debug("entry is not indexed: %s", error)
            else:
                self.counters.additions += 1

    def _submit(self, call: Callable[..., None], *args: object) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().run_in_executor(self._thread, call, *args)
        future.add_done_callback(_log_failure)
        return future

    def _count_done(self, _: asyncio.Future[None]) -> None:
        self._queued -= 1


def _log_failure(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _log.error("indexing failed", exc_info=error)
