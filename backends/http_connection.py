"""One connection to an HTTP/1.1 server: a request out, its reply back, and again. Knows no URL and no wire's format.

Everything happens in the transport's callbacks. Who waits is woken once for all that came in one piece, so a small
reply costs one wake-up.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from backends.http_reply import ExchangeFailed, KnownReplies, Reply

# So much of a body is held for a slow reader; then the socket is not read until there is room.
HELD_BYTES = 256 * 2**10
# A body so small goes out in one piece with its head.
_JOINED_BYTES = 16 * 2**10


class Stale(ExchangeFailed):
    """A connection that had served before was closed, and nothing of a reply had come: it may be asked anew."""


class Silent(ExchangeFailed):
    """The server sent nothing for too long."""


class Connection(Reply, asyncio.Protocol):
    """Carries one exchange at a time, and is the reply that is being read.

    `on_free` is called when it can carry the next, `on_lost` when it is gone. `now` is the loop's time.
    """

    def __init__(
        self,
        on_free: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
        now: Callable[[], float],
        known: KnownReplies,
    ) -> None:
        super().__init__(known)
        self.since_s = now()
        self.busy = False
        self._now = now
        self._on_free = on_free
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._told: Callable[[], None] | None = None
        self._straight: Callable[[bytes], bool] | None = None
        self._whole = False
        self._used = False
        self._lost = True  # it has not been made yet
        self._paused = False
        self.diverted = False
        """Whether the last `read` returned because what came went elsewhere."""

    async def ask(self, head: bytes, body: bytes, *, whole: bool) -> None:
        """Send a request and wait until its reply `came`."""
        if self._lost:
            raise Stale("the connection was closed meanwhile")
        self.begin(head, body, whole=whole)
        await self.came()

    def begin(self, head: bytes, body: bytes, *, whole: bool, told: Callable[[], None] | None = None) -> None:
        """Send a request. To be followed by `came`, or by `leave`.

        `told` is called once, where what `came` waits for has come while nobody waited.
        """
        self._reset()
        self.busy, self._paused, self.diverted = True, False, False
        self._whole = whole
        self._told = told
        self.since_s = self._now()
        if len(body) <= _JOINED_BYTES:
            self._transport.write(head + body if body else head)
        else:
            self._transport.write(head)
            self._transport.write(body)

    async def came(self) -> None:
        """Wait for the reply's head; where it is wanted `whole`, for its body too, while it fits.

        Raises `ExchangeFailed`. To be followed by `leave` where it does not, with `read` between.
        """
        self._told = None
        if not self._ended() and not (self._head_done and not self._whole):
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            except BaseException:
                self.leave()
                raise
        if not self._head_done:
            self.leave()
            raise cast("ExchangeFailed", self.error)

    def tell(self, told: Callable[[], None]) -> None:
        """Call `told` once, where more has come or the reply has ended, and nobody waits."""
        self._told = told

    def has_come(self) -> bool:
        """Whether something of the body has come, or none will."""
        return bool(self._body) or self._ended()

    def take(self) -> bytes:
        """Return what has come of the body and was not read, and let more come."""
        data = self._taken()
        if self._paused:
            self._paused = False
            self.since_s = self._now()
            self._transport.resume_reading()
        return data

    async def read(self, straight: Callable[[bytes], bool] | None = None) -> bytes:
        """Return what has come of the body since the last time; nothing at its end. Raises `ExchangeFailed`.

        What comes during the wait is given to `straight`, if any, and the wait ends when that returns False: then
        nothing is returned either, and `diverted` is set.
        """
        self.diverted = False
        while not self._body:
            if self.complete:
                return b""
            if self.error is not None:
                raise self.error
            self._waiter, self._straight = self._loop.create_future(), straight
            try:
                await self._waiter
            finally:
                self._straight = None
            if self.diverted:
                return b""
        return self.take()

    def leave(self) -> None:
        """End the exchange: a reply that was not read to its end takes the connection with it."""
        if not self.busy:
            return
        self.busy = False
        self._told = None
        self._body.clear()
        if (
            self.complete
            and self._keep_alive
            and not self._overrun
            and self.is_open()
            and not self._transport.get_write_buffer_size()
        ):
            self._used = True
            self.since_s = self._now()
            self._on_free(self)
        elif not self._lost:
            self._transport.abort()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def fail(self, error: ExchangeFailed) -> None:
        """Give up: whoever reads is told why, and the connection is closed."""
        if self.error is None and not self.complete:
            self.error = error
            self._wake()
        if not self._lost:
            self._transport.abort()

    def look_at(self, now: float, silence_s: float, idle_s: float) -> None:
        """Close what has been silent or idle for too long; a reader that is slow itself cannot blame the server."""
        if not self.busy:
            if now - self.since_s >= idle_s:
                self._transport.close()
        elif now - self.since_s >= silence_s and not self._paused and not self.complete:
            self.fail(Silent(f"nothing came for {silence_s:g} s"))

    def is_open(self) -> bool:
        """Whether the next request may be sent on it."""
        return not self._lost and not self._transport.is_closing()

    def _wake(self) -> None:
        told, waiter = self._told, self._waiter
        if told is not None:
            self._told = None
            told()
        elif waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What follows is called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports are no subclass of asyncio's, so this cannot be asserted.
        self._transport = cast("asyncio.Transport", transport)
        self._lost = False

    def data_received(self, data: bytes) -> None:
        """Read what came, and wake who waits for it."""
        if not self.busy:
            self._transport.abort()  # nobody asked
            return
        if self._ended():
            self._overrun = True
            return
        self.since_s = self._now()
        if not self._received_bytes and self._take_known(data):
            self._whole = False
            self._wake()
            return
        try:
            self._feed(data)
        except ExchangeFailed as error:
            self.fail(error)
        if self._held_bytes >= HELD_BYTES and not self._ended():
            self._paused = True
            self._transport.pause_reading()
        if self._head_done and (self.complete or not self._whole or self._paused):
            self._whole = False
            if self._straight is None or not self._went_straight(self._straight):
                self._wake()

    def _went_straight(self, straight: Callable[[bytes], bool]) -> bool:
        """Give what came to who wants it at once, and tell whether the reader may wait on."""
        waiter = self._waiter
        if waiter is None or waiter.done() or not self._body or self._paused or self._ended():
            return False
        self.diverted = not straight(self._taken())
        return not self.diverted

    def eof_received(self) -> bool:
        """Let the transport close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End a body that ends with the connection; else the reply was cut off."""
        self._lost = True
        if self.busy and not self.complete and self.error is None:
            if self._until_close and exc is None:
                self.complete = True
                self._wake()
            else:
                self.error = self._broken(exc)
                self._wake()
        self._on_lost(self)

    def _broken(self, exc: Exception | None) -> ExchangeFailed:
        why = "the connection was closed" if exc is None else f"the connection broke: {exc}"
        if self._used and not self._received_bytes:
            return Stale(why)
        return ExchangeFailed(f"{why} before the reply was complete")
