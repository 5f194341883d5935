"""From a call to its reply: finds the surface, asks the pipeline, encodes what came. Knows no server, no wire."""

import functools
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import NamedTuple

from backends.contract import BackendError, Event, Frame, Made
from gateway.answer import Head
from gateway.caching import cache_control
from gateway.caching.cache_control import CacheStatus
from gateway.callers import deadline
from gateway.callers.auth import Gatekeeper
from gateway.callers.preferences import Preferences
from gateway.callers.preferences import read as read_preferences
from gateway.counting.telemetry import Telemetry
from gateway.errors import NotCached, RequestRefused, UnknownPath, WrongMethod
from gateway.fields import cut
from gateway.paths import Paths
from gateway.pipeline import Pipeline
from gateway.progress import Pace, Waiting, may_be_told
from gateway.progress import head as comments_head
from gateway.query import Outcome
from gateway.replies import (
    broken_off,
    failure_headers,
    fault_of,
    gone_on,
    has_it,
    streamed_headers,
    unchanged,
    whole_reply,
)
from gateway.reply_ids import fresh_ids, under_way
from gateway.request import Caller, Directives, Request
from gateway.surfaces.passed import PassedFrames, replayed
from gateway.surfaces.wire import Call, Encoder, Frames, Outlet, Reply, Surface

_log = logging.getLogger(__name__)

_TELLING = 3  # segments of a path that tell whose it is
_OPERATORS = "/admin"

Page = Callable[[Call], Awaitable[Reply]]


class Answered(NamedTuple):
    """A hit that was answered: who asked what, over which wire, and the reply."""

    call: Call
    caller: Caller
    surface: str
    model: str
    outcome: Outcome
    reply: Reply
    reply_id: str


@dataclass(slots=True)
class Asked:
    """A request that was read: by whom, over which wire, and when. `granted` is what became of its hint."""

    call: Call
    caller: Caller
    surface: Surface
    encoder: Encoder
    request: Request
    directives: Directives
    reply_id: str
    started: float
    granted: str | None = None


class Front:
    """Answers every call: model requests by their surface, all else by its page. Raises only when cancelled."""

    def __init__(
        self,
        surfaces: Sequence[Surface],
        pages: Mapping[tuple[str, str], Page],
        pipeline: Pipeline,
        gatekeeper: Gatekeeper,
        telemetry: Telemetry,
    ) -> None:
        self._surfaces = Paths({path: surface for surface in surfaces for path in surface.paths})
        self._default_surface = surfaces[0]
        # Where nothing is served, the error has the shape of the wire whose paths begin alike; the first of several.
        self._by_start = {
            start: surface for surface in reversed(surfaces) for path in surface.paths for start in _starts(path)
        }
        self._pages = Paths(_by_path(pages))
        self.pipeline = pipeline
        self.gatekeeper = gatekeeper
        self.telemetry = telemetry
        self._ids = fresh_ids()
        self.on_hit: Callable[[Answered], None] | None = None
        self.on_outcome: Callable[[str, Outcome], None] | None = None
        self.on_next: Callable[[str, Caller], str] | None = None
        self.pace = Pace()

    async def serve(self, call: Call) -> Reply:
        """Answer one call."""
        started = time.perf_counter()
        found = self._surfaces.find(call.path) if call.method == "POST" else None
        surface = None
        reply_id = next(self._ids)
        under_way.set(reply_id)
        model, label = "", "none"
        caller, asked, outcome = None, None, None
        try:
            if found is None:
                return await self._page(call)
            surface, names = found
            if names:
                call = replace(call, names=names)
            caller = self.gatekeeper.identify(call.headers, call.peer)
            self.gatekeeper.check_origin(call.headers)
            request, encoder = surface.decode(call, reply_id)
            directives = cache_control.read(call.headers)
            timeout_s = deadline.parse(call.headers.get("x-request-timeout"))
            preferences = read_preferences(call.headers)
            asked = Asked(call, caller, surface, encoder, request, directives, reply_id, started)
            asked.granted = self._hinted(preferences, caller)
            far = encoder.frames is not None and self._is_far(request, caller, preferences)
            answering = self.pipeline.answer(request, caller, directives, timeout_s, preferences)
            if far:
                coming = functools.partial(self.pipeline.coming, request, caller, preferences)
                waiting = Waiting(answering, coming, self._give_up, self.pace)
                if (outcome := await waiting.at_once()) is None:
                    return self._held(asked, waiting)
            else:
                outcome = await answering
            reply, outcome = await self._answered(asked, outcome)
            model, label = outcome.head.model, outcome.status.label()
        except Exception as error:  # noqa: BLE001 - the last line: whatever went wrong becomes one clear answer
            surface = surface or self._like(call.path)
            status = self._forwarded(asked) if asked and isinstance(error, BackendError | NotCached) else None
            reply = self.failed(error, surface, reply_id, caller, status)
            model = self._blamed(asked, error)
            label = cache_control.label_of(status if outcome is None else outcome.status)
            if found is not None and outcome is None:  # one that had an outcome is settled, and noted there
                self._note_failed(asked, error, reply.status, time.perf_counter() - started, status)
        name = self._default_surface.name if surface is None else surface.name
        self.telemetry.answered(name, model, reply.status, label, time.perf_counter() - started)
        return reply

    async def _answered(self, asked: "Asked", outcome: Outcome) -> tuple[Reply, Outcome]:
        """Make the reply to a request, and tell who is to know of it."""
        call, reply_id = asked.call, asked.reply_id
        if outcome.status.hit and has_it(call, outcome):
            reply = unchanged(outcome, reply_id)
        else:
            reply, outcome = await self.reply(asked.surface, asked.encoder, outcome, reply_id)
        if asked.granted is not None:
            reply.headers["X-Warmgate-Next"] = asked.granted
        model = outcome.head.model
        if model != asked.request.model and self.pipeline.falls_back_on(asked.request.model, model):
            reply.headers["X-Warmgate-Fallback"] = model
        if self.on_outcome is not None:
            self.on_outcome(reply_id, outcome)
        if self.on_hit is not None and outcome.status.hit:
            name = asked.request.model
            self.on_hit(Answered(call, asked.caller, asked.surface.name, name, outcome, reply, reply_id))
        return reply, outcome

    def _is_far(self, request: Request, caller: Caller, preferences: Preferences) -> bool:
        """Tell whether a stream may have to wait for so long that its client is told of it."""
        return may_be_told(request.job) and self.pipeline.coming(request, caller, preferences) is not None

    def _held(self, asked: "Asked", waiting: Waiting) -> Reply:
        """Begin the stream of a request whose answer is not in sight: comments first, then the answer or its error."""
        outlet, reply_id = Outlet(), asked.reply_id
        named = {
            "Cache-Status": self._forwarded(asked).header(),
            "X-Request-Id": reply_id,
            "request-id": reply_id,
            **self.pipeline.accounts.limit_headers(asked.caller),
        }
        if asked.granted is not None:
            named["X-Warmgate-Next"] = asked.granted

        async def go_on(outcome: Outcome) -> Reply:
            reply, outcome = await self._answered(asked, outcome)
            self._count(asked, outcome.head.model, reply.status, outcome.status.label())
            return reply

        def failed(error: Exception) -> bytes:
            trouble = fault_of(error, reply_id)
            went_on = self._forwarded(asked) if isinstance(error, BackendError | NotCached) else None
            self._count(asked, self._blamed(asked, error), trouble.status, cache_control.label_of(went_on))
            self._note_failed(asked, error, trouble.status, time.perf_counter() - asked.started, went_on)
            return asked.surface.failure_frame(trouble)

        return Reply(200, comments_head(named), waiting.told(outlet, go_on, failed), outlet)

    async def _give_up(self, outcome: Outcome) -> None:
        """Settle an outcome that its client does not wait for any more."""
        if outcome.seat is not None:
            await outcome.seat.leave()
            self.pipeline.accounts.settle(outcome, 0, failed=None)

    def _hinted(self, preferences: Preferences, caller: Caller) -> str | None:
        """Take what a client says that it asks for next: what its reply tells of that."""
        if preferences.next_model is None or self.on_next is None:
            return None
        return self.on_next(preferences.next_model, caller)

    def _forwarded(self, asked: "Asked") -> CacheStatus:
        return self.pipeline.forwarded(asked.request, asked.caller, asked.directives)

    def _count(self, asked: "Asked", model: str, status: int, label: str) -> None:
        self.telemetry.answered(asked.surface.name, model, status, label, time.perf_counter() - asked.started)

    def _blamed(self, asked: "Asked | None", error: Exception) -> str:
        """Return the model that a failure is counted with: the one that failed, or the name that was asked for."""
        if isinstance(error, BackendError) and error.model:
            return error.model
        return asked.request.model if asked is not None and self.pipeline.knows(asked.request.model) else ""

    def _note_failed(
        self, asked: "Asked | None", error: Exception, status: int, total_s: float, went_on: CacheStatus | None
    ) -> None:
        model = "" if asked is None else asked.request.model
        self.pipeline.accounts.note_failed(model, error, status=status, total_s=total_s, went_on=went_on)

    def failed(
        self,
        error: Exception,
        surface: Surface | None,
        reply_id: str,
        caller: Caller | None,
        status: CacheStatus | None = None,
    ) -> Reply:
        """Make the reply that tells of an error, and of what the caller's limits leave it.

        `status` is that of the request where it was read; where a model failed it says how the request came there.
        """
        reply = self.refuse(error, surface, reply_id)
        if caller is not None:
            reply.headers.update({**self.pipeline.accounts.limit_headers(caller), **reply.headers})
        if status is not None and isinstance(error, BackendError):
            reply.headers["Cache-Status"] = gone_on(status, error)
        return reply

    def refuse(self, error: Exception, surface: Surface | None = None, reply_id: str | None = None) -> Reply:
        """Make the reply that tells of an error, in the shape of the surface that was called."""
        reply_id = reply_id or next(self._ids)
        if surface is None and isinstance(error, RequestRefused):  # it may have been refused before it came whole
            surface = self._like(error.path)
        trouble = fault_of(error, reply_id)
        failure = (surface or self._default_surface).failure(trouble)
        return Reply(failure.status, failure_headers(trouble, reply_id), failure.body)

    def _like(self, path: str) -> Surface | None:
        """Return the surface that has the longest start of a path in common with it, if any has."""
        return next((self._by_start[start] for start in _starts(path) if start in self._by_start), None)

    async def _page(self, call: Call) -> Reply:
        if not self.gatekeeper.keyed or call.path.startswith(_OPERATORS):
            self.gatekeeper.check_host(call.headers, call.peer)
        found = self._pages.find(call.path)
        allowed = set() if found is None else set(found[0])
        method = "GET" if call.method == "HEAD" else call.method  # whoever writes the reply leaves its body out
        if found is not None and (page := found[0].get(method)) is not None:
            if method != "GET":
                self.gatekeeper.check_origin(call.headers)
            return await page(replace(call, names=found[1]))
        if self._surfaces.find(call.path) is not None:
            allowed.add("POST")
        if allowed:
            allow = ", ".join(sorted(allowed))
            raise WrongMethod(f"{cut(call.path)} answers {allow}, not {cut(call.method)}", allow)
        known = self._alike(call.path)
        hint = "" if known is None else f"; '{cut(known)}' is: the client's base URL has too much or too little of it"
        raise UnknownPath(f"nothing is served at {cut(call.method)} {cut(call.path)}{hint}")

    def _alike(self, path: str) -> str | None:
        """Return what a client may have meant whose base URL has a `/v1` too many, none, or more before it."""
        segments = path.split("/", _TELLING + 1)
        for start in range(1, len(segments)):
            rest = "/" + "/".join(segments[start:])
            for known in (rest, f"/v1{rest}"):
                if known != path and (self._surfaces.find(known) or self._pages.find(known)):
                    return known
        return None

    async def reply(self, surface: Surface, encoder: Encoder, outcome: Outcome, reply_id: str) -> tuple[Reply, Outcome]:
        """Make the reply that tells an outcome; where that had to be read for it, it is returned as it is then."""
        frames = encoder.frames
        if frames is None:
            if outcome.answer is None:
                outcome = await self.pipeline.collect(outcome)
            assert outcome.answer is not None
            return whole_reply(encoder.whole(outcome.answer), outcome, reply_id), outcome
        headers = streamed_headers(outcome, frames.content_type(outcome.head), reply_id)
        if outcome.seat is not None:
            if isinstance(frames, PassedFrames) and frames.passes(outcome.head):
                outlet = Outlet()
                passed = _passed(surface, self.pipeline.items(outcome, outlet), reply_id)
                return Reply(200, headers, passed, outlet), outcome
            events = self.pipeline.events(outcome)
            return Reply(200, headers, _stream(surface, frames, outcome.head, events, reply_id)), outcome
        outcome = await self.pipeline.collect(outcome)
        assert outcome.answer is not None
        return Reply(200, headers, replayed(frames, outcome.answer)), outcome


async def _passed(surface: Surface, items: AsyncGenerator[Made, None], reply_id: str) -> AsyncIterator[bytes]:
    """Pass a flight's bytes on as they come; an error on the way is the last of them, as in `_stream`."""
    async with aclosing(items):
        try:
            async for item in items:
                if isinstance(item, tuple):
                    yield item[0]
                elif type(item) is Frame:
                    yield item.data
        except Exception as error:  # noqa: BLE001 - as in `serve`
            yield broken_off(error, surface, reply_id)


async def _stream(
    surface: Surface, frames: Frames, head: Head, events: AsyncGenerator[Event, None], reply_id: str
) -> AsyncIterator[bytes]:
    """Encode a flight as it goes; an error on the way is the last frame, since the status has long been sent."""
    opening: bytes | None = None
    async with aclosing(events):
        try:
            async for event in events:
                if opening is None:  # not before the events have begun: those that never did would not clean up
                    opening = frames.opening(head)
                if frame := opening + frames.frame(event):
                    yield frame
                    opening = b""
            yield (frames.opening(head) if opening is None else opening) + frames.closing()
        except Exception as error:  # noqa: BLE001 - as in `serve`
            yield surface.failure_frame(fault_of(error, reply_id))


def _starts(path: str) -> Iterator[str]:
    """Yield the first few segments of a path, fewer each time; wires differ in no others."""
    segments = path.split("/", _TELLING + 1)[: _TELLING + 1]
    for count in range(len(segments), 1, -1):
        yield "/".join(segments[:count])


def _by_path(pages: Mapping[tuple[str, str], Page]) -> dict[str, dict[str, Page]]:
    table: dict[str, dict[str, Page]] = {}
    for (method, path), page in pages.items():
        table.setdefault(path, {})[method] = page
    return table
