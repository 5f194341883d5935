"""Looks for what answers a request: the same one, one that means the same, or one of either kind that is under way.

Knows no model, and not what becomes of a request for which nothing is found.
"""

from collections.abc import Callable, Mapping

from cache.contract import Meaning
from cache.flight import SingleFlight
from gateway.caching.cache_control import Forward
from gateway.caching.meaning import NO_MEANINGS, Meanings
from gateway.caching.recall import Found, Hit, Recall, collapsed
from gateway.query import Looked, Query
from gateway.running import Item
from gateway.trust.audit import Auditor


class Search:
    """Searches the caches, where there are any, and the work in the air."""

    def __init__(
        self,
        recall: Recall | None,
        flights: SingleFlight[Item],
        auditor: Auditor | None,
        clock: Callable[[], float],
    ) -> None:
        self._recall = recall
        self._flights = flights
        self._auditor = auditor
        self._clock = clock
        self._neighbours = None if recall is None else recall.neighbours(flights)

    async def look(self, query: Query) -> Looked:
        """Look for the same request, then for one that means the same. Its meanings are to be `left`."""
        recall, features, directives, versions = self._recall, query.features, query.directives, query.versions
        found, meanings = Found(None, "request" if directives.no_cache else "miss"), NO_MEANINGS
        if recall is None or not features.cacheable:
            return Looked(None, found.forward)
        try:
            if query.reusable:
                found = await recall.same(features, directives, versions)
                if found.hit is None and not self._flights.waiters(
                    self.shared(query, background=query.request.job.background)
                ):
                    meanings = await recall.meanings(query.request, features, versions)
                    # While the caches were asked, an identical run may have ended: what it left is in memory now.
                    hit = recall.in_memory(features, directives, versions)
                    hit = hit or await self._alike(recall, query, meanings)
                    if self._auditor is not None:
                        self._auditor.looked(meanings, query.request.job, hit)
                    forward: Forward = "request" if meanings.turned_down and found.forward == "miss" else found.forward
                    found = Found(hit or recall.in_memory(features, directives, versions), forward)
                    if found.hit is None and recall.leads and not directives.only_if_cached:
                        found = Found(await self._elsewhere(recall, query), found.forward)
            spare = None if found.hit else await recall.spare(features, directives, versions)
        except BaseException:
            self.left(meanings)
            raise
        return Looked(found.hit, found.forward, meanings, spare)

    def shared(self, query: Query, *, background: bool) -> bytes:
        """Return what names the work that a request may share now: none that began before its last purge."""
        models = (*query.targets, *query.route.fallback)
        epoch = 0 if self._recall is None else self._recall.epoch(query.features, models, query.versions)
        return query.shared_key(background=background, epoch=epoch)

    def begun(self, meanings: Mapping[str, Meaning], shared: bytes) -> None:
        """Note that work began whose answer is to be found by these meanings."""
        if self._neighbours is not None:
            self._neighbours.begun(meanings, shared)

    def left(self, meanings: Mapping[str, Meaning], *, landed: bool = False) -> None:
        """Note that a request for these meanings looks no more, or that its answer has `landed`."""
        if self._neighbours is not None:
            self._neighbours.left(meanings, landed=landed)

    async def _alike(self, recall: Recall, query: Query, meanings: Meanings) -> Hit | None:
        """Look for the answer to a request that means the same: one that is kept, or that is being made."""
        directives = query.directives
        if query.request.job.background or directives.only_if_cached:
            return await recall.alike(meanings, directives)
        neighbours = self._neighbours
        assert neighbours is not None, "there are caches"
        neighbours.board(meanings)
        hit = await recall.alike(meanings, directives)
        if hit is not None:
            return hit
        own, within_s = self.shared(query, background=False), (query.features.deadline_s - self._clock()) / 2
        if await neighbours.waited(meanings, own, within_s):
            meanings.look_again()
            hit = collapsed(await recall.alike(meanings, directives))
        return hit

    async def _elsewhere(self, recall: Recall, query: Query) -> Hit | None:
        """Wait for an answer that another gateway is making, but keep enough time to make it here."""
        work = self.shared(query, background=query.request.job.background)
        within_s = (query.features.deadline_s - self._clock()) / 2
        return await recall.elsewhere(work, query.features, query.directives, query.versions, within_s)
