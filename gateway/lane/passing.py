"""The short way of a request that is passed on as it came, and whose answer comes back so: no task, no coroutine.

It takes only what can be decided without waiting, and gives back whatever turns out otherwise. Knows no socket.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from backends.contract import BackendError, SendingBackend, Task, Written
from backends.pool import Pool
from backends.replica import Replica
from gateway.analyze import analyze
from gateway.cache_control import CacheStatus
from gateway.errors import RequestRefused
from gateway.front import Front, fresh_ids, whole_reply
from gateway.passing import Asked, Passing, send_on
from gateway.request import Caller, Directives
from gateway.routes import Routes
from gateway.surfaces.passed import passed_on
from gateway.surfaces.wire import Call, Reply, Surface

Done = Callable[[Reply | None], None]
"""Is given the reply; or nothing, where somebody must wait for the `rest`."""

# A longer body is not looked at twice: who is not taken here is read again on the usual way.
MAX_BYTES = 16 * 2**10
_REMEMBERED = 512
# What a client says of caches and of its time is for the pipeline to weigh.
_WEIGHED = frozenset({"cache-control", "x-request-timeout"})
_NOTHING_SAID = Directives()
_ANYBODY = Caller(scope="")


@dataclass(slots=True)
class Way:
    """What is known of a request by its path and body alone. `written` is what `writer` sends for it."""

    name: str
    kind: str
    asked: Asked
    writer: SendingBackend | None = None
    written: Written = (b"", b"")


class Found(NamedTuple):
    """Where a request may go now."""

    way: Way
    caller: Caller
    replica: Replica


class Lane:
    """Sends on what it can. Its surface's requests must mean the same wherever path and body are the same."""

    def __init__(
        self,
        surface: Surface,
        routes: Routes,
        pools: Mapping[str, Pool],
        front: Front,
        *,
        deadline_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.surface = surface
        self._routes = routes
        self._pools = pools
        self.front = front
        self.telemetry = front.telemetry
        self._gatekeeper = front.gatekeeper
        self.deadline_s = deadline_s
        self.clock = clock
        self._ids = fresh_ids()
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[Errand, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._way = functools.lru_cache(_REMEMBERED)(self._read)

    def begin(self, call: Call, done: Done) -> "Errand | None":
        """Send a request on, and call `done` when its reply has come; `None` where it must go the usual way."""
        found = self.find(call)
        if isinstance(found, str):
            return None
        errand = Errand(self, call, found, done)
        try:
            way, arrived = found.way, errand.until - self.deadline_s
            sends = way.written, errand.told
            errand.passing = send_on(
                way.asked, self.front.pipeline, found.caller, found.replica, sends, arrived=arrived
            )
        except RequestRefused:  # of the caller's limits; the usual way tells of it
            return None
        self._under_way[errand] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self.deadline_s, self._look)
        return errand

    def find(self, call: Call) -> Found | str:
        """Return where a request may go now, or why it goes the usual way. Takes nothing."""
        if call.method != "POST" or call.path not in self.surface.paths or len(call.body) > MAX_BYTES:
            return "another kind of request"
        if not _WEIGHED.isdisjoint(call.headers):
            return "caches or time"
        way = self._way(call.path, call.body)
        return way if isinstance(way, str) else self._found(way, call)

    def _found(self, way: Way, call: Call) -> Found | str:
        try:
            caller = self._gatekeeper.identify(call.headers, call.peer)
        except RequestRefused:
            return "caller"
        if not caller.may_call(way.name):
            return "caller"
        replica = way.asked.pool.free_now()
        if replica is None or (sending := replica.sending) is None or not sending.ready():
            return "no connection"
        if way.writer is not sending:
            try:
                way.written, way.writer = sending.written(way.asked.job), sending
            except BackendError:
                return "job"
        return Found(way, caller, replica)

    def forget(self, errand: "Errand") -> None:
        """Look after an errand no more."""
        self._under_way.pop(errand, None)

    def next_id(self) -> str:
        """Return what names the next reply."""
        return next(self._ids)

    def _look(self) -> None:
        """Hand over what takes too long; all have the same time, so the oldest is the next."""
        now, self._timer = self.clock(), None
        for errand in tuple(self._under_way):
            if errand.until > now:
                self._timer = self._loop.call_later(errand.until - now, self._look)
                return
            errand.late()

    def _read(self, path: str, body: bytes) -> Way | str:
        try:
            request, encoder = self.surface.decode(Call("POST", path, {}, body, None), "")
        except RequestRefused:
            return "malformed"
        job = request.job
        if job.stream or job.verbatim is None or encoder.frames is not None or job.task is Task.RELAY:
            return "stream"
        if request.model not in self._routes.names:
            return "unknown model"
        route = self._routes.named(request.model)
        if len(route.candidates) != 1 or route.fallback:
            return "several models"
        features = analyze(request, _ANYBODY, _NOTHING_SAID, route.policy, self.deadline_s)
        if features.cacheable:
            return "cacheable"
        pool = self._pools[route.candidates[0]]
        status = CacheStatus(forward="bypass", detail=features.reason)
        return Way(request.model, job.verbatim.kind, Asked(job, features, pool, status))


class Errand:
    """One request under way. It ends with its `done`, with `rest`, or with `leave`."""

    __slots__ = ("_call", "_done", "_found", "_handed_over", "_is_awaited", "_lane", "_started", "passing", "until")

    passing: Passing

    def __init__(self, lane: Lane, call: Call, found: Found, done: Done) -> None:
        self._lane = lane
        self._call = call
        self._found = found
        self._done = done
        self._handed_over = self._is_awaited = False
        self._started = time.perf_counter()
        self.until = lane.clock() + lane.deadline_s

    def told(self) -> None:
        """Give the reply, or have its rest waited for."""
        if self._handed_over:
            return
        outcome = self.passing.end()
        if outcome is None:
            self._done(None)
            return
        lane = self._lane
        lane.forget(self)
        assert outcome.answer is not None
        whole = passed_on(outcome.answer, self._found.way.kind)
        assert whole is not None, "a way is for those whose answers are passed on"
        reply = whole_reply(whole, outcome, lane.next_id())
        self._count(outcome.head.model, reply.status, outcome.status.label())
        self._done(reply)

    def late(self) -> None:
        """Have the rest waited for; that tells at once that the time is up."""
        self._done(None)

    def hand_over(self) -> None:
        """Give no reply by `done` any more: somebody is about to wait for the `rest`."""
        self._handed_over = True
        self._lane.forget(self)

    async def rest(self) -> Reply:
        """Wait for the reply, as the usual way does."""
        self._is_awaited = True
        lane, reply_id = self._lane, self._lane.next_id()
        model, label = "", "none"
        try:
            outcome = await self.passing.go_on(self.until)
            _, encoder = lane.surface.decode(self._call, reply_id)
            assert outcome.answer is not None
            reply = whole_reply(encoder.whole(outcome.answer), outcome, reply_id)
            model, label = outcome.head.model, outcome.status.label()
        except Exception as error:  # noqa: BLE001 - as in the front: whatever went wrong becomes one clear answer
            status = self._found.way.asked.status
            reply = lane.front.failed(error, lane.surface, reply_id, self._found.caller, status)
        self._count(model, reply.status, label)
        return reply

    def leave(self) -> None:
        """Cancel it, unless somebody waits for its rest already: that is then to be cancelled."""
        if not self._is_awaited:
            self.hand_over()
            self.passing.cancel()

    def _count(self, model: str, status: int, label: str) -> None:
        lane = self._lane
        lane.telemetry.answered(lane.surface.name, model, status, label, time.perf_counter() - self._started)
