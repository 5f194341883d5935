"""Looks answers up and remembers them: keys, tiers, ages and write gates in one place. Knows no wire and no pool.

A trouble here is a miss and a counter, never a failed request.
"""

import asyncio
import functools
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from backends.value import value
from cache.contract import Entry, Meaning
from cache.exact import ExactCache
from cache.flight import SingleFlight
from cache.purges import of_key, of_model, of_version
from cache.semantic.contract import Objection, Objects
from cache.semantic.evidence import Match, Miss
from cache.semantic.lookup import SemanticCache
from gateway.analyze import Features
from gateway.answer import Answer, UnreadableAnswerError, pack, unpack
from gateway.caching.cache_control import CacheStatus, Forward
from gateway.caching.elsewhere import Elsewhere
from gateway.caching.freshness import Use, age_of, jittered, shortened, use_of
from gateway.caching.identity import PARTITION_EPOCH, compatibility, scoped
from gateway.caching.meaning import EMBEDDING_TROUBLES, NO_MEANINGS, Embedder, Embeddings, Meanings
from gateway.caching.neighbours import Neighbours
from gateway.caching.write_gate import write_gate
from gateway.counting.telemetry import Telemetry
from gateway.errors import fault
from gateway.request import Directives, Request
from gateway.running import Item

T = TypeVar("T")

# Answers that stay unpacked beside their bytes: the most recent ones, and none that is large.
_UNPACKED_ANSWERS = 1024
_UNPACKED_MAX_BYTES = 64 * 2**10
# Of the inputs of one request.
_READ_AT_ONCE = 64


# What a stale answer may stand in for (RFC 5861 §4).
_OUTAGES = (500, 502, 503, 504)


@value
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
        budget_s: float,
        max_stale_s: float = 0.0,
        jitter: float = 0.0,
        elsewhere: Elsewhere | None = None,
        wait_s: float = 0.0,
    ) -> None:
        self._exact = exact
        self._semantic = semantic
        self._embeddings = None if embedder is None else Embeddings(embedder)
        self._telemetry = telemetry
        self._clock = clock
        self._exact_ttl_s = exact_ttl_s
        self._semantic_ttl_s = semantic_ttl_s
        self._budget_s = budget_s
        self._max_stale_s = max_stale_s
        self._jitter = jitter
        self._elsewhere = elsewhere
        self._wait_s = wait_s
        self._unpack_small = functools.lru_cache(_UNPACKED_ANSWERS)(unpack)

    def key(self, features: Features, version: str) -> bytes:
        """Return the exact key of a request for one model version, within its tenant."""
        return scoped(features.fingerprint, features.scope, version)

    async def close(self) -> None:
        """Let go of the vectors that are still on their way."""
        if self._embeddings is not None:
            await self._embeddings.close()

    def neighbours(self, flights: SingleFlight[Item]) -> Neighbours:
        """Return what lets requests in these flights find each other by meaning."""
        return Neighbours(self._semantic, flights)

    def stamp(self) -> int:
        """Return what an answer that is asked for now is stamped with: a purge from here on ends it."""
        return self._exact.purges.stamp()

    def epoch(self, features: Features, models: Sequence[str], versions: Sequence[str]) -> int:
        """Return which purge of what answers this request was the latest; 0 where there was none."""
        purges = self._exact.purges
        if not purges.newest:
            return 0
        made = [*map(of_model, models), *map(of_version, versions)]
        return purges.latest(
            (*features.keeping.groups, *made, *[of_key(self.key(features, version)) for version in versions])
        )

    async def same(self, features: Features, directives: Directives, versions: Sequence[str]) -> Found:
        """Look for the answer to the same request from any of these model versions."""
        found = _NOTHING
        now = self._clock()
        for version in versions:
            key = self.key(features, version)
            entry = self._exact.peek(key) or await self._exact.get(key)
            if entry is None:
                continue
            entry = self._shortened(entry, features)
            if (hit := self._hit(entry, directives)) is not None:
                return Found(hit)
            found = Found(None, "stale" if entry.fresh_until <= now else "request")
        return found

    async def several(
        self, features: Features, fingerprints: Sequence[bytes], directives: Directives, version: str
    ) -> list[Hit | None]:
        """Return the answer of one model version to each of several requests of one caller."""
        keys = [scoped(fingerprint, features.scope, version) for fingerprint in fingerprints]
        entries = [self._exact.peek(key) for key in keys]
        missing = [place for place, entry in enumerate(entries) if entry is None]
        for start in range(0, len(missing), _READ_AT_ONCE):
            places = missing[start : start + _READ_AT_ONCE]
            read = await asyncio.gather(*[self._exact.get(keys[place]) for place in places])
            for place, entry in zip(places, read, strict=True):
                entries[place] = entry
        return [None if each is None else self._hit(self._shortened(each, features), directives) for each in entries]

    def in_memory(self, features: Features, directives: Directives, versions: Sequence[str]) -> Hit | None:
        """Return the answer to the same request if it is in memory; never waits."""
        for version in versions:
            entry = self._exact.peek(self.key(features, version))
            if entry is not None and (hit := self._hit(self._shortened(entry, features), directives)) is not None:
                return hit
        return None

    @property
    def leads(self) -> bool:
        """Whether other gateways may be making an answer at this moment."""
        return self._elsewhere is not None and self._elsewhere.leads

    async def elsewhere(
        self, work: bytes, features: Features, directives: Directives, versions: Sequence[str], within_s: float
    ) -> Hit | None:
        """Return the answer that another gateway is making, once it is made; None where it is to be made here."""
        assert self._elsewhere is not None, "`leads` comes first"

        def hit(entry: Entry) -> Hit | None:
            return self._hit(self._shortened(entry, features), directives)

        def fits(entry: Entry) -> bool:
            return not self._exact.purges.is_dead(entry) and hit(entry) is not None

        keys = [self.key(features, version) for version in versions]
        entry = await self._elsewhere.ask(work, keys, fits, min(self._wait_s, within_s))
        if entry is not None and self._exact.adopt(entry):
            return hit(entry)
        # Who waited here for the same lease may have made it meanwhile.
        return self.in_memory(features, directives, versions)

    def lead(self, work: bytes | None, make: Callable[[], AsyncIterator[T]]) -> Callable[[], AsyncIterator[T]]:
        """Return the work so that other gateways which wait for it learn of its end."""
        return make if self._elsewhere is None or work is None else self._elsewhere.lead(work, make)

    async def spare(self, features: Features, directives: Directives, versions: Sequence[str]) -> Hit | None:
        """Return an answer that the client takes where no model can give one (RFC 5861 §4), or None."""
        if not directives.stale_if_error_s or not features.cacheable:
            return None
        for version in versions:
            entry = await self._exact.get(self.key(features, version))
            now = self._clock()
            if entry is None:
                continue
            entry = self._shortened(entry, features)
            if use_of(entry, now, directives, self._max_stale_s) is not Use.NONE:
                return self._served(entry, now, "stale-if-error")
        return None

    @staticmethod
    def partitions(request: Request, scope: str, embedder: str, versions: Sequence[str]) -> dict[str, bytes]:
        """Return for each model version the partition that this question may match in, and no other."""
        shape = compatibility(request)
        return {version: scoped(shape, scope, version, embedder, PARTITION_EPOCH) for version in versions}

    async def meanings(self, request: Request, features: Features, versions: Sequence[str]) -> Meanings:
        """Return the request's meaning for each model version; empty where it has none, or not yet."""
        if self._semantic is None or self._embeddings is None or not features.by_meaning:
            return NO_MEANINGS
        assert request.asked is not None
        if self._embeddings.max_chars is not None and len(request.asked) > self._embeddings.max_chars:
            return NO_MEANINGS
        partitions = self.partitions(request, features.scope, self._embeddings.version, versions)
        namespace = f"{features.task}/{request.model}/{features.scope}"
        meanings = Meanings(namespace, request.asked, partitions, self._budget_s)
        meanings.ttl_s = self._ttl_s(features, by_meaning=True)
        try:
            await meanings.arrive(self._embeddings)
        except TimeoutError:
            meanings.sought = Miss("deadline")
            self._telemetry.semantic("deadline")
        except EMBEDDING_TROUBLES as error:
            self._telemetry.semantic(type(error).__name__)
        return meanings

    async def alike(self, meanings: Meanings, directives: Directives) -> Hit | None:
        """Return the answer to a request that means the same."""
        taken: dict[bytes, Hit] = {}
        objects = self.objections(meanings, directives, taken)
        for meaning in meanings.values():
            found = await self.search(meanings.namespace, meaning, meanings.left_s, objects)
            meanings.sought = found
            self._telemetry.semantic("hit" if isinstance(found, Match) else found.reason)
            if isinstance(found, Match):
                return taken[found.entry.key]
        return None

    def objections(self, meanings: Meanings, directives: Directives, taken: dict[bytes, Hit]) -> Objects:
        """Return what tells why an entry that means the same is not to be served now; what may be is put in `taken`."""

        def objects(entry: Entry) -> Objection | None:
            assert entry.meaning is not None, "it was found by it"
            aged = shortened(entry, meanings.ttl_s, self._jitter)
            judged = self._judged(aged, directives, "semantic", entry.meaning.text)
            if isinstance(judged, Hit):
                taken[entry.key] = judged
                return None
            return judged

        return objects

    async def search(
        self,
        namespace: str,
        meaning: Meaning,
        within_s: float,
        objects: Objects | None = None,
        *,
        thoroughly: bool = False,
    ) -> Match | Miss:
        """Search the semantic cache: the match, or why there is none."""
        assert self._semantic is not None, "a meaning is made only where there is a semantic cache"
        return await self._semantic.find(namespace, meaning, within_s, objects=objects, thoroughly=thoroughly)

    def keep(self, features: Features, answer: Answer, meanings: Mapping[str, Meaning], stamp: int) -> bool:
        """Remember an answer if every write gate lets it through, under the meaning for the version that made it.

        It was asked for at `stamp`: one that a purge has overtaken is let go. Tell whether it is remembered.
        """
        if write_gate(features, answer) is not None:
            return False
        now, keeping, head = self._clock(), features.keeping, answer.head
        meaning = meanings.get(head.version)
        coming = isinstance(meanings, Meanings) and meanings.is_coming
        ttl_s = self._ttl_s(features, by_meaning=meaning is not None or coming)
        key = self.key(features, head.version)
        fresh_until = now + jittered(ttl_s, self._jitter, key)
        entry = Entry(
            key,
            pack(answer),
            stored_at=now,
            expires_at=fresh_until + self._max_stale_s,
            meaning=meaning,
            stale_s=self._max_stale_s,
            groups=(*keeping.groups, of_model(head.model), of_version(head.version)),
            stamp=stamp,
        )
        if not self._exact.keep(entry):
            return False
        if meaning is not None and self._semantic is not None:
            self._semantic.add(entry)
        elif isinstance(meanings, Meanings) and meanings.is_coming:
            meanings.when_arrived(functools.partial(self._keep_meaning, entry, meanings, head.version))
        return True

    def _keep_meaning(self, entry: Entry, meanings: Meanings, version: str) -> None:
        """Let an answer be found by its meaning too, unless another has taken its place since."""
        if self._semantic is not None and self._exact.peek(entry.key) is entry:
            told = replace(entry, meaning=meanings[version])
            self._exact.keep(told)
            self._semantic.add(told)

    def _ttl_s(self, features: Features, *, by_meaning: bool) -> float:
        ttl_s = features.keeping.ttl_s
        ttl_s = self._exact_ttl_s if ttl_s is None else ttl_s
        return min(ttl_s, self._semantic_ttl_s) if by_meaning else ttl_s

    def _shortened(self, entry: Entry, features: Features) -> Entry:
        """Return an entry as it is to be judged: its time ends as if it had been kept under today's settings."""
        return shortened(entry, self._ttl_s(features, by_meaning=entry.meaning is not None), self._jitter)

    def _hit(self, entry: Entry, directives: Directives, detail: str = "exact") -> Hit | None:
        judged = self._judged(entry, directives, detail)
        return judged if isinstance(judged, Hit) else None

    def _judged(self, entry: Entry, directives: Directives, detail: str, matched: str | None = None) -> Hit | Objection:
        """Return what an entry is to this client: a hit, or why it is none."""
        now = self._clock()
        use = use_of(entry, now, directives, self._max_stale_s)
        if use is not Use.SERVE and use is not Use.RENEW:
            return "request" if now < entry.fresh_until else "gone"
        hit = self._served(entry, now, detail, matched)
        if hit is None:
            return "gone"
        return hit if use is Use.SERVE else replace(hit, renew=True)

    def _served(self, entry: Entry, now: float, detail: str, matched: str | None = None) -> Hit | None:
        try:
            answer = (self._unpack_small if len(entry.value) <= _UNPACKED_MAX_BYTES else unpack)(entry.value)
        except UnreadableAnswerError:
            self._telemetry.cache_trouble(detail)
            return None
        ttl_s = math.floor(entry.fresh_until - now)
        status = CacheStatus(hit=True, detail=detail, ttl_s=ttl_s, age_s=age_of(entry, now), matched=matched)
        return Hit(answer, status, meaning=entry.meaning)


def collapsed(hit: Hit | None) -> Hit | None:
    """Return a hit whose answer was made for a request in flight, and waited for: by RFC 9211 that is no hit."""
    return hit and replace(hit, status=replace(hit.status, hit=False, forward="miss", collapsed=True))


def in_place_of(error: Exception, spare: Hit) -> CacheStatus | None:
    """Return the status of an answer that is served in place of an error (RFC 5861 §4), or None: of others it is not.

    The request was forwarded, so that this is no hit (RFC 9211 §2.2).
    """
    status = fault(error).status
    if status not in _OUTAGES:
        return None
    return replace(spare.status, hit=False, forward="stale", forward_status=status)
