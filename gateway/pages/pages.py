"""All that is served besides model requests: health, models, metrics, the operator's views. Knows no server."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from backends.keeper import Keeper
from backends.pool import Pool
from gateway.caching import cache_control
from gateway.callers import preferences
from gateway.callers.auth import Gatekeeper
from gateway.catalog import Catalog
from gateway.counting.telemetry import Telemetry
from gateway.errors import InvalidRequest, UnknownPath
from gateway.fields import cut, parse_object, refuse, said, text
from gateway.front import Page
from gateway.pages.explain import OPERATOR, Explainer
from gateway.pages.loopback import only_loopback
from gateway.pages.pool_view import pools_view
from gateway.paths import Paths
from gateway.request import Caller
from gateway.routes import Routes
from gateway.surfaces import openai
from gateway.surfaces.wire import JSON, Call, Reply, Surface

_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class Pages:
    """The pages by method and path."""

    def __init__(
        self,
        *,
        routes: Routes,
        pools: Mapping[str, Pool],
        catalog: Catalog,
        keeper: Keeper,
        telemetry: Telemetry,
        gatekeeper: Gatekeeper,
        explainer: Explainer,
        config_state: Callable[[], dict[str, Any]],
        surfaces: Paths[Surface],
        clock: Callable[[], float],
    ) -> None:
        self._routes = routes
        self._pools = pools
        self._catalog = catalog
        self._keeper = keeper
        self._telemetry = telemetry
        self._gatekeeper = gatekeeper
        self._explainer = explainer
        self._config_state = config_state
        self._surfaces = surfaces
        self._clock = clock
        self._started_s = int(time.time())

    def table(self) -> dict[tuple[str, str], Page]:
        """Return the pages by (method, path)."""
        return {
            ("GET", "/healthz"): self._healthz,
            ("GET", "/readyz"): self._readyz,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
            ("GET", "/v1/models/{model}"): self._model,
            ("GET", "/admin/pools"): self._admin_pools,
            ("GET", "/admin/config"): self._admin_config,
            ("POST", "/admin/explain"): self._admin_explain,
        }

    async def _healthz(self, _: Call) -> Reply:
        return _json({"status": "alive"})

    async def _readyz(self, _: Call) -> Reply:
        missing = self._catalog.missing()
        unloaded = [model for model in missing if self._catalog.unloaded(model)]
        waiting = [model for model in missing if model not in unloaded]
        told = {"ready": not missing, "waiting_for": waiting, "unloaded": unloaded}
        return _json(told, status=503 if missing else 200)

    async def _metrics(self, _: Call) -> Reply:
        return Reply(200, {"Content-Type": _EXPOSITION}, self._telemetry.exposition())

    async def _models(self, call: Call) -> Reply:
        caller = self._gatekeeper.identify(call.headers, call.peer)
        names = [name for name in self._routes.listed(caller) if not self._catalog.unloaded(name)]
        return Reply(200, {"Content-Type": JSON}, openai.models(names, self._started_s))

    async def _model(self, call: Call) -> Reply:
        caller = self._gatekeeper.identify(call.headers, call.peer)
        route = self._routes.resolve(call.names["model"], caller)
        self._catalog.check(route.name)
        return Reply(200, {"Content-Type": JSON}, openai.model(route.name, self._started_s))

    async def _admin_pools(self, call: Call) -> Reply:
        only_loopback(call)
        keeper = self._keeper
        return _json(pools_view(self._pools, keeper.decisions, keeper.ledgers, keeper.contest, self._clock()))

    async def _admin_config(self, call: Call) -> Reply:
        """Tell which settings are in force, and what became of the last edit."""
        only_loopback(call)
        return _json(self._config_state())

    async def _admin_explain(self, call: Call) -> Reply:
        """Tell what would be done with `{path, body}`, for the key that `scope` names, without doing it."""
        only_loopback(call)
        question = parse_object(call.body)
        unknown = next((name for name in question if name not in ("path", "body", "scope")), None)
        if unknown is not None:
            raise InvalidRequest(f"'{cut(unknown)}' is unknown here: give path, body and perhaps scope", unknown)
        path = text(question, "path")
        found = self._surfaces.find(path)
        if found is None:
            raise UnknownPath(f"'{cut(path)}' is no path of a model request", "path")
        surface, names = found
        asked = dataclasses.replace(call, path=path, names=names, body=orjson.dumps(question.get("body")))
        request, _ = surface.decode(asked, reply_id="")
        directives, preferred = cache_control.read(call.headers), preferences.read(call.headers)
        return _json(await self._explainer.explain(request, directives, preferred, self._caller(question)))

    def _caller(self, question: Mapping[str, Any]) -> Caller:
        """Return the caller of the key that is named; without a name one that has no key."""
        name = said(question, "scope")
        if not name:
            return OPERATOR
        caller = self._gatekeeper.of_scope(f"key:{name}")
        if caller is None:
            names = self._gatekeeper.names
            raise refuse("scope", name, f"the name of a key: {', '.join(names)}" if names else "left out without keys")
        return caller


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(status, {"Content-Type": JSON}, orjson.dumps(value, default=str))
