"""The pages of the Open Inference Protocol beside inference: health, models, statistics, the repository.

Knows no server. Each page answers errors in the protocol's shape.
"""

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import orjson

from backends.contract import BackendError
from gateway.callers.auth import Gatekeeper
from gateway.catalog import Catalog, ModelInfo
from gateway.counting.model_statistics import ModelStatistics
from gateway.errors import ModelNotAllowed, RequestRefused, Unsupported, fault
from gateway.front import Page
from gateway.request import Caller
from gateway.surfaces.oip import control, descriptions
from gateway.surfaces.oip.json_body import parameters_of, parse
from gateway.surfaces.oip.questions import known
from gateway.surfaces.oip.surface import OipSurface
from gateway.surfaces.wire import JSON, Call, Reply

_MODEL = "/v2/models/{model}"
_VERSION = f"{_MODEL}/versions/{{version}}"
_SHARED = ("/v2/systemsharedmemory", "/v2/cudasharedmemory")


class OipPages:
    """The pages by method and path."""

    def __init__(
        self, *, catalog: Catalog, statistics: ModelStatistics, gatekeeper: Gatekeeper, surface: OipSurface
    ) -> None:
        self._catalog = catalog
        self._statistics = statistics
        self._gatekeeper = gatekeeper
        self._surface = surface

    def table(self) -> dict[tuple[str, str], Page]:
        """Return the pages by (method, path)."""
        pages: dict[tuple[str, str], Page] = {
            ("GET", "/v2/health/live"): self._live,
            ("GET", "/v2/health/ready"): self._ready,
            ("GET", "/v2"): self._page(self._server),
            ("GET", "/v2/"): self._page(self._server),
            ("GET", "/v2/models/stats"): self._page(self._all_stats),
            ("POST", "/v2/repository/index"): self._page(self._index),
            ("POST", "/v2/repository/models/{model}/load"): self._page(self._load),
            ("POST", "/v2/repository/models/{model}/unload"): self._page(self._unload),
            ("GET", "/v2/trace/setting"): self._page(self._settings),
            ("POST", "/v2/trace/setting"): self._page(self._set),
            ("GET", f"{_MODEL}/trace/setting"): self._page(self._settings),
            ("POST", f"{_MODEL}/trace/setting"): self._page(self._set),
            ("GET", "/v2/logging"): self._page(self._settings),
            ("POST", "/v2/logging"): self._page(self._set),
        }
        for base in (_MODEL, _VERSION):
            pages["GET", base] = self._page(self._model)
            pages["GET", f"{base}/ready"] = self._page(self._model_ready)
            pages["GET", f"{base}/config"] = self._page(self._config)
            pages["GET", f"{base}/stats"] = self._page(self._stats)
        for base in _SHARED:
            for status in ("/status", "/region/{region}/status"):
                pages["GET", base + status] = self._page(self._regions)
            for change in ("/region/{region}/register", "/region/{region}/unregister", "/unregister"):
                pages["POST", base + change] = self._page(self._shared)
        return pages

    def _page(self, answer: Callable[[Call, Caller], Awaitable[Reply]]) -> Page:
        """Make a page of what answers an identified caller."""

        async def page(call: Call) -> Reply:
            try:
                return await answer(call, self._gatekeeper.identify(call.headers, call.peer))
            except (RequestRefused, BackendError) as error:
                failure = self._surface.failure(fault(error))
                return Reply(failure.status, {"Content-Type": JSON}, failure.body)

        return page

    async def _live(self, call: Call) -> Reply:
        del call
        return _json({"live": True})

    async def _ready(self, call: Call) -> Reply:
        del call
        ready = not self._catalog.missing()
        return _json({"ready": ready}, status=200 if ready else 400)

    async def _server(self, call: Call, caller: Caller) -> Reply:
        del call, caller
        return _json(descriptions.server(version("warmgate")))

    async def _model(self, call: Call, caller: Caller) -> Reply:
        return _json(descriptions.model(self._known(call, caller)))

    async def _model_ready(self, call: Call, caller: Caller) -> Reply:
        info = self._known(call, caller)
        ready = self._catalog.state(info.name).ready
        return _json({"name": info.name, "ready": ready}, status=200 if ready else 400)

    async def _config(self, call: Call, caller: Caller) -> Reply:
        return _json(descriptions.config(self._known(call, caller)))

    async def _stats(self, call: Call, caller: Caller) -> Reply:
        name = self._known(call, caller).name
        return _json({"model_stats": [descriptions.statistics(name, self._statistics.of(name))]})

    async def _all_stats(self, call: Call, caller: Caller) -> Reply:
        del call
        names = [info.name for info, _ in self._catalog.index() if caller.may_call(info.name)]
        return _json({"model_stats": [descriptions.statistics(name, self._statistics.of(name)) for name in names]})

    async def _index(self, call: Call, caller: Caller) -> Reply:
        body = parse(call.body)
        models = [entry for entry in self._catalog.index() if caller.may_call(entry[0].name)]
        return _json(descriptions.index(models, ready=body.get("ready") is True))

    async def _load(self, call: Call, caller: Caller) -> Reply:
        await control.load(self._catalog, call.names["model"], caller, parameters_of(parse(call.body)))
        return _empty()

    async def _unload(self, call: Call, caller: Caller) -> Reply:
        parse(call.body)
        control.unload(self._catalog, call.names["model"], caller)
        return _empty()

    async def _settings(self, call: Call, caller: Caller) -> Reply:
        del call, caller
        return _json({})

    async def _set(self, call: Call, caller: Caller) -> Reply:
        del caller
        if parse(call.body):
            raise Unsupported(f"nothing can be set at {call.path}: the configuration file says it")
        return _json({})

    async def _regions(self, call: Call, caller: Caller) -> Reply:
        del call, caller
        return _json([])

    async def _shared(self, call: Call, caller: Caller) -> Reply:
        del caller
        if call.path.endswith("/unregister"):
            return _empty()  # nothing is registered, which is what the client wants
        raise Unsupported("this server shares no memory with its clients: send tensors in the body")

    def _known(self, call: Call, caller: Caller) -> ModelInfo:
        info = known(self._catalog.find, call.names["model"], call.names.get("version", ""))
        if not caller.may_call(info.name):
            raise ModelNotAllowed(f"this key may not call '{info.name}'", "model")
        return info


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(status, {"Content-Type": JSON}, orjson.dumps(value))


def _empty() -> Reply:
    return Reply(200, {"Content-Type": JSON}, b"")
