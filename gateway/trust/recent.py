"""Remembers what was decided for recent requests, by their ids: for feedback, and to explain it. Knows no page.

Texts stay in memory and are never written; what feedback needs of a hit by meaning is kept for a day, without any text.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgpack

from cache.semantic.evidence import Match
from cache.trust.contract import Pair
from cache.trust.journal import Journal
from gateway.caching.identity import scoped
from gateway.query import Outcome
from gateway.trust.explaining import Weighed, line, weighed

T = TypeVar("T")

_MOST_HITS = 20_000
_MOST_DECISIONS = 2_000


@dataclass(frozen=True, slots=True)
class ServedHit:
    """What a request was served from the cache: the entry's key, and for one by meaning the pair and its confidence."""

    key: bytes
    namespace: str = ""
    pair: Pair | None = None
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was decided for a request at `at`: in one line, and with the candidates as they stood then."""

    at: float
    namespace: str
    outcome: str
    asked: str
    line: str
    candidates: tuple[Weighed, ...]


class Recent:
    """The last hits and decisions of the process; the journal has those hits by meaning that it has forgotten."""

    def __init__(self, journal: Journal | None, clock: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._clock = clock
        self._hits: OrderedDict[str, ServedHit] = OrderedDict()
        self._decisions: OrderedDict[str, Recalled] = OrderedDict()
        self.served_by_bytes: Callable[[str], bytes | None] | None = None
        """Tells the key of what a request was answered with that never came here."""

    def note(self, request_id: str, outcome: Outcome) -> None:
        """Remember what came of a request."""
        sought, status = outcome.sought, outcome.status
        if sought is None:
            if status.hit:
                features = outcome.features
                key = scoped(features.fingerprint, features.scope, outcome.head.version)
                _put(self._hits, request_id, ServedHit(key), _MOST_HITS)
            return
        found = sought.found
        candidates = tuple(map(weighed, found.candidates))
        told = Recalled(self._clock(), sought.namespace, status.label(), sought.asked, line(sought), candidates)
        _put(self._decisions, request_id, told, _MOST_DECISIONS)
        if isinstance(found, Match) and status.hit:
            hit = ServedHit(found.entry.key, sought.namespace, found.pair, found.confidence)
            _put(self._hits, request_id, hit, _MOST_HITS)
            if self._journal is not None:
                self._journal.note_hit(request_id, _pack(hit), self._clock())

    async def hit(self, request_id: str) -> ServedHit | None:
        """Return what a request was served from the cache, or None where that is not known any more."""
        found = self._hits.get(request_id)
        if found is None and self.served_by_bytes is not None and (key := self.served_by_bytes(request_id)) is not None:
            return ServedHit(key)
        if found is None and self._journal is not None and (packed := await self._journal.hit(request_id)) is not None:
            found = _unpack(packed)
        return found

    def decision(self, request_id: str) -> Recalled | None:
        """Return what was decided for a request, or None where that is not known any more."""
        return self._decisions.get(request_id)


def _put(memory: "OrderedDict[str, T]", request_id: str, item: T, most: int) -> None:
    memory[request_id] = item
    if len(memory) > most:
        memory.popitem(last=False)


def _pack(hit: ServedHit) -> bytes:
    assert hit.pair is not None, "only hits by meaning are kept"
    packed: bytes = msgpack.packb((hit.key, hit.namespace, hit.pair.asked, hit.pair.stored, hit.confidence))
    return packed


def _unpack(packed: bytes) -> ServedHit | None:
    try:
        key, namespace, asked, stored, confidence = msgpack.unpackb(packed)
    except (ValueError, TypeError, msgpack.UnpackException):
        return None
    return ServedHit(key, namespace, Pair(asked, stored), confidence)
