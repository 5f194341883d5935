"""Runs a job on the models of a route, one after the other until one answers. Knows no cache and no accounts."""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from backends.contract import BackendError, BadJob, DeadlineExceeded, Dispatched, Frame, Job, Made, Usage
from backends.pool import Answered, BegunStream, Pool
from gateway.analyze import Features
from gateway.answer import Answer, Head, answer_of
from gateway.counting.telemetry import Telemetry
from gateway.errors import ModelCold
from gateway.reply_ids import under_way
from gateway.router import Candidate, Choice, Coming, Spread, plan, soonest
from gateway.routes import Route

_log = logging.getLogger(__name__)

Item = Head | Made

# For so long after it is expected to be up a model is kept for who was told to come again.
_GRACE_S = 30.0
# What is learned of a start is right within five in a hundred, and who comes a moment too early is sent away again.
_MARGIN = 1.1

FINAL = (BadJob, DeadlineExceeded)
"""No other model could do better."""


class Runner:
    """Asks the pools that it is given, and counts what they make."""

    def __init__(
        self,
        pools: Mapping[str, Pool],
        telemetry: Telemetry,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._pools = pools
        self._telemetry = telemetry
        self._clock = clock
        self._wall_clock = wall_clock

    def versions(self, models: Sequence[str]) -> list[str]:
        """Return what exactly answers for each model now."""
        return [self._pools[model].engine.version for model in models]

    def plan(
        self, route: Route, features: Features, targets: Sequence[str], wait_s: float | None = None
    ) -> tuple[Choice, ...]:
        """Order the models that may answer by the pools as they stand now.

        `wait_s` is how long the client would wait for a slot, where it said so; else the operator's word counts.
        """
        now = self._clock()
        candidates = [self._candidate(model, features, now, wait_s) for model in targets]
        fallbacks = [
            replace(self._candidate(model, features, now, wait_s), is_fallback=True) for model in route.fallback
        ]
        return plan([*candidates, *fallbacks], now, features.deadline_s)

    def order(
        self, route: Route, features: Features, targets: Sequence[str], wait_s: float | None = None
    ) -> Sequence[str]:
        """Return the models to try, in their order; where there is only one there is nothing to plan.

        Raises `ModelCold` where none is expected to have a slot within the patience; it will have one later.
        """
        if len(targets) == 1 and not route.fallback:
            pool = self._pools[targets[0]]
            if (wait_s is None and pool.limits.start_wait_s is None) or pool.free_now() is not None:
                return targets
        choices = self.plan(route, features, targets, wait_s)
        if not any(choice.soon for choice in choices):
            raise self._sent_away(min(choices, key=lambda choice: choice.wait.weighed_s), wait_s)
        return [choice.model for choice in choices]

    def coming(self, models: Sequence[str]) -> Coming | None:
        """Return which model is expected to have a slot first, and when; None where one has it now."""
        pools = [self._pools[model] for model in models]
        if any(pool.free_now() is not None for pool in pools):
            return None
        now = self._clock()
        return soonest([pool.snapshot(now) for pool in pools], now)

    def _candidate(self, model: str, features: Features, now: float, wait_s: float | None) -> Candidate:
        pool = self._pools[model]
        tokens_out = min(pool.costs.tokens_out, features.max_tokens_out or pool.costs.tokens_out)
        costs, service_s = pool.costs, pool.costs.service_s(features.tokens_in, tokens_out)
        first_s = min(costs.first_event_s, service_s) if features.streamed else service_s
        return Candidate(
            pool.snapshot(now),
            service_s,
            first=Spread(first_s, first_s),
            patience_s=wait_s,
            start_patience_s=pool.limits.start_wait_s if wait_s is None else None,
        )

    def _sent_away(self, choice: Choice, wait_s: float | None) -> ModelCold:
        """Have the model come up for who is sent away, and make the error that says when to come again."""
        now, again_s = self._clock(), max(1.0, _MARGIN * choice.wait.p90_s)
        self._pools[choice.model].hints.promise(now, now + again_s + _GRACE_S)
        self._telemetry.sent_away(choice.model)
        said = "by the operator (start_wait)" if wait_s is None else f"by its client (Prefer: wait={wait_s:g})"
        error = ModelCold(
            f"{choice.model} is expected to have a slot in {choice.wait_s:.1f} s ({choice.why}), which is longer than"
            f" this request may wait, {said}",
            again_s,
            None if wait_s is None else f"wait={wait_s:g}",
        )
        error.model = choice.model
        return error

    async def whole(self, job: Job, deadline_s: float, models: Sequence[str]) -> tuple[Answer, int]:
        """Run a job that nobody shares on the first candidate that answers: its whole answer, and its tokens."""
        for place, model in enumerate(models):
            try:
                answered = await self._pools[model].answer(job, deadline_s)
            except BackendError as error:
                error.model = model
                if isinstance(error, FINAL) or place + 1 == len(models):
                    raise
                self._fall_back(model, error)
            else:
                return self.answer_of(model, answered)
        raise AssertionError("there is always a candidate")

    def answer_of(self, model: str, answered: Answered) -> tuple[Answer, int]:
        """Count a whole answer, and return it with its tokens."""
        dispatched, first_s, events, usage = answered
        self._telemetry.first_event(model, first_s)
        self._count(model, usage)
        answer = answer_of(self._head(model, dispatched, first_s, events[0]), events)
        return answer, usage.prompt_tokens + usage.completion_tokens

    async def run(
        self, job: Job, deadline_s: float, models: Sequence[str], sent: BegunStream | None = None
    ) -> AsyncGenerator[Item, None]:
        """Run a job on the first candidate that begins to answer: its head, then what it makes.

        Where it was `sent` already that goes on; then there is one model.
        """
        for place, model in enumerate(models):
            begun, asked_at = False, self._clock()
            try:
                async with aclosing(self._pools[model].stream(job, deadline_s, sent)) as made:
                    dispatched = await anext(made)
                    first = await anext(made)
                    begun = True
                    yield self._begun(model, dispatched, self._clock() - asked_at, first)
                    self._count(model, first)
                    yield first
                    async for item in made:
                        if type(item) is Usage:
                            self._count(model, item)
                        yield item
            except BackendError as error:
                error.model = model
                if begun or isinstance(error, FINAL) or place + 1 == len(models):
                    raise
                self._fall_back(model, error)
            else:
                return

    def _fall_back(self, model: str, error: BackendError) -> None:
        said = f"{type(error).__name__}{error.cause and ': '}{error.cause}"  # not the message: see `fault_of`
        _log.warning("request %s: %s failed, and the next candidate is tried: %s", under_way.get(), model, said)
        self._telemetry.fallback(model, error)

    def _begun(self, model: str, dispatched: Made, first_s: float, first: Made) -> Head:
        assert type(dispatched) is Dispatched
        self._telemetry.first_event(model, first_s)
        return self._head(model, dispatched, first_s, first)

    def _count(self, model: str, event: Made) -> None:
        if type(event) is Usage:
            self._telemetry.tokens(model, event.prompt_tokens, event.completion_tokens)

    def _head(self, model: str, dispatched: Dispatched, first_s: float, first: Made) -> Head:
        """Tell what is known when the first event has come, `first_s` after the model was asked."""
        version, now = self._pools[model].engine.version, self._wall_clock()
        queue_s, start_s = dispatched.queue_s, dispatched.start_s
        kind, content_type = (first.kind, first.content_type) if type(first) is Frame else ("", "")
        infer_s, unkept = first_s - queue_s - start_s, dispatched.unkept
        return Head(model, version, now, queue_s, start_s, infer_s, kind, content_type, unkept)
