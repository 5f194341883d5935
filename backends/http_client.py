"""Connections to one HTTP/1.1 server, kept for the next request, and their deadlines. Knows no wire's format."""

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Self
from urllib.parse import SplitResult, urlsplit

from backends.http_connection import Connection, Silent, Stale
from backends.http_reply import ExchangeFailed, KnownReplies

# A connection that idled for longer is not trusted: something on the way may have forgotten it.
IDLE_S = 15.0
_LOOK_S = 5.0
_PORTS = {"http": 80, "https": 443}


class BadUrl(ValueError):
    """It is no http or https URL, or none that can be written into a request."""


class HttpClient:
    """Asks one server. At most `kept` connections idle; how many are busy is up to the caller.

    `headers` go with every request. Whoever got a reply must `leave` it.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], *, kept: int, connect_timeout_s: float, silence_s: float
    ) -> None:
        """Take the URL that the paths of requests are below of. Raises `BadUrl`."""
        self._url = _parsed(url)
        self.host = self._url.hostname or ""
        self.where = self._url.netloc
        self._headers = dict(headers)
        self._kept = kept
        self._connect_timeout_s = connect_timeout_s
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._tls: ssl.SSLContext | None = None
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._opening: set[asyncio.Timeout] = set()
        self._closed = False
        self._look: asyncio.TimerHandle | None = None
        self._head = lru_cache(maxsize=64)(self._made_head)
        self._replies: KnownReplies = {}

    async def open(self) -> Self:
        """Make ready; nothing is sent yet. Reading the machine's certificates takes a while, so a thread does it."""
        if self._url.scheme == "https":
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        self._look_again()
        return self

    async def post(
        self, path: str, headers: Mapping[str, str], body: bytes, *, whole: bool, begun: Connection | None = None
    ) -> Connection:
        """Send a request and return its reply, once its head has come; where wanted `whole`, with its body.

        A connection that had been kept and turns out to have been closed meanwhile is replaced once; where the request
        has `begun` it is that. Raises `ExchangeFailed`, and `BadUrl` where path or headers cannot be sent.
        """
        head = self.head(path, headers, body)
        if (kept := begun or self._take()) is not None:
            try:
                await (kept.ask(head, body, whole=whole) if begun is None else begun.came())
            except Stale:
                pass
            else:
                return kept
        connection = await self._connect()
        await connection.ask(head, body, whole=whole)
        return connection

    def head(self, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """Return what a request begins with. Raises `BadUrl` where path or headers cannot be sent."""
        return self._head(path, tuple(headers.items())) + b"Content-Length: %d\r\n\r\n" % len(body)

    def has_idle(self) -> bool:
        """Tell whether `begin` may be called now."""
        idle = self._idle
        while idle and not idle[-1].is_open():
            idle.pop()
        return bool(idle)

    def begin(self, request: bytes, told: Callable[[], None], *, whole: bool) -> Connection:
        """Send a request on a connection that is open already; `told` is called when its reply has come or will not.

        Where it is not wanted `whole`, its head is enough. To be called where there `has_idle` alone, and followed by
        `post` or by `leave`.
        """
        connection = self._idle.pop()
        connection.begin(request, b"", whole=whole, told=told)
        return connection

    async def get(self, path: str) -> Connection:
        """Ask for what is at a path, as `post` does."""
        connection = self._take() or await self._connect()
        await connection.ask(self._get_head(path), b"", whole=True)
        return connection

    def close(self) -> None:
        """Close every connection at once; who waits on one is told."""
        self._closed = True
        if self._look is not None:
            self._look.cancel()
        for limit in self._opening:
            limit.reschedule(self._loop.time())
        for connection in tuple(self._all):
            connection.fail(ExchangeFailed("closed"))

    def _take(self) -> Connection | None:
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.is_open():
                return connection
        return None

    def _free(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= self._kept:
            connection.abort()
        else:
            self._idle.append(connection)

    async def _connect(self) -> Connection:
        url = self._url
        limit = asyncio.timeout(self._connect_timeout_s)
        self._opening.add(limit)
        try:
            async with limit:
                _, connection = await self._loop.create_connection(
                    self._connection, self.host, url.port or _PORTS[url.scheme], ssl=self._tls
                )
        except TimeoutError:
            if self._closed:
                raise ExchangeFailed("closed") from None
            raise Silent(f"no connection within {self._connect_timeout_s:g} s") from None
        except (OSError, UnicodeError) as error:
            raise ExchangeFailed(f"it cannot be connected to ({_kind(error)})") from error
        finally:
            self._opening.discard(limit)
        if self._closed:
            connection.abort()
            raise ExchangeFailed("closed")
        if connection.is_open():  # what was never made, or is lost already, is nothing to look after
            self._all.add(connection)
        return connection

    def _connection(self) -> Connection:
        return Connection(self._free, self._forget, self._loop.time, self._replies)

    def _forget(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _look_again(self) -> None:
        """Look after the deadlines of all connections: a timer for each read would cost more than the read."""
        now = self._loop.time()
        for connection in tuple(self._all):
            connection.look_at(now, self._silence_s, IDLE_S)
        self._look = self._loop.call_later(min(_LOOK_S, self._silence_s / 4), self._look_again)

    def _made_head(self, path: str, headers: tuple[tuple[str, str], ...]) -> bytes:
        return _head(f"POST {self._url.path.rstrip('/')}{path}", self._url.netloc, {**self._headers, **dict(headers)})

    def _get_head(self, path: str) -> bytes:
        return _head(f"GET {self._url.path.rstrip('/')}{path}", self._url.netloc, self._headers) + b"\r\n"


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadUrl(f"{url!r} is no http or https URL: {error}") from error
    del port
    netloc = parts.netloc.rpartition("@")[2]
    shown = parts._replace(netloc=netloc)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise BadUrl(f"{shown.geturl()!r} is no http or https URL")
    return shown


def _kind(error: Exception) -> str:
    """Name what went wrong without what the system says of it, which names the address."""
    number = error.errno if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
    return os.strerror(number) if number is not None and number > 0 else type(error).__name__


def _head(first: str, host: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{first} HTTP/1.1", f"Host: {host}", *[f"{name}: {value}" for name, value in headers.items()]]
    if any("\r" in line or "\n" in line for line in lines) or " " in first.partition(" ")[2]:
        raise BadUrl(f"{first!r} or one of its headers cannot be written into a request")
    return ("\r\n".join(lines) + "\r\n").encode(errors="surrogateescape")
