"""One client's connection: bytes to `Call`s in their order, `Reply`s to bytes. Knows HTTP/1.1, and no surface."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote_to_bytes, urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from gateway.errors import BodyTooLarge, BodyTooSlow, Draining, InvalidRequest, RequestRefused
from gateway.surfaces.wire import Call, Reply

_log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75.0
READ_DEADLINE_S = 60.0
WRITE_DEADLINE_S = 60.0
# A refused client may still be sending; were the socket closed at once, a reset could overtake the refusal.
LINGER_S = 5.0
HEAD_LIMIT_BYTES = 64 * 2**10
# The worst that framing may make of a body is one chunk for each byte: six bytes.
_FRAMING = 8
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Rules:
    """What all connections of a server have in common."""

    serve: Callable[[Call], Awaitable[Reply]]
    refuse: Callable[[Exception], Reply]
    max_body_bytes: int


@dataclass(frozen=True, slots=True)
class _Turn:
    """A request whose turn comes when those before it are answered: the call, or why there will be none."""

    call: Call | RequestRefused
    version: str
    keep_alive: bool
    with_body: bool = True


class Connection(asyncio.Protocol):
    """Reads requests within bounds and answers them in turn. A client that leaves cancels its call.

    Somebody must call `look_at` now and then: deadlines of reading are kept there. `on_lost` is called at the end.
    """

    def __init__(self, rules: Rules, on_lost: Callable[["Connection"], None]) -> None:
        self.task: asyncio.Task[None] | None = None
        self._rules = rules
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(self)
        self._turns: deque[_Turn] = deque()
        self._expires_s = self._loop.time() + KEEP_ALIVE_S
        self._body: bytes | bytearray
        self._reading = False
        self._in_body = False
        self._ended_one = False
        self._deaf = False
        self._finishing = False
        self._cut_off = False
        self._holding_back = False
        self._writable: asyncio.Future[None] | None = None
        self._begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport and the client's address."""
        # uvloop's transports are no subclass of asyncio's, so this cannot be asserted.
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self._peer: str | None = address[0] if isinstance(address, tuple) else None

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what is being done for the client."""
        del exc
        self._deaf = True
        self._turns.clear()
        if self.task is not None:
            self.task.cancel()
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came; whole requests become turns."""
        self._ended_one = False
        while not self._deaf:
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                data = self._decline_upgrade() + data[upgrade.args[0] :]
                continue
            except HttpParserError as error:
                self._turn_away(InvalidRequest(f"this is not HTTP/1.1: {error}"))
            if not self._ended_one:  # else most of it may belong to requests that came whole
                self._received_bytes += len(data)
            if self._reading and self._received_bytes > HEAD_LIMIT_BYTES + _FRAMING * self._body_bytes:
                self._turn_away(self._too_long())
            return

    def pause_writing(self) -> None:
        """Hold a stream until the client has read."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let a stream go on."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def look_at(self, now: float) -> None:
        """Close or refuse where the client has taken too long; `now` is of the loop's clock."""
        if now < self._expires_s:
            return
        if self._reading and not self._deaf:
            self._turn_away(BodyTooSlow(f"the request did not arrive within {READ_DEADLINE_S:g} s"))
        else:
            self._transport.abort()

    def finish(self) -> None:
        """Answer what was asked, then close; a request that has not yet come whole is refused."""
        self._finishing = True
        if self._reading:
            self._turn_away(Draining("the gateway is shutting down"))
        elif self.task is None and not self._deaf:
            self._transport.close()

    def cut_off(self) -> None:
        """Cancel the call in progress, and say so where its head has not been sent; a stream just breaks off."""
        self._cut_off = True
        if self.task is not None:
            self.task.cancel()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # What follows is called by the parser.

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._begin()
        self._reading = True
        self._expires_s = self._loop.time() + READ_DEADLINE_S

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request's target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what comes after the body is a trailer, and none of the head's."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_LIMIT_BYTES:
            self._turn_away(self._too_long())
        if self._in_body:
            return
        key, text = name.decode().lower(), value.decode(errors="surrogateescape")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        """Refuse what can be refused before its body comes."""
        self._in_body = True
        announced = int(self._headers.get("content-length", 0))
        coding = self._headers.get("content-encoding", "identity")
        if announced > self._rules.max_body_bytes:
            self._turn_away(self._too_large(f"{announced} bytes"))
        elif coding != "identity":
            self._turn_away(InvalidRequest(f"a body with Content-Encoding: {coding} is not read; send it as it is"))
        elif self._headers.get("expect", "").lower() == "100-continue" and self.task is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self._rules.max_body_bytes:
            self._turn_away(self._too_large("more"))
        elif self._body:
            # One buffer: as objects of their own, chunks of two bytes would take thirty times their size.
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body
        else:
            self._body = body

    def on_message_complete(self) -> None:
        """Let the request take its turn."""
        if self._deaf or self._parser.should_upgrade():
            return
        self._reading = False
        self._ended_one = True
        method = self._parser.get_method().decode()
        call = Call(method, _path(self._target), self._headers, bytes(self._body), self._peer)
        version = self._parser.get_http_version()
        self._line_up(_Turn(call, version, self._parser.should_keep_alive(), with_body=method != "HEAD"))

    def _decline_upgrade(self) -> bytes:
        """Return the head as if it had offered no other protocol, for a fresh parser: the old one takes no body now."""
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._turn_away(InvalidRequest("this is no proxy: CONNECT is not served"))
        first = (
            f"{method.decode()} {self._target.decode(errors='surrogateescape')} HTTP/{self._parser.get_http_version()}"
        )
        others = [f"{name}: {value}" for name, value in self._headers.items() if name != "upgrade"]
        self._parser = HttpRequestParser(self)
        return ("\r\n".join([first, *others]) + "\r\n\r\n").encode(errors="surrogateescape")

    def _begin(self) -> None:
        self._in_body = False
        self._target = b""
        self._head_bytes = 0
        self._headers: dict[str, str] = {}
        self._body = b""
        self._body_bytes = 0
        self._received_bytes = 0

    # From a turn to its reply.

    def _turn_away(self, error: RequestRefused) -> None:
        """Refuse a request that has not come whole; the rest of it, and whatever follows, is not read."""
        if not self._deaf:
            self._deaf = True
            self._reading = False
            self._line_up(_Turn(error, version="1.1", keep_alive=False))

    def _too_long(self) -> InvalidRequest:
        return InvalidRequest(f"the request's head is too long; at most {HEAD_LIMIT_BYTES} bytes are read")

    def _too_large(self, size: str) -> BodyTooLarge:
        limit = self._rules.max_body_bytes
        return BodyTooLarge(f"the body has {size}; at most {limit} bytes are read (server.max_body)")

    def _line_up(self, turn: _Turn) -> None:
        self._turns.append(turn)
        if self.task is None:
            self._next()
        elif not self._deaf:
            self._holding_back = True
            self._transport.pause_reading()  # a client that sends ahead waits; the socket holds the rest

    def _next(self) -> None:
        """Begin with the next turn, or wait for one."""
        if not self._turns:
            if self._holding_back:
                self._holding_back = False
                self._transport.resume_reading()
            self._expires_s = self._loop.time() + KEEP_ALIVE_S
            return
        turn = self._turns.popleft()
        if isinstance(turn.call, RequestRefused):
            refusal = self._rules.refuse(turn.call)
            self._write(turn, refusal, cast("bytes", refusal.body))
            self._close()
            return
        self._expires_s = _NEVER
        self.task = self._loop.create_task(self._answer(turn, turn.call))

    async def _answer(self, turn: _Turn, call: Call) -> None:
        try:
            reply = await self._reply(call)
            if isinstance(reply.body, bytes):
                self._write(turn, reply, reply.body)
                if self._writable is not None:
                    await self._until_read()
            else:
                await self._stream(turn, reply, reply.body)
        except BaseException as error:
            self._transport.abort()  # a stream that breaks off must not look like one that ended
            if isinstance(error, Exception):
                _log.exception("%s %s broke off", call.method, call.path)
                return
            raise
        finally:
            self.task = None
        if turn.keep_alive and not self._finishing:
            self._next()
        else:
            self._close()

    async def _reply(self, call: Call) -> Reply:
        try:
            return await self._rules.serve(call)
        except asyncio.CancelledError:
            if not self._cut_off:
                raise
            cast("asyncio.Task[None]", self.task).uncancel()  # it lives on for one refusal
            return self._rules.refuse(Draining("the gateway shut down before this was answered"))

    def _write(self, turn: _Turn, reply: Reply, body: bytes) -> None:
        head = self._head(turn, reply, f"Content-Length: {len(body)}")
        self._transport.write(head + body if turn.with_body else head)

    async def _stream(self, turn: _Turn, reply: Reply, chunks: AsyncIterator[bytes]) -> None:
        """Write chunks as they come; a client of HTTP/1.0 knows none, and takes the connection's end for the body's."""
        chunked = turn.version == "1.1"
        self._finishing = self._finishing or not chunked
        async with aclosing(cast("Any", chunks)):
            # Nothing is awaited before the iterator has begun: one that never began would not clean up when closed.
            self._transport.write(self._head(turn, reply, "Transfer-Encoding: chunked" if chunked else ""))
            async for chunk in chunks:
                self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                if self._writable is not None:
                    await self._until_read()
        if chunked:
            self._transport.write(b"0\r\n\r\n")

    async def _until_read(self) -> None:
        """Wait until the client has read: who does not holds its own share only, and not for ever."""
        async with asyncio.timeout(WRITE_DEADLINE_S):
            await cast("asyncio.Future[None]", self._writable)

    def _head(self, turn: _Turn, reply: Reply, framing: str) -> bytes:
        lines = [
            _preamble(reply.status, int(time.time())),
            *[f"{name}: {value}" for name, value in reply.headers.items()],
        ]
        if framing:
            lines.append(framing)
        if not turn.keep_alive or self._finishing:
            lines.append("Connection: close")
        elif turn.version == "1.0":
            lines.append("Connection: keep-alive")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def _close(self) -> None:
        """Close once all is written; a client that was turned away is heard out first."""
        if self._deaf:
            self._expires_s = self._loop.time() + LINGER_S
            self._transport.write_eof()
        else:
            self._transport.close()


@lru_cache(maxsize=32)
def _preamble(status: int, epoch_s: int) -> str:
    """Return what a reply begins with: the same for all replies of one status in one second."""
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nDate: {formatdate(epoch_s, usegmt=True)}\r\nServer: warmgate"
    )


def _path(target: bytes) -> str:
    """Return the path of a request's target, which may be a whole URL; without its query."""
    if not target.startswith(b"/"):
        target = urlsplit(target).path or b"/"
    path = target.partition(b"?")[0]
    return (unquote_to_bytes(path) if b"%" in path else path).decode(errors="replace")
