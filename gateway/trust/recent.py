"""Remembers what was decided for recent requests, by their ids: for feedback, and to explain it. Knows no page.

Texts stay in memory and are never written; what feedback needs of a hit by meaning is kept for a day, without any text.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import msgpack

from cache.semantic.evidence import Match
from cache.trust.contract import Pair
from cache.trust.journal import Journal
from gateway.caching.cache_control import CacheStatus
from gateway.caching.identity import scoped
from gateway.query import Outcome
from gateway.trust.explaining import Weighed, line, weighed

_MOST_HITS = 20_000
_MOST_DECISIONS = 2_000


@dataclass(frozen=True, slots=True)
class ServedHit:
    """What a request was served from the cache: the entries' keys, and for one by meaning the pair and its confidence.

    There is one key, but for a request of several inputs, each of which is cached by itself.
    """

    keys: tuple[bytes, ...]
    namespace: str = ""
    pair: Pair | None = None
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search by meaning came to: in one line, and with the candidates as they stood then."""

    namespace: str
    asked: str
    line: str
    candidates: tuple[Weighed, ...]


@dataclass(frozen=True, slots=True)
class Decided:
    """What the caches did for a request at `at`, and why; `served` is who made its answer, and that answer's key.

    `reason` says why it may be cached, or not.
    All but the status is unknown of who was answered by the bytes of its request alone.
    """

    status: CacheStatus
    at: float | None = None
    served: tuple[str, str, bytes | None] | None = None
    reason: str | None = None
    searched: Searched | None = None


class Recent:
    """The last hits and decisions of the process; the journal, while there is one, has hits by meaning for longer."""

    def __init__(self, journal: Journal | None = None, clock: Callable[[], float] = time.time) -> None:
        self.journal = journal
        self._clock = clock
        self._hits: OrderedDict[str, ServedHit] = OrderedDict()
        self._keys = 0
        self._decisions: OrderedDict[str, Decided] = OrderedDict()
        self.served_by_bytes: Callable[[str], bytes | None] | None = None
        """Tells the key of what a request was answered with that never came here."""

    def note(self, request_id: str, outcome: Outcome) -> None:
        """Remember what came of a request."""
        sought, status, features, head = outcome.sought, outcome.status, outcome.features, outcome.head
        key, searched = None, None
        if sought is not None and isinstance(sought.found, Match):  # also of one that was waited for, which is no hit
            key = self._note_match(request_id, sought.namespace, sought.found)
        elif features.cacheable and not outcome.parts:
            key = scoped(features.fingerprint, features.scope, head.version)
            if status.hit:
                self._note_hit(request_id, ServedHit((key,)))
        elif status.hit:
            keys = tuple([scoped(part, features.scope, head.version) for part in outcome.parts])
            self._note_hit(request_id, ServedHit(keys))
        if sought is not None:
            candidates = tuple(map(weighed, sought.found.candidates))
            searched = Searched(sought.namespace, sought.asked, line(sought), candidates)
        self._decisions[request_id] = Decided(
            status, self._clock(), (head.model, head.version, key), features.reason, searched
        )
        if len(self._decisions) > _MOST_DECISIONS:
            self._decisions.popitem(last=False)

    async def hit(self, request_id: str) -> ServedHit | None:
        """Return what a request was served from the cache, or None where that is not known any more."""
        found = self._hits.get(request_id)
        if found is None and (key := self._by_bytes(request_id)) is not None:
            return ServedHit((key,))
        if found is None and self.journal is not None and (packed := await self.journal.hit(request_id)) is not None:
            found = _unpack(packed)
        return found

    def decision(self, request_id: str) -> Decided | None:
        """Return what was decided for a request, or None where that is not known any more."""
        decided = self._decisions.get(request_id)
        if decided is None and (key := self._by_bytes(request_id)) is not None:
            return Decided(CacheStatus(hit=True, detail="exact"), served=("", "", key))
        return decided

    def _by_bytes(self, request_id: str) -> bytes | None:
        return None if self.served_by_bytes is None else self.served_by_bytes(request_id)

    def _note_match(self, request_id: str, namespace: str, found: Match) -> bytes:
        hit = ServedHit((found.entry.key,), namespace, found.pair, found.confidence)
        self._note_hit(request_id, hit)
        if self.journal is not None:
            self.journal.note_hit(request_id, _pack(hit), self._clock())
        return found.entry.key

    def _note_hit(self, request_id: str, hit: ServedHit) -> None:
        """Remember a hit; each of its keys counts, since a request may have thousands."""
        self._hits[request_id] = hit
        self._keys += len(hit.keys)
        while self._keys > _MOST_HITS:
            _, oldest = self._hits.popitem(last=False)
            self._keys -= len(oldest.keys)


def _pack(hit: ServedHit) -> bytes:
    assert hit.pair is not None, "only hits by meaning are kept"
    packed: bytes = msgpack.packb((hit.keys[0], hit.namespace, hit.pair.asked, hit.pair.stored, hit.confidence))
    return packed


def _unpack(packed: bytes) -> ServedHit | None:
    try:
        key, namespace, asked, stored, confidence = msgpack.unpackb(packed)
    except (ValueError, TypeError, msgpack.UnpackException):
        return None
    return ServedHit((key,), namespace, Pair(asked, stored), confidence)
