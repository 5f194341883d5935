"""The request's path, and the only code that knows the whole of it: analyse, look up, route, run, remember."""

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from backends.contract import BackendError, Event, Frame, Job, Usage
from backends.pool import Pool
from backends.value import value
from cache.contract import Meaning
from cache.flight import Seat, SingleFlight
from gateway.analyze import Features, analyze, counted, tokens_made
from gateway.answer import Answer, Head
from gateway.cache_control import CacheStatus
from gateway.catalog import Catalog
from gateway.errors import NotCached
from gateway.identity import scoped
from gateway.limits import Limiter, Permit
from gateway.model_statistics import ModelStatistics
from gateway.recall import Hit, Recall
from gateway.request import Caller, Directives, Request
from gateway.routes import Route, Routes
from gateway.running import Item, Runner
from gateway.telemetry import Telemetry
from gateway.timed import TimedSeat
from gateway.write_gate import write_gate


@value
class Outcome:
    """What the pipeline found or began: a complete answer, or a seat in a flight whose `head` has come.

    `lookup_s` is the time that the caches took. `permit` is settled where the answer is complete, else by who reads the
    outcome to its end. `job` is what was asked, at `arrived` (monotonic seconds).
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
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._routes = routes
        self.runner = Runner(pools, telemetry, clock, wall_clock)
        self._recall = recall
        self._flights = flights
        self._limiter = limiter
        self._statistics = statistics
        self._catalog = catalog
        self._deadline_s = deadline_s
        self._clock = clock
        self._answering = 0
        self._idle: asyncio.Event | None = None

    async def answer(
        self, request: Request, caller: Caller, directives: Directives, timeout_s: float | None = None
    ) -> Outcome:
        """Answer a request within `timeout_s`, or the time that the operator allows.

        Raises `RequestRefused` and `BackendError`. Read the outcome with `events` or `collect`, or `leave` it.
        """
        arrived = self._clock()
        route = self._routes.resolve(request.model, caller)
        self._catalog.check(request.model)
        limit_s = self._deadline_s if timeout_s is None else min(timeout_s, self._deadline_s)
        features = analyze(request, caller, directives, route.policy, arrived + limit_s)
        permit = self.begin(caller, features, background=request.job.background)
        try:
            return await self._answer(request, directives, route, features, permit, arrived=arrived)
        except BaseException as error:
            self.failed(error, route.candidates[0], request.job, permit, arrived)
            raise
        finally:
            self.ended()

    def begin(self, caller: Caller, features: Features, *, background: bool = False) -> Permit:
        """Let a request begin, also past `answer`; it is to be `ended`. Raises as the limits do."""
        tokens = features.tokens_in + (features.max_tokens_out or 0)
        permit = self._limiter.admit(caller, tokens, background=background)
        self._answering += 1
        return permit

    def failed(self, error: BaseException, model: str, job: Job, permit: Permit, arrived: float) -> None:
        """Close the accounts of a request that has no answer."""
        permit.settle(0)
        if isinstance(error, BackendError):
            self._statistics.record(model, job, total_s=self._clock() - arrived, failed=True)

    def ended(self) -> None:
        """Note that a request looks for its answer no more."""
        self._answering -= 1
        if not self._answering and self._idle is not None:
            self._idle.set()

    def limit_headers(self, caller: Caller) -> Mapping[str, str]:
        """Return what a caller's limits leave it, as headers; empty where it has none."""
        return self._limiter.headers(caller)

    async def until_idle(self) -> None:
        """Wait until no request looks for its answer any more; one whose answer has begun holds what it needs."""
        if self._answering:
            self._idle = asyncio.Event()
            await self._idle.wait()

    async def _answer(
        self,
        request: Request,
        directives: Directives,
        route: Route,
        features: Features,
        permit: Permit,
        *,
        arrived: float,
    ) -> Outcome:
        targets = route.targets(features.fingerprint)
        versions = self.runner.versions(targets)
        reusable = features.cacheable and not directives.no_cache
        meanings: dict[str, Meaning] = {}

        if self._recall and reusable and (hit := await self._recall.same(features, directives, versions)):
            return self._found(hit, features, permit, request.job, arrived)
        # Work of a batch yields to all others: who would join it would yield too.
        pace = ("background",) if request.job.background else ()
        shared = scoped(features.fingerprint, features.scope, *versions, *pace) if reusable else None
        if self._recall and shared and not self._flights.waiters(shared):
            meanings = await self._recall.meanings(request, features, versions)
            # While the caches were asked, an identical run may have begun and ended: what it left is in memory now.
            if hit := await self._recall.alike(meanings.values(), directives) or self._recall.in_memory(
                features, directives, versions
            ):
                return self._found(hit, features, permit, request.job, arrived)
        if directives.only_if_cached:
            raise NotCached("nothing that fits is cached, and the request said 'only-if-cached'")

        looked_up = self._clock()
        models = self.runner.order(route, features, targets)
        if shared is None and not request.job.stream:
            answer, spent = await self.runner.whole(request.job, features.deadline_s, models)
            status = _missed(features, directives, stored=self._keep(features, answer, meanings))
            outcome = Outcome(
                answer.head, status, looked_up - arrived, features, permit, request.job, arrived, answer=answer
            )
            self.settle(outcome, spent)
            return outcome
        # Whoever joins later may have more time than who came first: shared work has what the operator allows.
        until = features.deadline_s if shared is None else arrived + self._deadline_s
        seat = self._flights.join(
            shared,
            functools.partial(self.runner.run, request.job, until, models),
            functools.partial(self._remember, features, meanings) if self._recall and features.cacheable else None,
        )
        if features.deadline_s < until:
            seat = TimedSeat(seat, features.deadline_s - looked_up)
        head = await _first(seat)
        status = _missed(features, directives, collapsed=not seat.leader)
        return Outcome(head, status, looked_up - arrived, features, permit, request.job, arrived, seat=seat)

    async def events(self, outcome: Outcome) -> AsyncGenerator[Event, None]:
        """Yield an outcome's events as they come, and settle its accounts at the end, whatever the end is."""
        if outcome.answer is not None:
            for event in outcome.answer.events:
                yield event
            return
        assert outcome.seat is not None
        # Until the model tells, the pieces that came are counted: who leaves early has used those.
        spent, told = outcome.features.tokens_in, False
        failed: bool | None = None
        try:
            async with outcome.seat as seat:
                async for item in seat:
                    if type(item) is Usage:
                        spent, told = item.prompt_tokens + item.completion_tokens, True
                    elif not told:
                        spent += tokens_made(item)
                    if type(item) is not Head:
                        yield item
            failed = False
        except BackendError:
            failed = True
            raise
        finally:
            self.settle(outcome, spent, failed=failed)

    async def collect(self, outcome: Outcome) -> Outcome:
        """Read an outcome's flight to its end: the same outcome with its complete answer."""
        if outcome.answer is not None:
            return outcome
        async with aclosing(self.events(outcome)) as events:
            answer = Answer(outcome.head, counted([event async for event in events], outcome.features.tokens_in))
        stored = self._recall is not None and write_gate(outcome.features, answer) is None
        return replace(outcome, answer=answer, seat=None, status=replace(outcome.status, stored=stored))

    def settle(self, outcome: Outcome, spent: int, *, failed: bool | None = False) -> None:
        """Close the accounts of a request that has ended; `failed` is None where its client left before."""
        outcome.permit.settle(spent)
        if failed is None:
            return
        head = outcome.head
        self._statistics.record(
            head.model,
            outcome.job,
            total_s=self._clock() - outcome.arrived,
            hit=outcome.status.hit,
            failed=failed,
            lookup_s=outcome.lookup_s,
            wait_s=head.queue_s + head.start_s,
            infer_s=head.infer_s,
        )

    def _found(self, hit: Hit, features: Features, permit: Permit, job: Job, arrived: float) -> Outcome:
        lookup_s = self._clock() - arrived
        outcome = Outcome(hit.answer.head, hit.status, lookup_s, features, permit, job, arrived, answer=hit.answer)
        self.settle(outcome, 0)
        return outcome

    def _remember(self, features: Features, meanings: Mapping[str, Meaning], items: Sequence[Item]) -> None:
        head = items[0]
        assert type(head) is Head
        self._keep(features, Answer(head, tuple([item for item in items if type(item) is not Head])), meanings)

    def _keep(self, features: Features, answer: Answer, meanings: Mapping[str, Meaning]) -> bool:
        """Remember an answer, where there are caches and it may be; frames are no part of what is kept."""
        if self._recall is None or not features.cacheable:
            return False
        events = [event for event in answer.events if type(event) is not Frame]
        self._recall.keep(features, Answer(answer.head, counted(events, features.tokens_in)), meanings)
        return write_gate(features, answer) is None


async def _first(seat: Seat[Item]) -> Head:
    """Wait for a flight's head."""
    try:
        head = await anext(aiter(seat))
    except BaseException:
        await seat.leave()
        raise
    assert type(head) is Head
    return head


def _missed(
    features: Features, directives: Directives, *, collapsed: bool = False, stored: bool = False
) -> CacheStatus:
    if not features.cacheable:
        return CacheStatus(forward="bypass", detail=features.reason)
    return CacheStatus(forward="request" if directives.no_cache else "miss", collapsed=collapsed, stored=stored)
