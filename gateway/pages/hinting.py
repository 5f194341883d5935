"""Takes hints of what will be asked for: `POST /admin/pools/{model}/warm`, and a client's `X-Warmgate-Next`.

A hint raises a model's demand within its caller's credit, and never pushes another model out.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from backends.hints import Credits, Grant
from backends.pool import Pool
from backends.snapshot import ReplicaState
from gateway.callers.auth import Gatekeeper
from gateway.counting.telemetry import Telemetry
from gateway.errors import InvalidRequest, RateLimited, UnknownModel
from gateway.fields import cut, number, parse_object, whole
from gateway.front import Page
from gateway.pages.loopback import only_loopback
from gateway.request import Caller
from gateway.routes import Routes
from gateway.surfaces.wire import JSON, Call, Reply

WARM_PATH = "/admin/pools/{model}/warm"

# How long after the model is up who declared it as the next one is expected to ask.
SOON_S = 60.0
USUAL_S = 600.0
LONGEST_S = 86400.0
MOST_REPLICAS = 64


@dataclass(frozen=True, slots=True)
class Warmed:
    """What became of a hint: the model that it came to, what it cost, and how long it is in force from now on.

    What was hinted at before may be in force for longer than was asked for now.
    """

    model: str
    grant: Grant
    for_s: float
    in_full: bool


class Hinting:
    """Turns hints into demand, as far as the callers' credits go."""

    def __init__(
        self,
        routes: Routes,
        pools: Mapping[str, Pool],
        credits_: Credits,
        telemetry: Telemetry,
        *,
        upstreams: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the names of the models that answer elsewhere: they hold no memory of ours."""
        self._routes = routes
        self._pools = pools
        self._upstreams = upstreams
        self._credits = credits_
        self._telemetry = telemetry
        self._clock = clock

    def warm(self, name: str, caller: Caller, *, replicas: int, for_s: float) -> Warmed:
        """Have a model, or the first of a route, warm for `for_s` from now on, or as long of it as the credit lasts.

        Raises `UnknownModel`, and `InvalidRequest` where a hint would warm nothing.
        """
        if name not in self._routes.names:
            known = ", ".join(self._routes.names)
            raise UnknownModel(f"the model '{cut(name)}' does not exist; there are: {known}", "model")
        model = self._routes.named(name).first
        if (reason := self._in_vain(model)) is not None:
            raise InvalidRequest(f"a hint would warm nothing: {reason}", "model")
        return self._warm(model, caller, replicas=replicas, for_s=for_s, source="admin")

    def soon(self, name: str, caller: Caller) -> Warmed:
        """Have warm what a client says that it asks for next. Raises `InvalidRequest` for what it may not call."""
        if name not in self._routes.names or not caller.may_call(name):
            known = ", ".join(known for known in self._routes.names if caller.may_call(known))
            raise InvalidRequest(f"X-Warmgate-Next must name what this caller may call ({known}), got '{cut(name)}'")
        model = self._routes.named(name).first
        if self._in_vain(model) is not None:
            left = self._credits.left(caller.scope, self._clock())
            return Warmed(model, Grant(0, 0.0, left, 0.0), 0.0, in_full=False)
        for_s = self._pools[model].costs.start_s(0.9) + SOON_S
        return self._warm(model, caller, replicas=1, for_s=for_s, source="next")

    def next_of(self, name: str, caller: Caller) -> str:
        """Take a client's next model, and write what was granted for its reply."""
        return f"{name}; for={max(0.0, self.soon(name, caller).for_s):.0f}"

    def _warm(self, model: str, caller: Caller, *, replicas: int, for_s: float, source: str) -> Warmed:
        """Have a model warm; what an earlier hint of the same caller has paid for is not paid again."""
        pool, now = self._pools[model], self._clock()
        possible = min(replicas, pool.limits.max_replicas)
        paid_s = pool.hints.until(caller.scope, possible, now) - now
        size, wanted_s = pool.costs.memory_bytes + pool.costs.device_bytes, max(0.0, for_s - paid_s)
        grant = self._credits.spend(caller.scope, size=size, replicas=possible, for_s=wanted_s, now=now)
        in_force_s, in_full = paid_s + grant.for_s, possible == replicas and grant.for_s >= wanted_s
        if grant.for_s > 0:
            pool.hints.give(caller.scope, possible, now + in_force_s)
        result = "granted" if in_full else "partly" if in_force_s > 0 else "refused"
        self._telemetry.hint(model, source, result)
        return Warmed(model, grant, in_force_s, in_full)

    def _in_vain(self, model: str) -> str | None:
        """Return why a hint on a model would warm nothing, or None."""
        if model in self._upstreams:
            return f"{model} answers elsewhere, and holds no memory here"
        pool = self._pools[model].snapshot(self._clock())
        if not pool.max_replicas:
            return f"{model} is unloaded: load it first"
        if pool.failures and not any(replica.state is ReplicaState.READY for replica in pool.replicas):
            reason, _, _ = pool.last_failure.partition("\n")  # what it printed is in the log
            return f"{model} does not start: {reason}"
        return None


class HintPages:
    """The pages by method and path. `wall_clock` tells the time that others live by."""

    def __init__(self, hinting: Hinting, gatekeeper: Gatekeeper, wall_clock: Callable[[], float] = time.time) -> None:
        self._hinting = hinting
        self._gatekeeper = gatekeeper
        self._wall_clock = wall_clock

    def table(self) -> dict[tuple[str, str], Page]:
        """Return the pages by (method, path)."""
        return {("POST", WARM_PATH): self._warm}

    async def _warm(self, call: Call) -> Reply:
        """Take `{for_s, replicas}`, both optional: tell what was granted, and until when."""
        only_loopback(call)
        body = parse_object(call.body) if call.body else {}
        unknown = next((name for name in body if name not in ("for_s", "replicas")), None)
        if unknown is not None:
            raise InvalidRequest(f"'{cut(unknown)}' is unknown here: give for_s and replicas", unknown)
        for_s, replicas = number(body, "for_s", 1.0, LONGEST_S), whole(body, "replicas", 1, MOST_REPLICAS)
        warmed = self._hinting.warm(
            call.names["model"], self._caller(call), replicas=replicas or 1, for_s=for_s or USUAL_S
        )
        if warmed.for_s <= 0:
            raise RateLimited(
                "the credit of this caller's hints is used up (devices.hint_memory)", warmed.grant.enough_in_s, {}
            )
        return _json(self._told(warmed))

    def _caller(self, call: Call) -> Caller:
        """Return who pays: the owner of a key that was sent along, else whoever sits at this machine."""
        presented = {"authorization", "x-api-key"} & call.headers.keys()
        return self._gatekeeper.identify(call.headers, call.peer) if presented else Caller(scope="")

    def _told(self, warmed: Warmed) -> dict[str, Any]:
        grant = warmed.grant
        return {
            "model": warmed.model,
            "replicas": grant.replicas,
            "for_s": round(warmed.for_s, 3),
            "until": round(self._wall_clock() + warmed.for_s, 3),
            "in_full": warmed.in_full,
            "credit_left": round(grant.left, 4),
        }


def _json(value: Any) -> Reply:
    return Reply(200, {"Content-Type": JSON}, orjson.dumps(value))
