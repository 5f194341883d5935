"""A model behind somebody else's OpenAI-compatible server: requests out, events back, over one client session.

Knows nothing of what our own clients speak. The key goes into the session's headers and nowhere else.
"""

import asyncio
import errno
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

import aiohttp
from yarl import URL

from backends.contract import BackendError, Event, Job, StartFailed, UpstreamFailed, WorkerDied
from backends.sse import EventTooLongError, SseParser
from backends.upstream_wire import DONE, StreamDecoder, answer_events, refusal_of, request_of

ANSWER_LIMIT_BYTES = 128 * 2**20
REFUSAL_LIMIT_BYTES = 64 * 2**10

# After [DONE] the end of the body is due at once; a server that does not send it loses the connection.
END_S = 0.1

_STALE = (errno.ECONNRESET, errno.EPIPE)


class HttpEngine:
    """An upstream at `url` (with its `/v1`), where the model is called `model_name`."""

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
    ) -> None:
        self._url = url.rstrip("/")
        self._model_name = model_name
        self._version = "http:" + hashlib.sha256(f"{self._url} {model_name}".encode()).hexdigest()[:16]
        self._key = key
        self._headers = dict(headers or {})
        self._concurrency = concurrency
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=read_timeout_s)

    @property
    def version(self) -> str:
        """A digest of the URL and the model's name there."""
        return self._version

    @property
    def concurrency(self) -> int:
        """Requests that the upstream is sent at a time."""
        return self._concurrency

    async def start(self) -> "HttpBackend":
        """Make the session; nothing is sent yet. Raises `StartFailed` for a URL that is none."""
        url = URL(self._url)
        if url.scheme not in ("http", "https") or not url.host:
            raise StartFailed(f"{str(url.with_user(None)) if url.host else self._url!r} is no http or https URL")
        headers = {
            "User-Agent": "warmgate",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            **self._headers,
        }
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        connector = aiohttp.TCPConnector(limit=self._concurrency, ttl_dns_cache=60)
        session = aiohttp.ClientSession(connector=connector, headers=headers, timeout=self._timeout)
        return HttpBackend(session, self._url, self._model_name, self._key)


class HttpBackend:
    """One client session to an upstream; `key` is here only so that it can be taken out of messages."""

    def __init__(self, session: aiohttp.ClientSession, url: str, model_name: str, key: str | None) -> None:
        self._session = session
        self._url = url
        self._where = f"upstream {URL(url).host}"
        self._model_name = model_name
        self._key = key
        self._closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._sending: set[asyncio.Timeout] = set()
        self._reading: set[aiohttp.ClientResponse] = set()

    async def stream(self, job: Job) -> AsyncGenerator[Event, None]:
        """Send the job and yield what comes back. Closing the iterator closes the connection at once."""
        path, body = request_of(job, self._model_name)
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._post(path, body)
            self._reading.add(response)
            if response.status != 200:  # noqa: PLR2004
                raise await self._refusal(response)
            if response.content_type == "text/event-stream":
                decoder = StreamDecoder(job.task)
                async for batch in _batches(response.content):
                    for data in batch:
                        for event in decoder.feed(data):
                            yield event
                for event in decoder.end():
                    yield event
                await _await_end(response)
            else:
                for event in answer_events(job, await _read(response, ANSWER_LIMIT_BYTES)):
                    yield event
        except (aiohttp.ClientError, TimeoutError, EventTooLongError, OSError) as error:
            raise self._broken(error) from error
        finally:
            if response is not None:
                self._reading.discard(response)
                response.close()

    async def wait_exit(self) -> str:
        """Return when it was closed; an upstream does not end for us."""
        return await asyncio.shield(self._closed)

    async def close(self) -> None:
        """Close the session and its connections, and wake who waits for one, which the session does not."""
        if not self._closed.done():
            self._closed.set_result("closed")
        for limit in self._sending:
            limit.reschedule(asyncio.get_running_loop().time())
        for response in self._reading:
            response.content.set_exception(aiohttp.ClientConnectionError("closed"))
        await self._session.close()

    def memory_bytes(self) -> int:
        """Return 0: its processes are not ours."""
        return 0

    async def _post(self, path: str, body: bytes) -> aiohttp.ClientResponse:
        """Send; once more where the connection that was kept turns out to have been closed meanwhile."""
        limit = asyncio.timeout(None)
        self._sending.add(limit)
        try:
            async with limit:
                try:
                    return await self._session.post(self._url + path, data=body, allow_redirects=False)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                    if not _is_stale(error):
                        raise
                return await self._session.post(self._url + path, data=body, allow_redirects=False)
        finally:
            self._sending.discard(limit)

    async def _refusal(self, response: aiohttp.ClientResponse) -> BackendError:
        body = await _read(response, REFUSAL_LIMIT_BYTES)
        if self._key:
            body = body.replace(self._key.encode(), b"***")
        return refusal_of(response.status, response.headers, body, self._where)

    def _broken(self, error: Exception) -> BackendError:
        """Say what befell the connection; where we closed it ourselves, that is what befell the job."""
        if self._closed.done():
            return WorkerDied(f"the connection to {self._where} was closed while it held the job")
        said = str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            return UpstreamFailed(f"{self._where} sent nothing for too long: {said}")
        return UpstreamFailed(f"{self._where} failed: {said}")


def _is_stale(error: aiohttp.ServerDisconnectedError | aiohttp.ClientOSError) -> bool:
    """Whether the other side had closed a connection that we took for open."""
    return isinstance(error, aiohttp.ServerDisconnectedError) or error.errno in _STALE


async def _batches(content: aiohttp.StreamReader) -> AsyncIterator[list[bytes]]:
    """Yield the data of a stream's events as they come, up to [DONE] or the end."""
    parser = SseParser()
    while chunk := await content.readany():
        batch = parser.feed(chunk)
        yield batch
        if batch and batch[-1].startswith(DONE):
            return


async def _read(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """Return the whole body. Raises `UpstreamFailed` where it is longer than `limit_bytes`."""
    parts: list[bytes] = []
    size = 0
    while chunk := await response.content.readany():
        size += len(chunk)
        if size > limit_bytes:
            raise UpstreamFailed(f"the upstream's answer is longer than {limit_bytes} bytes", response.status)
        parts.append(chunk)
    return b"".join(parts)


async def _await_end(response: aiohttp.ClientResponse) -> None:
    """Let the body end, so that its connection can be used again."""
    try:
        async with asyncio.timeout(END_S):
            await response.content.readany()
    except TimeoutError:
        return
