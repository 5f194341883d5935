"""Answers requests with several inputs from what is cached of each; only the others go to a model. Knows no wire."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from backends.contract import BackendError, Usage
from cache.flight import Seat, SingleFlight
from gateway.answer import Answer, Head, answer_of
from gateway.caching.cache_control import CacheStatus
from gateway.caching.items import Parted, digest
from gateway.caching.meaning import NO_MEANINGS
from gateway.caching.recall import Hit, Recall, in_place_of
from gateway.caching.timed import TimedSeat
from gateway.errors import NotCached
from gateway.query import Kept, Outcome, Query
from gateway.running import FINAL, Item, Runner

Places = Sequence[int]


class Had(NamedTuple):
    """What is cached of each input from one version of one model: vectors of two models do not mix."""

    model: str
    version: str
    hits: Sequence[Hit | None]

    @property
    def found(self) -> int:
        """How many inputs that is."""
        return sum(hit is not None for hit in self.hits)

    @property
    def stale(self) -> Places:
        """Return the places of what is served while it is made anew."""
        return [place for place, hit in enumerate(self.hits) if hit is not None and hit.renew]


class Made(NamedTuple):
    """What a model answered to the inputs of these places; `answers` is None where that cannot be taken apart."""

    places: Places
    whole: Answer
    answers: Sequence[Answer] | None
    collapsed: bool
    stored: bool


class Answered(NamedTuple):
    """An outcome, the tokens that were used for it, and the places of what was served stale."""

    outcome: Outcome
    tokens: int = 0
    stale: Places = ()


class ByItem:
    """Looks up, asks and remembers input by input. `limit_s` is what the operator gives to work that is shared."""

    def __init__(
        self, recall: Recall, runner: Runner, flights: SingleFlight[Item], clock: Callable[[], float], limit_s: float
    ) -> None:
        self._recall = recall
        self._runner = runner
        self._flights = flights
        self._clock = clock
        self._limit_s = limit_s

    async def answer(self, query: Query, parts: Parted) -> Answered:
        """Answer a request. Raises `NotCached` and `BackendError`."""
        had = await self._had(query, parts)
        missing = _missing(parts.keys, had.hits)
        looked_up = self._clock()
        if not missing:
            return Answered(_outcome(query, parts, *_all_had(parts, had), looked_up), 0, had.stale)
        if not had.found and (found := await self._recall.same(query.features, query.directives, query.versions)).hit:
            return Answered(_outcome(query, None, found.hit.answer, found.hit.status, looked_up))
        if query.directives.only_if_cached:
            raise NotCached("not every input is cached, and the request said 'only-if-cached'")
        try:
            made, had = await self._made(query, parts, missing, had)
        except BackendError as error:
            spare = await self._spare(query, parts, missing, had, error)
            if spare is None:
                raise
            return Answered(_outcome(query, parts, *spare, looked_up))
        status = CacheStatus(
            forward="partial" if had.found else "miss",
            collapsed=made.collapsed,
            stored=made.stored,
            hits=had.found,
            items=len(parts.keys),
        )
        return Answered(
            _outcome(query, parts, _joined(query, parts, had, made), status, looked_up), _tokens(made), had.stale
        )

    def seat(self, query: Query, parts: Parted, places: Places, models: Sequence[str]) -> tuple[Seat[Item], Kept]:
        """Take part in the work on these inputs, or begin it."""
        keys = [parts.keys[place] for place in places]
        named = replace(query, features=replace(query.features, fingerprint=digest(keys)))
        kept, stamp = Kept(), self._recall.stamp()

        def remember(items: Sequence[Item]) -> None:
            kept.stored = self._keep(query, parts, places, _whole(items), stamp=stamp)

        job = parts.job(places)
        if query.request.job.background:
            job = replace(job, background=True)
        answering = (*query.targets, *query.route.fallback)
        seat = self._flights.join(
            named.shared_key(
                background=job.background, epoch=self._recall.epoch(query.features, answering, query.versions)
            ),
            functools.partial(self._runner.run, job, query.arrived + self._limit_s, models),
            remember,
        )
        return seat, kept

    async def _had(self, query: Query, parts: Parted) -> Had:
        """Return what the model has that has most."""
        best: Had | None = None
        answering = (*query.targets, *query.route.fallback)
        for model, version in zip(answering, query.versions, strict=False):
            hits = await self._recall.several(query.features, parts.keys, query.directives, version)
            had = Had(model, version, hits)
            if best is None or had.found > best.found:
                best = had
            if best.found == len(hits):
                break
        assert best is not None, "there is always a candidate"
        return best

    async def _made(self, query: Query, parts: Parted, missing: Places, had: Had) -> tuple[Made, Had]:
        """Ask for what is missing: the model that has the rest, and where that fails another for everything."""
        models = self._runner.order(query.route, query.features, query.targets, query.wait_s(query.request.job))
        nothing = Had(had.model, had.version, [None] * len(parts.keys))
        everything = _missing(parts.keys, nothing.hits)
        if had.found:
            others = [model for model in models if model != had.model]
            try:
                made = await self._ask(query, parts, missing, [had.model])
            except BackendError as error:
                if isinstance(error, FINAL) or not others:
                    raise
                models = others
            else:
                if made.answers is not None:
                    return made, had
        made = await self._ask(query, parts, everything, models)
        return made, nothing

    async def _ask(self, query: Query, parts: Parted, places: Places, models: Sequence[str]) -> Made:
        seat, kept = self.seat(query, parts, places, models)
        if query.features.deadline_s < query.arrived + self._limit_s:
            seat = TimedSeat(seat, query.features.deadline_s - self._clock())
        async with seat:
            items = [item async for item in seat]
        whole = _whole(items)
        return Made(places, whole, parts.apart(whole, places), not seat.leader, seat.leader and kept.stored)

    def _keep(self, query: Query, parts: Parted, places: Places, whole: Answer, *, stamp: int) -> bool:
        """Remember the answer to each input, or to all of them as one where it cannot be taken apart."""
        features, answers = query.features, parts.apart(whole, places)
        if answers is None:
            as_asked = parts.job(places) is query.request.job
            return as_asked and self._recall.keep(features, whole, NO_MEANINGS, stamp)
        stored = [
            self._recall.keep(replace(features, fingerprint=parts.keys[place]), answer, NO_MEANINGS, stamp)
            for place, answer in zip(places, answers, strict=True)
        ]
        return all(stored)

    async def _spare(
        self, query: Query, parts: Parted, missing: Places, had: Had, error: BackendError
    ) -> tuple[Answer, CacheStatus] | None:
        """Return an answer with stale parts in place of an error, where the client takes such and there are all."""
        hits = list(had.hits)
        for place in missing:
            features = replace(query.features, fingerprint=parts.keys[place])
            spare = await self._recall.spare(features, query.directives, [had.version])
            if spare is None or in_place_of(error, spare) is None:
                return None
            hits[place] = spare
        answer, status = _all_had(parts, had._replace(hits=hits))
        stale = in_place_of(error, Hit(answer, replace(status, detail="stale-if-error")))
        return None if stale is None else (answer, stale)


def _missing(keys: Sequence[bytes], hits: Sequence[Hit | None]) -> Places:
    """Return the places of which nothing is cached, of equal inputs the first."""
    first: dict[bytes, int] = {}
    for place, (key, hit) in enumerate(zip(keys, hits, strict=True)):
        if hit is None:
            first.setdefault(key, place)
    return list(first.values())


def _all_had(parts: Parted, had: Had) -> tuple[Answer, CacheStatus]:
    """Put an answer together from what is cached; equal inputs share what is there."""
    by_key = {key: hit for key, hit in zip(parts.keys, had.hits, strict=True) if hit is not None}
    hits = [by_key[key] for key in parts.keys]
    newest = max(hits, key=_created).answer.head
    status = CacheStatus(
        hit=True,
        detail="exact",
        ttl_s=min(hit.status.ttl_s or 0 for hit in hits),
        age_s=max(hit.status.age_s or 0 for hit in hits),
        hits=len(hits),
        items=len(hits),
    )
    return parts.together(newest, [hit.answer for hit in hits], None), status


def _created(hit: Hit) -> float:
    return hit.answer.head.created_s


def _joined(query: Query, parts: Parted, had: Had, made: Made) -> Answer:
    """Put what was cached and what was made together; what was made as the client asked for it goes out as it is."""
    if made.answers is None or (not had.found and parts.job(made.places) is query.request.job):
        return made.whole
    by_key = {key: hit.answer for key, hit in zip(parts.keys, had.hits, strict=True) if hit is not None}
    by_key |= {parts.keys[place]: answer for place, answer in zip(made.places, made.answers, strict=True)}
    return parts.together(made.whole.head, [by_key[key] for key in parts.keys], made.whole)


def _whole(items: Sequence[Item]) -> Answer:
    head = items[0]
    assert type(head) is Head
    return answer_of(head, items[1:])


def _tokens(made: Made) -> int:
    answers = made.answers if made.answers is not None else (made.whole,)
    return sum(
        event.prompt_tokens + event.completion_tokens
        for answer in answers
        for event in answer.events
        if type(event) is Usage
    )


def _outcome(query: Query, parts: Parted | None, answer: Answer, status: CacheStatus, looked_up: float) -> Outcome:
    job, arrived, permit, fingerprints = query.request.job, query.arrived, query.permit, parts.keys if parts else ()
    lookup_s, features = looked_up - arrived, query.features
    return Outcome(answer.head, status, lookup_s, features, permit, job, arrived, answer=answer, parts=fingerprints)
