"""A model behind somebody else's server: requests out in its wire, events back, over connections that are kept.

Knows nothing of what our own clients speak. The key goes into the requests' headers and nowhere else.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence

from backends.contract import (
    BackendError,
    BadJob,
    Dispatched,
    Event,
    Finish,
    Frame,
    Job,
    Made,
    StartFailed,
    Task,
    UpstreamFailed,
    Verbatim,
    WorkerDied,
)
from backends.http_client import BadUrl, HttpClient
from backends.http_connection import Connection, Silent
from backends.http_reply import ExchangeFailed
from backends.sending import Written
from backends.sent import ANSWERED, END_S, OK, SentStream, SentWhole, is_stream
from backends.sse import EventTooLongError
from backends.telling import Straight, Telling
from backends.upstream_wire import OpenAIWire
from backends.wire import Wire, as_it_came

ANSWER_LIMIT_BYTES = 128 * 2**20
_LEAST_SECRET_CHARS = 8
REFUSAL_LIMIT_BYTES = 64 * 2**10

_SUCCESS = range(200, 300)
_PARTIAL = 206
# How a server says that it has no such path, or not for such requests.
_NOT_SERVED = (404, 405, 501)


class HttpEngine:
    """An upstream at `url` (with its `/v1`), where the model is called `model_name`, asked in `wire`."""

    def __init__(
        self,
        url: str,
        model_name: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        concurrency: int = 256,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 300.0,
        wire: Wire | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._model_name = model_name
        self._wire = wire or OpenAIWire()
        said = f"{self._wire.name} {self._url} {model_name}"
        self._version = "http:" + hashlib.sha256(said.encode()).hexdigest()[:16]
        self._key = key
        self._headers = dict(headers or {})
        self._concurrency = concurrency
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s

    @property
    def version(self) -> str:
        """A digest of the wire, the URL and the model's name there."""
        return self._version

    @property
    def concurrency(self) -> int:
        """Requests that the upstream is sent at a time."""
        return self._concurrency

    async def start(self) -> "HttpBackend":
        """Make the client; nothing is sent yet. Raises `StartFailed` for a URL that is none."""
        headers = {"User-Agent": "warmgate", "Accept": "*/*", "Accept-Encoding": "identity", **self._headers}
        if self._key is not None:
            headers |= self._wire.credentials(self._key)
        try:
            client = HttpClient(
                self._url,
                headers,
                kept=self._concurrency,
                connect_timeout_s=self._connect_timeout_s,
                silence_s=self._read_timeout_s,
            )
        except BadUrl as error:
            raise StartFailed(str(error)) from error
        return HttpBackend(await client.open(), self._wire, self._model_name, self._key)


class HttpBackend:
    """A client of one upstream; `key` is here only so that it can be taken out of messages."""

    def __init__(self, client: HttpClient, wire: Wire, model_name: str, key: str | None) -> None:
        self._client = client
        self._wire = wire
        self._model_name = model_name
        self._key = key
        self._closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def stream(self, job: Job, begun: Connection | None = None) -> AsyncGenerator[Made, None]:
        """Send the job and yield what comes back. Closing the iterator closes the connection at once.

        Where it has `begun` it is not sent again.
        """
        reply: Connection | None = None
        try:
            reply = await self._ask(job, whole=not job.stream and job.task is not Task.RELAY, begun=begun)
            for said in _before(reply):
                yield said
            if job.task is Task.RELAY:
                async for made in _relayed(reply, job):
                    yield made
            elif is_stream(reply):
                telling = self.telling(reply, job)
                async for several in _told(reply, telling, job.tap):
                    for made in several:
                        yield made
                for event in telling.end():
                    yield event
            else:
                for event in self.events_of(reply, await _read(reply, ANSWER_LIMIT_BYTES), job):
                    yield event
        except (ExchangeFailed, EventTooLongError) as error:
            raise self.broken(error) from error
        finally:
            _leave(reply)

    async def answer(self, job: Job, begun: Connection | None = None) -> Sequence[Made]:
        """Send the job and return what comes back, when it has come; cancelling closes the connection at once.

        Where it has `begun` it is not sent again.
        """
        reply: Connection | None = None
        try:
            reply = await self._ask(job, whole=True, begun=begun)
            if job.task is Task.RELAY:
                return [*_before(reply), *[made async for made in _relayed(reply, job)]]
            if is_stream(reply):
                telling, told = self.telling(reply, job), list[Made](_before(reply))
                async for several in _told(reply, telling, None):
                    told += several
                return [*told, *telling.end()]
            return [*_before(reply), *self.events_of(reply, await _read(reply, ANSWER_LIMIT_BYTES), job)]
        except (ExchangeFailed, EventTooLongError) as error:
            raise self.broken(error) from error
        finally:
            _leave(reply)

    def ready(self) -> bool:
        """Tell whether `begin` may be called now: a connection is open and idle."""
        return self._client.has_idle()

    @property
    def wire(self) -> str:
        """The wire whose requests go on as they came."""
        return self._wire.name

    def written(self, verbatim: Verbatim) -> Written:
        """Return the bytes that ask for what a client of the same wire asked for. Raises `BadJob`."""
        path, headers, body = as_it_came(verbatim, self._model_name)
        try:
            return self._client.head(path, headers, body) + body
        except BadUrl as error:
            raise BadJob(str(error)) from error

    def begin(self, written: Written, told: Callable[[], None]) -> SentWhole:
        """Send a request; `told` is called when its whole answer has come, or cannot be had so."""
        return SentWhole(self, self._client.begin(written, told, whole=True))

    def begin_stream(self, written: Written, told: Callable[[], None]) -> SentStream:
        """Send a request; `told` is called when its answer begins, or cannot be had."""
        return SentStream(self, self._client.begin(written, told, whole=False))

    async def wait_exit(self) -> str:
        """Return when it was closed; an upstream does not end for us."""
        return await asyncio.shield(self._closed)

    async def close(self) -> None:
        """Close the connections, and tell who waits on one."""
        if not self._closed.done():
            self._closed.set_result("closed")
        self._client.close()

    def memory_bytes(self) -> int:
        """Return 0: its processes are not ours."""
        return 0

    async def _ask(self, job: Job, *, whole: bool, begun: Connection | None = None) -> Connection:
        """Return a reply that is none of a refusal; who gets it must leave it."""
        path, headers, body = self._wire.request_of(job, self._model_name)
        try:
            reply = await self._client.post(path, headers, body, whole=whole, begun=begun)
        except BadUrl as error:
            raise BadJob(str(error)) from error
        if reply.status not in ANSWERED and not (job.task is Task.RELAY and _is_relayed(reply.status)):
            try:
                refusal = await self._refusal(reply)
            finally:
                reply.leave()
            if job.task is Task.RELAY and reply.status in _NOT_SERVED:
                raise BadJob(f"the model does not do this: {refusal}", "model")
            raise refusal
        return reply

    def events_of(self, reply: Connection, body: bytes, job: Job) -> list[Event]:
        """Return the events of a whole answer, after its bytes where the job came in the upstream's own words."""
        events = self._wire.answer_events(job, body)
        if (kind := self._kind(job)) is not None:
            events.insert(0, Frame(body, kind, reply.header("content-type")))
        return events

    def telling(self, reply: Connection, job: Job) -> Telling:
        """Return what reads a streamed reply."""
        return Telling(self._wire.decoder(job), self._kind(job), reply.header("content-type"))

    def _kind(self, job: Job) -> str | None:
        verbatim = job.verbatim
        return verbatim.kind if verbatim is not None and verbatim.wire == self._wire.name else None

    async def _refusal(self, reply: Connection) -> BackendError:
        if reply.status in _SUCCESS:
            return self._placed(
                UpstreamFailed(f"the upstream gave no whole answer, but status {reply.status}", reply.status)
            )
        body = await _read(reply, REFUSAL_LIMIT_BYTES)
        if self._key and len(self._key) >= _LEAST_SECRET_CHARS:  # a shorter one is part of common words
            body = body.replace(self._key.encode(), b"***")
        return self._placed(self._wire.refusal_of(reply.status, reply.headers(), body))

    def broken(self, error: Exception) -> BackendError:
        """Say what befell the connection; where we closed it ourselves, that is what befell the job."""
        if self._closed.done():
            return WorkerDied("the connection to the upstream was closed while it held the job")
        # What the system says of a connection names its address, which is the operator's alone.
        said = error.__cause__ if isinstance(error.__cause__, OSError) else error
        if isinstance(error, Silent):
            return self._placed(UpstreamFailed(f"the upstream sent nothing for too long: {error}", cause=str(said)))
        return self._placed(UpstreamFailed(f"the upstream failed: {error}", cause=str(said)))

    def _placed(self, error: BackendError) -> BackendError:
        """Return the error with where it happened, for the log."""
        if isinstance(error, UpstreamFailed):
            error.cause = f"upstream {self._client.where} (model {self._model_name}): {error.cause}"
        return error


def _before(reply: Connection) -> list[Event]:
    """Return what a reply's head says of its answer."""
    unkept = "" if reply.status == OK else f"status {reply.status}"
    if not unkept and "no-store" in reply.header("cache-control").lower():
        unkept = "no-store"
    return [Dispatched("", queue_s=0.0, start_s=0.0, unkept=unkept)] if unkept else []


def _is_relayed(status: int) -> bool:
    """Tell whether a relay's reply is passed on; no range was asked for, so a part is no answer."""
    return status in _SUCCESS and status != _PARTIAL


def _leave(reply: Connection | None) -> None:
    if reply is not None:
        reply.leave()


async def _relayed(reply: Connection, job: Job) -> AsyncIterator[Made]:
    """Yield a reply's bytes as they come; the first frame stands even for a reply that has none."""
    assert job.verbatim is not None
    kind, content_type = job.verbatim.kind, reply.header("content-type")
    data = await reply.read()
    yield Frame(data, kind, content_type)
    while data:
        data = await reply.read()
        if data:
            yield data, ""
    yield Finish("stop")


async def _read(reply: Connection, limit_bytes: int) -> bytes:
    """Return the whole body. Raises `UpstreamFailed` where it is longer than `limit_bytes`."""
    first = await reply.read()
    if reply.complete:
        return first
    parts, size = [first], len(first)
    while data := await reply.read():
        size += len(data)
        if size > limit_bytes:
            raise UpstreamFailed(f"the upstream's answer is longer than {limit_bytes} bytes", reply.status)
        parts.append(data)
    return b"".join(parts)


async def _told(
    reply: Connection, telling: Telling, tap: Callable[[Made], bool] | None
) -> AsyncIterator[Sequence[Made]]:
    """Yield what a streamed reply tells, piece by piece, but for what the tap takes as it comes.

    It takes nothing before something was yielded: those on the way begin the answer with that.
    """
    straight, begun = None if tap is None else Straight(telling, tap), False
    while telling.error is None:
        data = await (_last(reply) if telling.complete else reply.read(straight if begun else None))
        if data:
            several = telling.told(data)
            begun = begun or bool(several)
            yield several
        elif straight is not None and reply.diverted:
            yield straight.rest()
        else:
            return


async def _last(reply: Connection) -> bytes:
    """Let the body end, so that its connection can be used again."""
    try:
        async with asyncio.timeout(END_S):
            return await reply.read()
    except TimeoutError:
        return b""
