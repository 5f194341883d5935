"""`POST /v1/messages/count_tokens`: Anthropic counts for its own models, for all others it is a guess.

Not a model request: no pool is asked for a guess, and none is started for it.
"""

from collections.abc import Collection

import orjson

from gateway.analyze import estimate_tokens
from gateway.callers import deadline
from gateway.callers.auth import Gatekeeper
from gateway.fields import parse_object
from gateway.pipeline import Pipeline
from gateway.request import Directives
from gateway.routes import Routes
from gateway.surfaces.anthropic import asked_by
from gateway.surfaces.anthropic_request import read_count
from gateway.surfaces.passed import passed_on
from gateway.surfaces.wire import JSON, Call, Reply


class TokenCounts:
    """Counts the tokens of a request for a message; `counting` are the models whose upstream does so itself."""

    def __init__(self, routes: Routes, pipeline: Pipeline, gatekeeper: Gatekeeper, counting: Collection[str]) -> None:
        self._routes = routes
        self._pipeline = pipeline
        self._gatekeeper = gatekeeper
        self._counting = frozenset(counting)

    async def page(self, call: Call) -> Reply:
        """Answer one call."""
        caller = self._gatekeeper.identify(call.headers, call.peer)
        request, chat = read_count(parse_object(call.body), call.body, asked_by(call))
        route = self._routes.resolve(request.model, caller)
        if not self._counting.issuperset(route.candidates):
            return Reply(200, {"Content-Type": JSON}, orjson.dumps({"input_tokens": estimate_tokens(chat)}))
        timeout_s = deadline.parse(call.headers.get("x-request-timeout"))
        outcome = await self._pipeline.answer(request, caller, Directives(), timeout_s)
        outcome = await self._pipeline.collect(outcome)
        assert outcome.answer is not None
        assert request.job.verbatim is not None
        passed = passed_on(outcome.answer, request.job.verbatim.kind)
        assert passed is not None, "a relay's answer has the form of its request"
        return Reply(200, {"Content-Type": passed.content_type}, passed.body)
