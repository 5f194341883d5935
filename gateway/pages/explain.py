"""What would be done with a request and why: the pipeline's decisions as plain values, without acting on them."""

import dataclasses
from collections.abc import Callable
from typing import Any

from cache.semantic.evidence import Match, Miss
from gateway.analyze import Features, analyze
from gateway.caching.recall import Recall
from gateway.callers.preferences import NO_PREFERENCES, Preferences
from gateway.catalog import Catalog
from gateway.pipeline import Pipeline
from gateway.request import Caller, Directives, Request
from gateway.router import Choice
from gateway.routes import Routes
from gateway.trust.explaining import in_full, weighed

# Who asks why has more time than a request.
_PATIENCE_S = 1.0
OPERATOR = Caller(scope="")


class Explainer:
    """Walks the request's path up to the point where something would happen."""

    def __init__(
        self,
        routes: Routes,
        pipeline: Pipeline,
        recall: Recall | None,
        catalog: Catalog,
        *,
        deadline_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._routes = routes
        self._pipeline = pipeline
        self._recall = recall
        self._catalog = catalog
        self._deadline_s = deadline_s
        self._clock = clock

    async def explain(
        self,
        request: Request,
        directives: Directives,
        preferences: Preferences = NO_PREFERENCES,
        caller: Caller = OPERATOR,
    ) -> dict[str, Any]:
        """Return features, what the caches hold for this caller, and the plan. Raises what the request would meet."""
        now = self._clock()
        route = self._routes.resolve(request.model, caller).preferring(preferences.route)
        features = analyze(request, caller, directives, route.policy, now + self._deadline_s)
        targets = route.targets(features.fingerprint)
        served = (*targets, *route.fallback) if route.policy.fallback else targets
        unloaded = [model for model in (*route.candidates, *route.fallback) if self._catalog.unloaded(model)]
        return {
            "route": {**dataclasses.asdict(route), "unloaded": unloaded},
            "features": _features(features, now),
            "cache": await self._cached(request, features, directives, self._pipeline.runner.versions(served)),
            "plan": [
                _choice(choice) for choice in self._pipeline.runner.plan(route, features, targets, preferences.wait_s)
            ],
        }

    async def _cached(
        self, request: Request, features: Features, directives: Directives, versions: list[str]
    ) -> dict[str, Any]:
        if self._recall is None:
            return {"keys": {}, "exact": None, "semantic": {}}
        same = (await self._recall.same(features, directives, versions)).hit
        meanings = await self._recall.meanings(request, features, versions)
        objects = self._recall.objections(meanings, directives, {})
        return {
            "keys": {version: self._recall.key(features, version).hex() for version in versions},
            "exact": same and dataclasses.asdict(same.status),
            "semantic": {
                version: _found(
                    meaning.text,
                    await self._recall.search(meanings.namespace, meaning, _PATIENCE_S, objects, thoroughly=True),
                )
                for version, meaning in meanings.items()
            },
        }


def _features(features: Features, now: float) -> dict[str, Any]:
    shown = dataclasses.asdict(features)
    shown["fingerprint"] = features.fingerprint.hex()
    shown["deadline_in_s"] = round(shown.pop("deadline_s") - now, 3)
    return shown


def _found(asked: str, found: Match | Miss) -> dict[str, Any]:
    candidates = [in_full(asked, weighed(each)) for each in found.candidates]
    if isinstance(found, Match):
        told = {"hit": True, "similarity": found.similarity, "matched": found.matched_text}
    else:
        veto = found.veto and dataclasses.asdict(found.veto)
        told = {"hit": False, "reason": found.reason, "best_similarity": found.best_similarity, "veto": veto}
    return {**told, "candidates": candidates}


def _choice(choice: Choice) -> dict[str, Any]:
    return {**dataclasses.asdict(choice), "wait_s": choice.wait_s, "total_s": choice.total_s}
