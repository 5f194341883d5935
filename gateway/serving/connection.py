"""One client's connection: its requests answered in their order, within deadlines. Knows HTTP/1.1, and no surface."""

import asyncio
import functools
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import cast

from gateway.errors import BodyTooSlow, Draining, RequestRefused
from gateway.fields import cut
from gateway.serving.inflate import inflate
from gateway.serving.intake import Incoming, Intake
from gateway.serving.leaving import GO_ON, START, Lookout
from gateway.serving.reply_head import head_of
from gateway.serving.rules import Errand, Rules
from gateway.serving.writer import WRITE_DEADLINE_S, Writer
from gateway.surfaces.wire import Call, Reply

_log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75.0
READ_DEADLINE_S = 60.0
# A refused client may still be sending; were the socket closed at once, a reset could overtake the refusal.
LINGER_S = 5.0
# When the server ends, who was not told yet that the connection does may be sending a request: it is waited for.
LAST_REQUEST_S = 0.5
_NEVER = float("inf")
# Stands for a request that was refused before it came whole.
_UNREAD = Incoming(method="", path="", query="", version="1.1", headers={}, body=b"", keep_alive=False)
_UNCHANGED = 304


class Connection(asyncio.Protocol):
    """Answers a client's requests one after the other. A client that leaves cancels its call.

    Somebody must call `look_at` now and then: deadlines of reading are kept there. While it is open it is in `among`.
    While it is `resting`, somebody else may answer whole requests in its place, or read them for it.
    """

    def __init__(self, rules: Rules, among: set["Connection"]) -> None:
        self.task: asyncio.Task[None] | None = None
        self.resting = True
        self._errand: Errand | None = None
        self._streaming = False
        self._stuck_s = _NEVER
        self._over: asyncio.Future[None] | None = None
        self._turn = _UNREAD
        self._rules = rules
        self._among = among
        self._loop = asyncio.get_running_loop()
        self._intake = Intake(rules.max_body_bytes, self._admit)
        self._turns: deque[Incoming | RequestRefused] = deque()
        self._expires_s = self._loop.time() + KEEP_ALIVE_S
        self._finishing = False
        self._said_it_lasts = True
        self._cut_off = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport and the client's address."""
        # uvloop's transports are no subclass of asyncio's, so this cannot be asserted.
        self._transport = cast("asyncio.Transport", transport)
        self._out = Writer(self._transport)
        self._lookout = Lookout(self._transport, self._answering)
        address = transport.get_extra_info("peername")
        self.peer: str | None = address[0] if isinstance(address, tuple) else None
        self._among.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what is being done for the client."""
        del exc
        self._intake.close()
        self._turns.clear()
        if self._errand is not None:
            self._errand.leave()
        self._tell_over()
        if self.task is not None:
            self.task.cancel()
        self._among.discard(self)

    def data_received(self, data: bytes) -> None:
        """Read what came; whole requests take their turns."""
        intake = self._intake
        intake.max_body_bytes = self._rules.max_body_bytes
        had_begun = intake.reading
        came = intake.feed(data)
        for turn in came:
            self._line_up(turn)
        if intake.reading and (came or not had_begun):
            self._expires_s = self._loop.time() + READ_DEADLINE_S
        if intake.expecting:
            self._let_body_come()
        self._look_whether_at_rest()

    def take(self, turn: Incoming) -> None:
        """Answer a request that was read by somebody else while this was `resting`."""
        self._line_up(turn)
        self._look_whether_at_rest()

    def noted(self) -> tuple[bytes, Incoming] | None:
        """Return the request that was received last, and its head's bytes, where it was all that came then."""
        return self._intake.noted

    def written(self, turn: Incoming) -> None:
        """Go on after somebody else wrote the reply to a request, while this was `resting`."""
        if self._out.is_free():
            self._expires_s = self._loop.time() + KEEP_ALIVE_S
        else:
            self.resting = False
            self.task = self._loop.create_task(self._answer(turn, written=True))

    def _look_whether_at_rest(self) -> None:
        """Note whether nothing is being read, answered or ended: then the next bytes begin a request."""
        self.resting = (
            self.task is None
            and self._errand is None
            and self._out.is_free()
            and not (self._turns or self._finishing or self._intake.reading or self._intake.closed)
        )

    def eof_received(self) -> bool:
        """Tell whether to go on with a client that sends no more: it may still read, or have left altogether.

        What is written ahead of the reply tells one from the other, for who has left refuses it. Once the reply has
        begun, the end of what is sent is the end of the connection; so it is with TLS.
        """
        self.have_a_task()
        if self.task is None or not self._lookout.can_ask():
            return False
        self._finishing = True
        self._lookout.ask()
        return True

    def pause_writing(self) -> None:
        """Hold a stream until the client has read."""
        self.resting = False
        self._out.pause()
        if self._streaming:
            self._stuck_s = self._loop.time() + WRITE_DEADLINE_S

    def resume_writing(self) -> None:
        """Let a stream go on."""
        self._out.resume()
        if self._streaming and self._errand is not None:
            self._stuck_s = _NEVER
            self._errand.told()
        self._look_whether_at_rest()

    def look_at(self, now: float) -> None:
        """Close or refuse where the client has taken too long; `now` is of the loop's clock."""
        if now >= self._stuck_s:
            self._transport.abort()
        if now < self._expires_s:
            return
        if self._intake.reading:
            self._turn_away(BodyTooSlow(f"the request did not arrive within {READ_DEADLINE_S:g} s"))
        else:
            self._transport.abort()

    def finish(self) -> None:
        """Answer what was asked and what is just being asked, and close; each reply says that it is the last."""
        self._finishing, self.resting = True, False
        self.have_a_task()
        self._expect_a_last()

    def _expect_a_last(self) -> None:
        """Where nothing is being answered close in a while: the client may send a request until it is told not to."""
        if self._answering() or self._intake.closed:
            return
        self._over = self._over or self._loop.create_future()
        self._loop.call_later(LAST_REQUEST_S, self._expect_no_more)

    def _expect_no_more(self) -> None:
        """Close, unless a request came; one that has begun to come and is not whole is refused."""
        self._tell_over()
        if self._intake.reading:
            self._turn_away(Draining("the gateway is shutting down"))
        elif not self._answering() and not self._intake.closed:
            self._transport.close()

    def cut_off(self) -> None:
        """Cancel the call in progress, and say so where its head has not been sent; a stream just breaks off."""
        self._cut_off = True
        if self.task is not None:
            self.task.cancel()
        elif self._streaming:
            self._transport.abort()
        elif self._over is not None:
            self._expect_no_more()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _turn_away(self, error: RequestRefused) -> None:
        """Refuse the request that is coming; the rest of it, and whatever follows, is not read."""
        error.path = self._intake.path
        self._intake.close()
        self.resting = False
        self._line_up(error)

    def _admit(self, headers: Mapping[str, str]) -> None:
        self._rules.admit(headers, self.peer)

    def _let_body_come(self) -> None:
        """Give a client that waits for it leave to send the body, once all before it was answered."""
        if not self._answering():
            self._intake.expecting = False
            self._transport.write(GO_ON)

    def _line_up(self, turn: Incoming | RequestRefused) -> None:
        self._turns.append(turn)
        self.have_a_task()
        if not self._answering():
            self._next()
            return
        self._expires_s = _NEVER  # what was asked before is answered first, however long that takes
        if not self._intake.closed:
            self._lookout.hold_back()

    def _next(self) -> None:
        """Begin with the next turn, or wait for one."""
        if not self._turns:
            if self._lookout.holds_back:
                self._lookout.let_on()
            if self._intake.expecting:
                self._let_body_come()
            self._expires_s = self._loop.time() + KEEP_ALIVE_S
            self._look_whether_at_rest()
            return
        self.resting = False
        turn = self._turns.popleft()
        if isinstance(turn, RequestRefused):
            refusal = self._rules.refuse(turn)
            self._write(_UNREAD, refusal, cast("bytes", refusal.body))
            self._close()
            return
        self._expires_s = _NEVER
        self._lookout.ahead = GO_ON if turn.version == "1.1" else START
        self.task = self._loop.create_task(self._answer(turn))

    def begin(self, turn: Incoming, errand: Errand) -> None:
        """Leave a request to an errand, which began while this was `resting`."""
        self._errand, self._turn, self.resting = errand, turn, False
        self._expires_s = _NEVER
        self._lookout.ahead = GO_ON

    def answered(self, reply: bytes) -> None:
        """Take an errand's reply."""
        self._errand, self._lookout.ahead = None, b""
        self._transport.write(reply)
        self.resting = not self._intake.reading
        if self._intake.expecting:
            self._let_body_come()
        self.written(self._turn)

    def opened(self, begins: bytes) -> None:
        """Take the head of an errand's streamed reply, and the first piece of its body."""
        self._streaming, self._lookout.ahead = True, b""
        self._transport.write(begins)

    def went_on(self, piece: bytes) -> None:
        """Take a piece of an errand's streamed reply."""
        self._out.chunk(piece)

    def is_reading(self) -> bool:
        """Tell whether more may be written now."""
        return self._out.is_free()

    def ended(self) -> None:
        """Take the end of an errand's streamed reply."""
        self._errand, self._streaming, self._stuck_s = None, False, _NEVER
        self._tell_over()
        self._out.end()
        if self._out.is_free():
            self._go_on(self._turn)
        else:
            self.written(self._turn)

    def under_way(self) -> asyncio.Future[None] | None:
        """Return what is done once the call in progress has ended, if there is one."""
        if self._streaming and self._over is None:
            self._over = self._loop.create_future()
        call = self.task or self._over
        return None if call is None or call.done() else call

    def has_unsent(self) -> bool:
        """Tell whether something that was written has not gone out yet."""
        return self._transport.get_write_buffer_size() > 0

    def _tell_over(self) -> None:
        if self._over is not None:
            self._over.set_result(None)
            self._over = None

    def _answering(self) -> bool:
        return self.task is not None or self._errand is not None

    def have_a_task(self) -> None:
        """Let a task wait for an errand's reply, unless it streams: what else befalls the connection is for tasks."""
        if self._errand is not None and self.task is None and not self._streaming:
            self._errand.hand_over()
            self.task = self._loop.create_task(self._answer(self._turn))

    async def _answer(self, request: Incoming, *, written: bool = False) -> None:
        try:
            reply = None if written else await self._reply(request)
            if reply is not None and not isinstance(reply.body, bytes):
                await self._stream(request, reply, reply.body)
            else:
                if reply is not None:
                    self._write(request, reply, cast("bytes", reply.body))
                await self._out.until_read()
        except BaseException as error:
            self._transport.abort()  # a stream that breaks off must not look like one that ended
            if isinstance(error, Exception):
                _log.exception("%s %r broke off", request.method, cut(request.path))
                return
            raise
        finally:
            self.task = None
        self._go_on(request)

    def _go_on(self, request: Incoming) -> None:
        """Go on with the next turn after a request that was answered, or close."""
        if not request.keep_alive or (self._finishing and not self._said_it_lasts):
            self._close()
            return
        self._next()
        if self._finishing:
            self._expect_a_last()

    async def _reply(self, request: Incoming) -> Reply:
        try:
            if (errand := self._errand) is not None:
                self._errand = None
                return await errand.rest()
            body = request.body
            if request.coding:
                body = await inflate(body, request.coding, self._rules.max_body_bytes)
            return await self._rules.serve(self._call_of(request, body))
        except RequestRefused as error:
            error.path = request.path
            return self._rules.refuse(error)
        except asyncio.CancelledError:
            if not self._cut_off:
                raise
            cast("asyncio.Task[None]", self.task).uncancel()  # it lives on for one refusal
            return self._rules.refuse(Draining("the gateway shut down before this was answered"))

    def _call_of(self, request: Incoming, body: bytes) -> Call:
        return Call(request.method, request.path, request.headers, body, self.peer, request.query)

    def _write(self, request: Incoming, reply: Reply, body: bytes) -> None:
        # A 304 has no body, and its length would be that of the answer itself (RFC 9110 §8.6).
        head = self._head(request, reply, f"Content-Length: {len(body)}" if reply.status != _UNCHANGED else "")
        self._transport.write(head + body if request.method != "HEAD" else head)

    async def _stream(self, request: Incoming, reply: Reply, chunks: AsyncIterator[bytes]) -> None:
        """Write chunks as they come; a client of HTTP/1.0 knows none, and takes the connection's end for the body's."""
        chunked = request.version == "1.1"
        self._finishing = self._finishing or not chunked
        head = functools.partial(self._head, request, reply, "Transfer-Encoding: chunked" if chunked else "")
        await self._out.stream(head, chunks, reply.outlet, chunked=chunked)

    def _head(self, request: Incoming, reply: Reply, framing: str) -> bytes:
        lookout = self._lookout
        lookout.ahead = b""
        self._said_it_lasts = lasts = request.keep_alive and not self._finishing
        head = head_of(reply, framing, named=not lasts or request.version == "1.0", lasts=lasts)
        if lookout.has_begun:
            lookout.has_begun = False
            return head[len(START) :]
        return head

    def _close(self) -> None:
        """Close once all is written; a client that was turned away is heard out first."""
        if self._intake.closed:
            self._expires_s = self._loop.time() + LINGER_S
            if self._transport.can_write_eof():  # TLS has no half of an end
                self._transport.write_eof()
        else:
            self._transport.close()
