"""The short way of requests that are passed on as they came, and whose answers come back so: no task, no coroutine.

It takes only what can be decided without waiting, and leaves whatever is otherwise to the usual way. Knows no socket.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping

from backends.contract import BackendError, Job, Message, Sampling, Task, Verbatim
from backends.pool import Pool
from backends.replica import Replica
from gateway.analyze import analyze, estimate_tokens
from gateway.counting.model_statistics import ModelStatistics
from gateway.errors import RequestRefused
from gateway.front import Front
from gateway.lane.asked import PATH, Asked, asked_by
from gateway.lane.desk import Client, Desk
from gateway.lane.errand import Errand, WholeErrand
from gateway.lane.groups import Group
from gateway.lane.streaming import StreamErrand
from gateway.lane.ways import WIRE, Target, Way
from gateway.request import Caller, Directives, Request
from gateway.routes import Routes
from gateway.surfaces.wire import Call, Surface

# A longer body is not looked at: to read it twice, where it is not taken, costs more than it may gain.
MAX_BYTES = 16 * 2**10
_REMEMBERED = 512
_NOTHING_SAID = Directives()
_ANYBODY = Caller(scope="")


class Passage:
    """Sends on what it can. What it does not take, it takes nothing of."""

    def __init__(
        self,
        surface: Surface,
        routes: Routes,
        pools: Mapping[str, Pool],
        front: Front,
        *,
        statistics: ModelStatistics,
        deadline_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routes = routes
        self._pools = pools
        self._front = front
        self._surface = surface
        self._statistics = statistics
        self._clock = clock
        self._desk = Desk(surface, front, deadline_s=deadline_s, clock=clock)
        self._targets: dict[object, Target | str] = {}
        self._remembered: deque[tuple[Group, bytes]] = deque()

    def begin(self, group: Group, body: bytes, client: Client) -> "Errand | None":
        """Send a request on; None where it must go the usual way."""
        arrived = self._clock()
        way = self.way(group, body)
        if isinstance(way, str) or isinstance(replica := self.free(way, body), str):
            return None
        try:
            permit = self._front.pipeline.accounts.let_in(group.caller, way.tokens)
        except RequestRefused:  # the usual way tells of it
            return None
        pool, desk = way.target.pool, self._desk
        errand: WholeErrand | StreamErrand
        if way.streamed:
            errand = StreamErrand(desk, group, body, client, way=way, permit=permit, arrived=arrived)
            errand.begun = pool.begin_stream(replica, way.written, errand.told)
        else:
            errand = WholeErrand(desk, group, body, client, way=way, permit=permit, arrived=arrived)
            errand.begun = pool.begin(replica, way.written, errand.told)
        desk.look_after(errand)
        return errand

    def way(self, group: Group, body: bytes) -> Way | str:
        """Return what is known of a request, or why it goes the usual way."""
        if group.path != PATH or len(body) > MAX_BYTES:
            return "another kind of request"
        way = group.ways.get(body)
        if way is None:
            way = self._read(group, body)
            if len(self._remembered) >= _REMEMBERED:
                forgotten, its_body = self._remembered.popleft()
                del forgotten.ways[its_body]
            self._remembered.append((group, body))
            group.ways[body] = way
        return way

    def free(self, way: Way, body: bytes) -> Replica | str:
        """Return a replica that can be sent what is `written` of a way now, or why there is none."""
        replica = way.target.pool.free_now()
        if replica is None or (sending := replica.sending) is None or not sending.ready():
            return "no connection"
        if way.writer is not sending:
            if sending.wire != WIRE:
                return "another wire"
            try:
                way.written = sending.written(Verbatim(WIRE, PATH.removeprefix("/v1"), body))
            except BackendError:
                return "body"
            way.writer = sending
        return replica

    def _read(self, group: Group, body: bytes) -> Way | str:
        """Find out what a request asks for, at a glance, or as its surface reads it."""
        asked = asked_by(body) or self._decoded(body)
        if isinstance(asked, str):
            return asked
        if asked.model not in self._routes.names:
            return "unknown model"
        if not group.caller.may_call(asked.model):
            return "caller"
        target = self._target(asked)
        return target if isinstance(target, str) else Way(target, asked)

    def _decoded(self, body: bytes) -> Asked | str:
        try:
            request, _ = self._surface.decode(Call("POST", PATH, {}, body, None), "")
        except RequestRefused:
            return "malformed"
        job = request.job
        if job.verbatim is None:
            return "not as it came"
        drawn = job.sampling
        return Asked(
            request.model,
            estimate_tokens(job),
            drawn.max_tokens or 0,
            drawn.temperature,
            drawn.seed is not None,
            job.stream,
        )

    def _target(self, asked: Asked) -> Target | str:
        """Return what all requests have in common that draw their tokens alike, as far as caches weigh that."""
        drawing = asked.model, asked.temperature is None, asked.temperature == 0, asked.seeded
        target = self._targets.get(drawing)
        if target is None:
            target = self._targets[drawing] = self._found(asked)
        return target

    def _found(self, asked: Asked) -> Target | str:
        route = self._routes.named(asked.model)
        if len(route.candidates) != 1 or route.fallback:
            return "several models"
        pool = self._pools.get(route.candidates[0])
        if pool is None:
            return "a worker of ours"
        sampling = Sampling(temperature=asked.temperature, seed=0 if asked.seeded else None)
        job = Job(Task.CHAT, messages=(Message("user", ""),), sampling=sampling)
        features = analyze(Request(asked.model, job, {}), _ANYBODY, _NOTHING_SAID, route.policy, 0.0)
        if features.cacheable:
            return "cacheable"
        return Target(pool, features, self._front.telemetry, self._statistics)
