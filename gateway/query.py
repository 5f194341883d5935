"""A request under way: what is known of it, what the caches had, and what came of it. Knows no cache and no pool."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from backends.contract import Job
from backends.value import value
from cache.contract import Meaning
from cache.flight import Seat
from cache.semantic.evidence import Match, Miss
from gateway.analyze import Features
from gateway.answer import Answer, Head
from gateway.caching.cache_control import CacheStatus, Forward
from gateway.caching.identity import scoped
from gateway.caching.meaning import Meanings
from gateway.caching.recall import Hit
from gateway.callers.limits import Permit
from gateway.callers.preferences import NO_PREFERENCES, Preferences
from gateway.request import Caller, Directives, Request
from gateway.routes import Route
from gateway.running import Item


@value
class Query:
    """A request under way: who asks, what is known of it, which models may answer, and whose answers it is served.

    It came at `arrived` (monotonic seconds). `permit` is settled with its accounts.
    """

    request: Request
    caller: Caller
    directives: Directives
    route: Route
    features: Features
    permit: Permit
    arrived: float
    targets: Sequence[str]
    versions: Sequence[str]
    preferences: Preferences = NO_PREFERENCES

    @property
    def reusable(self) -> bool:
        """Whether it may be served an answer that was made for another, and others may be served its own."""
        return self.features.cacheable and not self.directives.no_cache

    def wait_s(self, job: Job) -> float | None:
        """Return how long a job of it would wait for a slot, where that was said; what is in the background waits."""
        return math.inf if job.background else self.preferences.wait_s

    def shared_key(self, *, background: bool, epoch: int = 0) -> bytes:
        """Return what names the work that it may share: what yields to all others is shared by such alone.

        Nobody joins what began in another `epoch` of the purges, nor what a model may answer that it would not be
        answered by.
        """
        pace = ("background",) if background else ()
        preferred = (f"prefers {self.route.preferred}",) if self.route.preferred else ()
        since = (f"purged at {epoch}",) if epoch else ()
        return scoped(self.features.fingerprint, self.features.scope, *self.versions, *pace, *preferred, *since)


class Sought(NamedTuple):
    """What a search for the text `asked` came to, and under which name trust learns of it."""

    namespace: str
    asked: str
    found: Match | Miss


class Looked(NamedTuple):
    """What the caches had: a hit, or why the request goes on, and the meanings that its answer is to be found by."""

    hit: Hit | None
    forward: Forward = "miss"
    meanings: Mapping[str, Meaning] = {}
    spare: Hit | None = None

    @property
    def sought(self) -> "Sought | None":
        """What the search by meaning came to, where there was one."""
        meanings = self.meanings
        if not isinstance(meanings, Meanings) or meanings.sought is None:
            return None
        return Sought(meanings.namespace, meanings.text, meanings.sought)


class Kept:
    """Whether an answer was remembered, once that is known."""

    __slots__ = ("stored",)

    def __init__(self) -> None:
        self.stored = False


@value
class Outcome:
    """What the pipeline found or began: a complete answer, or a seat in a flight whose `head` has come.

    `lookup_s` is the time that the caches took. `permit` is settled where the answer is complete, else by who reads the
    outcome to its end. `job` is what was asked, at `arrived` (monotonic seconds). `spare` is served where the flight
    fails before its answer has begun to go out. `sought` is what the search by meaning came to, where there was one;
    `parts` are the fingerprints of its inputs, where each was looked for by itself.
    """

    head: Head
    status: CacheStatus
    lookup_s: float
    features: Features
    permit: Permit
    job: Job
    arrived: float
    answer: Answer | None = None
    seat: Seat[Item] | None = None
    kept: Kept | None = None
    spare: Hit | None = None
    sought: Sought | None = None
    parts: Sequence[bytes] = ()


async def head_of(seat: Seat[Item]) -> Head:
    """Wait for a flight's head; where none comes, the seat is left."""
    try:
        head = await anext(aiter(seat))
    except BaseException:
        await seat.leave()
        raise
    assert type(head) is Head
    return head


def missed(features: Features, forward: Forward, *, collapsed: bool = False, stored: bool = False) -> CacheStatus:
    """Return the status of a request that a model answers, and why it went there."""
    if not features.cacheable:
        return CacheStatus(forward="bypass", detail=features.reason)
    return CacheStatus(forward=forward, collapsed=collapsed, stored=stored)
