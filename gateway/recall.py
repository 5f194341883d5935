"""Looks answers up and remembers them: keys, tiers, ages and write gates in one place. Knows no wire and no pool.

A trouble here is a miss and a counter, never a failed request.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from backends.contract import BackendError
from cache.contract import Entry, Meaning
from cache.exact import ExactCache
from cache.semantic.lookup import Match, Miss, SemanticCache
from gateway.analyze import Features
from gateway.answer import Answer, UnreadableAnswerError, pack, unpack
from gateway.cache_control import CacheStatus
from gateway.identity import compatibility, scoped
from gateway.request import Directives, Request
from gateway.telemetry import Telemetry
from gateway.write_gate import write_gate

# Answers that stay unpacked beside their bytes: the most recent ones, and none that is large.
_UNPACKED_ANSWERS = 1024
_UNPACKED_MAX_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Hit:
    """A remembered answer, and what to tell the client of where it came from."""

    answer: Answer
    status: CacheStatus


@dataclass(frozen=True, slots=True)
class Embedder:
    """Turns a text into the bytes of a normalised vector. Raises `BackendError`, also where the text is too long."""

    version: str
    embed: Callable[[str], Awaitable[bytes]]


class Recall:
    """The caches as the pipeline sees them. Without an `Embedder` nothing is found by meaning."""

    def __init__(
        self,
        exact: ExactCache,
        semantic: SemanticCache | None,
        embedder: Embedder | None,
        telemetry: Telemetry,
        *,
        clock: Callable[[], float],
        exact_ttl_s: float,
        semantic_ttl_s: float,
        embed_deadline_s: float,
    ) -> None:
        self._exact = exact
        self._semantic = semantic
        self._embedder = embedder
        self._telemetry = telemetry
        self._clock = clock
        self._exact_ttl_s = exact_ttl_s
        self._semantic_ttl_s = semantic_ttl_s
        self._embed_deadline_s = embed_deadline_s
        self._unpack_small = functools.lru_cache(_UNPACKED_ANSWERS)(unpack)

    def key(self, features: Features, version: str) -> bytes:
        """Return the exact key of a request for one model version, within its tenant."""
        return scoped(features.fingerprint, features.scope, version)

    async def same(self, features: Features, directives: Directives, versions: Sequence[str]) -> Hit | None:
        """Return the answer to the same request from any of these model versions."""
        hit = self.in_memory(features, directives, versions)
        for version in versions if hit is None else ():
            entry = await self._exact.get(self.key(features, version))
            if entry is not None and (hit := self._hit(entry, directives, "exact")) is not None:
                break
        return hit

    def in_memory(self, features: Features, directives: Directives, versions: Sequence[str]) -> Hit | None:
        """Return the answer to the same request if it is in memory; never waits."""
        for version in versions:
            entry = self._exact.peek(self.key(features, version))
            if entry is not None and (hit := self._hit(entry, directives, "exact")) is not None:
                return hit
        return None

    async def meanings(self, request: Request, features: Features, versions: Sequence[str]) -> dict[str, Meaning]:
        """Return the request's meaning for each model version; empty where it has none, or not in time."""
        if self._semantic is None or self._embedder is None or not features.by_meaning:
            return {}
        assert request.asked is not None
        try:
            async with asyncio.timeout(self._embed_deadline_s):
                vector = await self._embedder.embed(request.asked)
        except (BackendError, TimeoutError) as error:
            self._telemetry.semantic(type(error).__name__)
            return {}
        shape = compatibility(request)
        return {
            version: Meaning(scoped(shape, features.scope, version, self._embedder.version), request.asked, vector)
            for version in versions
        }

    async def alike(self, meanings: Iterable[Meaning], directives: Directives) -> Hit | None:
        """Return the answer to a request that means the same."""
        for meaning in meanings:
            found = await self.search(meaning)
            if not isinstance(found, Match):
                self._telemetry.semantic(found.reason)
            elif (hit := self._hit(found.entry, directives, "semantic", found.matched_text)) is not None:
                self._telemetry.semantic("hit")
                return hit
        return None

    async def search(self, meaning: Meaning) -> Match | Miss:
        """Search the semantic cache: the match, or why there is none."""
        assert self._semantic is not None, "a meaning is made only where there is a semantic cache"
        return await self._semantic.find(meaning.partition, meaning.text, meaning.vector)

    def keep(self, features: Features, answer: Answer, meanings: Mapping[str, Meaning]) -> None:
        """Remember an answer if every write gate lets it through, under the meaning for the version that made it."""
        if write_gate(features, answer) is not None:
            return
        now = self._clock()
        meaning = meanings.get(answer.head.version)
        ttl_s = self._exact_ttl_s if meaning is None else min(self._exact_ttl_s, self._semantic_ttl_s)
        key = self.key(features, answer.head.version)
        entry = Entry(key, pack(answer), stored_at=now, expires_at=now + ttl_s, meaning=meaning)
        self._exact.keep(entry)
        if meaning is not None and self._semantic is not None:
            self._semantic.add(entry)

    def _hit(self, entry: Entry, directives: Directives, detail: str, matched: str | None = None) -> Hit | None:
        now = self._clock()
        age_s = max(0, int(now - entry.stored_at))
        if directives.max_age_s is not None and age_s > directives.max_age_s:
            return None
        try:
            answer = (self._unpack_small if len(entry.value) <= _UNPACKED_MAX_BYTES else unpack)(entry.value)
        except UnreadableAnswerError:
            self._telemetry.cache_trouble(detail)
            return None
        ttl_s = int(entry.expires_at - now)
        return Hit(answer, CacheStatus(hit=True, detail=detail, ttl_s=ttl_s, age_s=age_s, matched=matched))
