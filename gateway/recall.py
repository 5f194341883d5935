"""Looks answers up and remembers them: keys, tiers, ages and write gates in one place. Knows no wire and no pool.

A trouble here is a miss and a counter, never a failed request.
"""

import asyncio
import functools
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from backends.contract import BackendError
from cache.contract import Entry, Meaning
from cache.exact import ExactCache
from cache.semantic.lookup import Match, Miss, SemanticCache
from gateway.analyze import Features
from gateway.answer import Answer, UnreadableAnswerError, pack, unpack
from gateway.cache_control import CacheStatus, Forward
from gateway.errors import fault
from gateway.freshness import Use, age_of, jittered, use_of
from gateway.identity import compatibility, scoped
from gateway.request import Directives, Request
from gateway.telemetry import Telemetry
from gateway.write_gate import write_gate

# Answers that stay unpacked beside their bytes: the most recent ones, and none that is large.
_UNPACKED_ANSWERS = 1024
_UNPACKED_MAX_BYTES = 64 * 2**10


# What a stale answer may stand in for (RFC 5861 §4).
_OUTAGES = (500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Hit:
    """A remembered answer, and what to tell the client of where it came from.

    `renew` says that the client takes it as it is while it is made anew; `meaning` is what it is found by besides.
    """

    answer: Answer
    status: CacheStatus
    renew: bool = False
    meaning: Meaning | None = None


class Found(NamedTuple):
    """What a look-up came to: a hit, or why the request goes on."""

    hit: Hit | None
    forward: Forward = "miss"


_NOTHING = Found(None)


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
        max_stale_s: float = 0.0,
        jitter: float = 0.0,
    ) -> None:
        self._exact = exact
        self._semantic = semantic
        self._embedder = embedder
        self._telemetry = telemetry
        self._clock = clock
        self._exact_ttl_s = exact_ttl_s
        self._semantic_ttl_s = semantic_ttl_s
        self._embed_deadline_s = embed_deadline_s
        self._max_stale_s = max_stale_s
        self._jitter = jitter
        self._unpack_small = functools.lru_cache(_UNPACKED_ANSWERS)(unpack)

    def key(self, features: Features, version: str) -> bytes:
        """Return the exact key of a request for one model version, within its tenant."""
        return scoped(features.fingerprint, features.scope, version)

    async def same(self, features: Features, directives: Directives, versions: Sequence[str]) -> Found:
        """Look for the answer to the same request from any of these model versions."""
        found = _NOTHING
        now = self._clock()
        for version in versions:
            key = self.key(features, version)
            entry = self._exact.peek(key) or await self._exact.get(key)
            if entry is None:
                continue
            if (hit := self._hit(entry, directives, "exact")) is not None:
                return Found(hit)
            found = Found(None, "stale" if entry.fresh_until <= now else "request")
        return found

    def in_memory(self, features: Features, directives: Directives, versions: Sequence[str]) -> Hit | None:
        """Return the answer to the same request if it is in memory; never waits."""
        for version in versions:
            entry = self._exact.peek(self.key(features, version))
            if entry is not None and (hit := self._hit(entry, directives, "exact")) is not None:
                return hit
        return None

    async def spare(self, features: Features, directives: Directives, versions: Sequence[str]) -> Hit | None:
        """Return an answer that the client takes where no model can give one (RFC 5861 §4), or None."""
        if not directives.stale_if_error_s or not features.cacheable:
            return None
        for version in versions:
            entry = await self._exact.get(self.key(features, version))
            if entry is not None and use_of(entry, self._clock(), directives, self._max_stale_s) is not Use.NONE:
                return self._served(entry, "stale-if-error")
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

    def keep(self, features: Features, answer: Answer, meanings: Mapping[str, Meaning]) -> bool:
        """Remember an answer if every write gate lets it through, under the meaning for the version that made it.

        Tell whether it is remembered.
        """
        if write_gate(features, answer) is not None:
            return False
        now, keeping, head = self._clock(), features.keeping, answer.head
        meaning = meanings.get(head.version)
        ttl_s = self._exact_ttl_s if keeping.ttl_s is None else keeping.ttl_s
        ttl_s = ttl_s if meaning is None else min(ttl_s, self._semantic_ttl_s)
        key = self.key(features, head.version)
        fresh_until = now + jittered(ttl_s, self._jitter, key)
        entry = Entry(
            key,
            pack(answer),
            stored_at=now,
            expires_at=fresh_until + self._max_stale_s,
            meaning=meaning,
            stale_s=self._max_stale_s,
            groups=(*keeping.groups, f"model:{head.model}", f"version:{head.version}"),
        )
        self._exact.keep(entry)
        if meaning is not None and self._semantic is not None:
            self._semantic.add(entry)
        return True

    def _hit(self, entry: Entry, directives: Directives, detail: str, matched: str | None = None) -> Hit | None:
        use = use_of(entry, self._clock(), directives, self._max_stale_s)
        if use is not Use.SERVE and use is not Use.RENEW:
            return None
        hit = self._served(entry, detail, matched)
        return hit if hit is None or use is Use.SERVE else replace(hit, renew=True)

    def _served(self, entry: Entry, detail: str, matched: str | None = None) -> Hit | None:
        try:
            answer = (self._unpack_small if len(entry.value) <= _UNPACKED_MAX_BYTES else unpack)(entry.value)
        except UnreadableAnswerError:
            self._telemetry.cache_trouble(detail)
            return None
        now = self._clock()
        ttl_s = math.floor(entry.fresh_until - now)
        status = CacheStatus(hit=True, detail=detail, ttl_s=ttl_s, age_s=age_of(entry, now), matched=matched)
        return Hit(answer, status, meaning=entry.meaning)


def in_place_of(error: Exception, spare: Hit) -> CacheStatus | None:
    """Return the status of an answer that is served in place of an error (RFC 5861 §4), or None: of others it is not.

    The request was forwarded, so that this is no hit (RFC 9211 §2.2).
    """
    status = fault(error).status
    if status not in _OUTAGES:
        return None
    return replace(spare.status, hit=False, forward="stale", forward_status=status)
