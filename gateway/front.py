"""From a call to its reply: finds the surface, asks the pipeline, encodes what came. Knows no server, no wire."""

import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

from backends.contract import BackendError
from cache.flight import Seat
from gateway import cache_control
from gateway.auth import Gatekeeper
from gateway.errors import Fault, RequestRefused, UnknownPath, WrongMethod, fault
from gateway.fields import cut
from gateway.pipeline import Item, Outcome, Pipeline
from gateway.surfaces.wire import JSON, SSE, Call, Encoder, Frames, Reply, Surface
from gateway.telemetry import Telemetry

_log = logging.getLogger(__name__)

_ID_BYTES = 12
_IDS_DRAWN = 256

Page = Callable[[Call], Awaitable[Reply]]


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
        self._surfaces = {path: surface for surface in surfaces for path in surface.paths}
        self._default_surface = surfaces[0]
        self._pages = pages
        self._page_paths = {path for _, path in pages}
        self._pipeline = pipeline
        self._gatekeeper = gatekeeper
        self._telemetry = telemetry
        self._ids = _fresh_ids()

    async def serve(self, call: Call) -> Reply:
        """Answer one call."""
        started = time.perf_counter()
        surface = self._surfaces.get(call.path)
        reply_id = next(self._ids)
        model, label = "", "none"
        try:
            if surface is None or call.method != "POST":
                return await self._page(call)
            caller = self._gatekeeper.identify(call.headers, call.peer)
            request, encoder = surface.decode(call, reply_id)
            directives = cache_control.parse(call.headers.get("cache-control"))
            outcome = await self._pipeline.answer(request, caller, directives)
            reply, outcome = await self._reply(surface, encoder, outcome, reply_id)
            model, label = outcome.head.model, outcome.status.label()
        except Exception as error:  # noqa: BLE001 - the last line: whatever went wrong becomes one clear answer
            reply = self.refuse(error, surface, reply_id)
        name = self._default_surface.name if surface is None else surface.name
        self._telemetry.answered(name, model, reply.status, label, time.perf_counter() - started)
        return reply

    def refuse(self, error: Exception, surface: Surface | None = None, reply_id: str | None = None) -> Reply:
        """Make the reply that tells of an error, in the shape of the surface that was called."""
        trouble = _fault(error)
        body = (surface or self._default_surface).failure(trouble)
        return Reply(trouble.status, _failure_headers(trouble, reply_id or next(self._ids)), body)

    async def _page(self, call: Call) -> Reply:
        page = self._pages.get((call.method, call.path))
        if page is not None:
            return await page(call)
        if call.path in self._surfaces or call.path in self._page_paths:
            allowed = "POST" if call.path in self._surfaces else ", ".join(m for m, p in self._pages if p == call.path)
            raise WrongMethod(f"{call.path} answers {allowed}, not {cut(call.method)}", allowed)
        raise UnknownPath(f"nothing is served at {cut(call.method)} {cut(call.path)}")

    async def _reply(
        self, surface: Surface, encoder: Encoder, outcome: Outcome, reply_id: str
    ) -> tuple[Reply, Outcome]:
        frames = encoder.frames
        if frames is None:
            outcome = await self._pipeline.collect(outcome)
            assert outcome.answer is not None
            return Reply(200, _headers(outcome, reply_id, JSON), encoder.whole(outcome.answer)), outcome
        headers = _headers(outcome, reply_id, SSE)
        headers["X-Accel-Buffering"] = "no"
        if outcome.seat is not None:
            return Reply(200, headers, _stream(surface, frames, outcome, outcome.seat)), outcome
        assert outcome.answer is not None
        opening = frames.opening(outcome.head)  # before any frame: it prepares what they share
        replay = [opening, *[frames.frame(event) for event in outcome.answer.events], frames.closing()]
        return Reply(200, headers, b"".join(replay)), outcome


async def _stream(surface: Surface, frames: Frames, outcome: Outcome, seat: Seat[Item]) -> AsyncIterator[bytes]:
    """Encode a flight as it goes; an error on the way is the last frame, since the status has long been sent."""
    async with seat:
        opening = frames.opening(outcome.head)
        try:
            async for event in seat:
                if frame := opening + frames.frame(event):  # type: ignore[arg-type]
                    yield frame
                    opening = b""
            yield opening + frames.closing()
        except Exception as error:  # noqa: BLE001 - as in `serve`
            yield surface.failure_frame(_fault(error))


def _fresh_ids() -> Iterator[str]:
    """Yield 24 random hex digits for each reply; the system is asked for many at a time, which costs as much as one."""
    while True:
        drawn = secrets.token_hex(_ID_BYTES * _IDS_DRAWN)
        for start in range(0, len(drawn), 2 * _ID_BYTES):
            yield drawn[start : start + 2 * _ID_BYTES]


def _fault(error: Exception) -> Fault:
    if not isinstance(error, RequestRefused | BackendError):
        _log.error("unexpected error in a request", exc_info=error)
    return fault(error)


def _headers(outcome: Outcome, reply_id: str, content_type: str) -> dict[str, str]:
    status, head = outcome.status, outcome.head
    timing = f"cache;dur={outcome.lookup_s * 1000:.2f}"
    if not status.hit:
        timing += (
            f", queue;dur={head.queue_s * 1000:.2f}, start;dur={head.start_s * 1000:.2f}"
            f", infer;dur={head.infer_s * 1000:.2f}"
        )
    headers = {
        "Content-Type": content_type,
        "Cache-Status": status.header(),
        "Server-Timing": timing,
        "X-Request-Id": reply_id,
    }
    if status.age_s is not None:
        headers["Age"] = str(status.age_s)
    return headers


def _failure_headers(trouble: Fault, reply_id: str) -> dict[str, str]:
    headers = {
        "Content-Type": JSON,
        "X-Request-Id": reply_id,
        "x-should-retry": "true" if trouble.retry else "false",
    }
    if trouble.allow is not None:
        headers["Allow"] = trouble.allow
    if trouble.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(trouble.retry_after_s)))
    return headers
