"""The request's path, and the only code that knows the whole of it: analyse, look up, route, run, remember."""

import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from backends.contract import BackendError, Event, Frame, Job, Made, Text, Usage
from backends.pool import Pool
from cache.contract import Meaning
from cache.flight import Seat, SingleFlight
from gateway.analyze import Features, analyze, counted
from gateway.answer import Answer, Head, answer_of
from gateway.caching.by_item import ByItem
from gateway.caching.cache_control import CacheStatus
from gateway.caching.identity import fingerprint
from gateway.caching.items import Parted, digest, parted
from gateway.caching.recall import Hit, Recall, in_place_of
from gateway.caching.renewing import Renewals
from gateway.caching.search import Search
from gateway.caching.timed import TimedSeat
from gateway.callers.accounts import Accounts
from gateway.callers.limits import Limiter
from gateway.callers.preferences import NO_PREFERENCES, Preferences
from gateway.catalog import Catalog
from gateway.counting.model_statistics import ModelStatistics
from gateway.counting.spending import Spending
from gateway.counting.telemetry import Telemetry
from gateway.errors import NotCached
from gateway.query import Kept, Looked, Outcome, Query, Sought, head_of, missed
from gateway.request import Caller, Directives, Request
from gateway.router import Coming
from gateway.routes import Routes
from gateway.running import Item, Runner
from gateway.surfaces.wire import Outlet
from gateway.trust.audit import Auditor


class Pipeline:
    """Answers requests from the caches or the pools that it is given."""

    def __init__(
        self,
        routes: Routes,
        pools: Mapping[str, Pool],
        recall: Recall | None,
        flights: SingleFlight[Item],
        *,
        limiter: Limiter,
        telemetry: Telemetry,
        statistics: ModelStatistics,
        catalog: Catalog,
        deadline_s: float,
        auditor: Auditor | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._routes = routes
        self.runner = Runner(pools, telemetry, clock, wall_clock)
        self._recall = recall
        self._flights = flights
        self._by_item = None if recall is None else ByItem(recall, self.runner, flights, clock, deadline_s)
        self._search = Search(recall, flights, auditor, clock)
        self._renewals = Renewals(telemetry, deadline_s)
        self._auditor = auditor
        self.accounts = Accounts(limiter, statistics, clock, telemetry)
        self._catalog = catalog
        self._deadline_s = deadline_s
        self._clock = clock

    async def answer(
        self,
        request: Request,
        caller: Caller,
        directives: Directives,
        timeout_s: float | None = None,
        preferences: Preferences = NO_PREFERENCES,
    ) -> Outcome:
        """Answer a request within `timeout_s`, or the time that the operator allows.

        Raises `RequestRefused` and `BackendError`. Read the outcome with `events` or `collect`, or `leave` it.
        """
        arrived = self._clock()
        route = self._routes.resolve(request.model, caller).preferring(preferences.route)
        self._catalog.check(request.model)
        limit_s = self._deadline_s if timeout_s is None else min(timeout_s, self._deadline_s)
        features = analyze(request, caller, directives, route.policy, arrived + limit_s)
        permit = self.accounts.begin(caller, features, background=request.job.background)
        try:
            targets = route.targets(features.fingerprint)
            served = (*targets, *route.fallback) if route.policy.fallback else targets
            versions = self.runner.versions(served)
            return await self._answer(
                Query(request, caller, directives, route, features, permit, arrived, targets, versions, preferences)
            )
        except BaseException as error:
            self.accounts.failed(error, route.candidates[0], request.job, permit, arrived)
            raise
        finally:
            self.accounts.ended()

    def knows(self, name: str) -> bool:
        """Tell whether there is a model or a route of this name."""
        return self._routes.has(name)

    def falls_back_on(self, name: str, model: str) -> bool:
        """Tell whether a model answers for a route where its candidates fail, and only there."""
        return self._routes.falls_back_on(name, model)

    def forwarded(self, request: Request, caller: Caller, directives: Directives) -> CacheStatus:
        """Return why a request goes on to a model whose answer no cache has; for telling of one that failed."""
        policy = self._routes.resolve(request.model, caller).policy
        return missed(analyze(request, caller, directives, policy, 0.0), "request" if directives.no_cache else "miss")

    def coming(self, request: Request, caller: Caller, preferences: Preferences) -> Coming | None:
        """Return which model a request is expected to have a slot of first, and when; None where it has one now."""
        route = self._routes.resolve(request.model, caller).preferring(preferences.route)
        return self.runner.coming(route.targets(fingerprint(request)) if route.weights else route.candidates)

    async def close(self) -> None:
        """End what is renewed and audited in the background."""
        await self._renewals.close()
        if self._recall is not None:
            await self._recall.close()
        if self._auditor is not None:
            await self._auditor.close()

    async def _answer(self, query: Query) -> Outcome:
        """Look in the caches, then ask the models; where these fail, what is stale may do."""
        recall = self._recall
        if recall is not None and query.reusable:  # most hits are in memory, and take no turn of the loop
            hit = recall.in_memory(query.features, query.directives, query.versions)
            if hit is not None:
                return self._served(query, hit)
        if self._by_item is not None and query.reusable and query.route.policy.items:
            parts = parted(query.request)
            if parts is not None:
                return await self._in_parts(self._by_item, query, parts)
        looked = await self._search.look(query)
        try:
            return await self._with(looked, query)
        finally:
            self._search.left(looked.meanings)

    async def _with(self, looked: Looked, query: Query) -> Outcome:
        """Answer with what the caches had, or ask the models."""
        if looked.hit is not None:
            return self._served(query, looked.hit, looked.sought)
        if query.directives.only_if_cached:
            raise NotCached("nothing that fits is cached, and the request said 'only-if-cached'")
        looked_up = self._clock()
        try:
            if not query.reusable and not query.request.job.stream:
                return await self._alone(query, looked, looked_up)
            return await self._joined(query, looked, looked_up)
        except BackendError as error:
            if looked.spare is None or (status := in_place_of(error, looked.spare)) is None:
                raise
            return self._found(query, looked.spare.answer, status)

    async def _in_parts(self, by_item: ByItem, query: Query, parts: Parted) -> Outcome:
        """Answer input by input."""
        outcome, tokens, stale = await by_item.answer(query, parts)
        if stale:
            models = (outcome.head.model,)
            yielding = replace(query, request=replace(query.request, job=replace(query.request.job, background=True)))
            key = digest([parts.keys[place] for place in stale])
            take = functools.partial(by_item.seat, yielding, parts, stale, models)
            self._renewals.begin(key, functools.partial(self._made_anew, query, take))
        self.accounts.settle(outcome, tokens)
        return outcome

    async def _alone(self, query: Query, looked: Looked, looked_up: float) -> Outcome:
        """Ask for a whole answer that nobody shares."""
        features, job, arrived = query.features, query.request.job, query.arrived
        models = self.runner.order(query.route, features, query.targets, query.wait_s(job))
        stamp = self._stamp()
        answer, spent = await self.runner.whole(job, features.deadline_s, models)
        status = missed(features, looked.forward, stored=self._keep(features, answer, looked.meanings, stamp))
        lookup_s, permit, sought = looked_up - arrived, query.permit, looked.sought
        outcome = Outcome(answer.head, status, lookup_s, features, permit, job, arrived, answer=answer, sought=sought)
        self.accounts.settle(outcome, spent)
        return outcome

    async def _joined(self, query: Query, looked: Looked, looked_up: float) -> Outcome:
        """Take part in the work for the same request, or begin it."""
        features, job, arrived = query.features, query.request.job, query.arrived
        shared = self._search.shared(query, background=job.background) if query.reusable else None
        # Whoever joins later may have more time than who came first: shared work has what the operator allows.
        until = features.deadline_s if shared is None else arrived + self._deadline_s
        seat, kept = self._seat(query, looked.meanings, shared, job, until)
        if shared is not None:
            self._search.begun(looked.meanings, shared)
        if features.deadline_s < until:
            seat = TimedSeat(seat, features.deadline_s - looked_up)
        head = await head_of(seat)
        status = missed(features, looked.forward, collapsed=not seat.leader)
        return Outcome(
            head,
            status,
            looked_up - arrived,
            features,
            query.permit,
            job,
            arrived,
            seat=seat,
            kept=kept,
            spare=looked.spare,
            sought=looked.sought,
        )

    def _seat(
        self, query: Query, meanings: Mapping[str, Meaning], shared: bytes | None, job: Job, until: float
    ) -> tuple[Seat[Item], Kept]:
        kept = Kept()
        models = self.runner.order(query.route, query.features, query.targets, query.wait_s(job))
        remembered = self._recall is not None and query.features.cacheable
        tap = self._flights.tap()
        make: Callable[[], AsyncIterator[Item]] = functools.partial(
            self.runner.run, replace(job, tap=tap), until, models
        )
        if self._recall is not None:
            make = self._recall.lead(shared, make)
        seat = self._flights.join(
            shared,
            make,
            functools.partial(self._remember, query.features, meanings, kept, self._stamp()) if remembered else None,
            tap,
        )
        return seat, kept

    async def take_over(self, job: Job, make: Callable[[Job], AsyncIterator[Item]], so_far: Outcome) -> Outcome:
        """Return the outcome of work that was begun elsewhere, and that nobody shares, when its head has come.

        `so_far` is the outcome but for what the work tells.
        """
        tap = self._flights.tap()
        seat = self._flights.join(None, functools.partial(make, replace(job, tap=tap)), None, tap)
        return replace(so_far, head=await head_of(seat), seat=seat)

    def _renew(self, query: Query, hit: Hit) -> None:
        """Have what is served stale made anew, unless that is under way."""
        key = self._search.shared(query, background=True)
        if not self._flights.waiters(key) and not self._flights.waiters(self._search.shared(query, background=False)):
            meanings = {} if hit.meaning is None else {hit.answer.head.version: hit.meaning}
            job = replace(query.request.job, background=True)
            take = functools.partial(self._seat, query, meanings, key, job, self._clock() + self._deadline_s)
            self._renewals.begin(key, functools.partial(self._made_anew, query, take))

    async def _made_anew(self, query: Query, take: Callable[[], tuple[Seat[Item], Kept]]) -> None:
        """Make an answer that nobody waits for, on the account of who was served the stale one."""
        permit = self.accounts.begin(query.caller, query.features, background=True)
        spent = 0
        try:
            seat, _ = take()
            async with seat:
                async for item in seat:
                    if type(item) is Usage:
                        spent = item.prompt_tokens + item.completion_tokens
        finally:
            permit.settle(spent)
            self.accounts.ended()

    async def events(self, outcome: Outcome) -> AsyncGenerator[Event, None]:
        """Yield an outcome's events as they come, and settle its accounts at the end, whatever the end is."""
        if outcome.answer is not None:
            for event in outcome.answer.events:
                yield event
            return
        async with aclosing(self.items(outcome)) as items:
            async for item in items:
                if isinstance(item, tuple):
                    if item[1]:
                        yield Text(item[1])
                elif type(item) is not Frame:
                    yield item

    async def items(self, outcome: Outcome, outlet: Outlet | None = None) -> AsyncGenerator[Made, None]:
        """Yield what a flight makes as it comes, events and the bytes that say them; settle the accounts at the end.

        Bytes that the outlet takes are not yielded.
        """
        assert outcome.seat is not None
        spending = Spending(outcome.features.tokens_in)
        failed: bool | None = None
        try:
            async with outcome.seat as seat:
                if outlet is not None:
                    seat.give_to(functools.partial(spending.let_out, outlet))
                async for item in seat:
                    if (guess := spending.count(item)) is not None:
                        yield guess
                    if type(item) is not Head:
                        yield item
            failed = False
        except BackendError:
            failed = True
            raise
        finally:
            self.accounts.settle(outcome, spending.tokens, failed=failed)

    async def collect(self, outcome: Outcome) -> Outcome:
        """Read an outcome's flight to its end: the same outcome with its complete answer."""
        if outcome.answer is not None:
            return outcome
        try:
            async with aclosing(self.items(outcome)) as items:
                answer = answer_of(outcome.head, [item async for item in items])
        except BackendError as error:
            spare = outcome.spare
            if spare is None or (status := in_place_of(error, spare)) is None:
                raise
            return replace(outcome, head=spare.answer.head, answer=spare.answer, seat=None, status=status)
        stored = outcome.kept is not None and outcome.kept.stored
        status = replace(outcome.status, stored=stored)
        return replace(outcome, answer=_counted(answer, outcome.features), seat=None, status=status)

    def _served(self, query: Query, hit: Hit, sought: Sought | None = None) -> Outcome:
        """Return what was remembered, and have it renewed where it is stale."""
        if hit.renew:
            self._renew(query, hit)
        return self._found(query, hit.answer, hit.status, sought)

    def _found(self, query: Query, answer: Answer, status: CacheStatus, sought: Sought | None = None) -> Outcome:
        arrived, job = query.arrived, query.request.job
        lookup_s = self._clock() - arrived
        outcome = Outcome(
            answer.head, status, lookup_s, query.features, query.permit, job, arrived, answer=answer, sought=sought
        )
        self.accounts.settle(outcome, 0)
        return outcome

    def _stamp(self) -> int:
        return 0 if self._recall is None else self._recall.stamp()

    def _remember(
        self, features: Features, meanings: Mapping[str, Meaning], kept: Kept, stamp: int, items: Sequence[Item]
    ) -> None:
        head = items[0]
        assert type(head) is Head
        kept.stored = self._keep(features, answer_of(head, items[1:]), meanings, stamp)
        self._search.left(meanings, landed=True)

    def _keep(self, features: Features, answer: Answer, meanings: Mapping[str, Meaning], stamp: int) -> bool:
        """Remember an answer, where there are caches and it may be."""
        if self._recall is None or not features.cacheable:
            return False
        kept = self._recall.keep(features, _counted(answer, features), meanings, stamp)
        if kept and self._auditor is not None:
            self._auditor.answered(meanings, answer)
        return kept


def _counted(answer: Answer, features: Features) -> Answer:
    return replace(answer, events=counted(answer.events, features.tokens_in))
