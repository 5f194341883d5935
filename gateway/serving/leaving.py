"""Whether a client that sends no more, or has sent ahead, is still there, while its call is served.

Knows sockets, and no request.
"""

import asyncio
import select
import socket
from collections.abc import Callable

# How often it is looked whether a client is still there; leaving must be noticed within 100 ms.
_LOOK_S = 0.025
# Who sends no more may leave long after it was asked, and its system tells of that only when it is sent something.
_ASK_AGAIN_S = 5.0
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
# Every head begins so; for HTTP/1.0, which knows no interim response, it can be sent ahead of the rest.
START = b"HTTP/1.1 "

# Tells of the end of what a client sends though not all before it has been read; not every system has it.
_ENDED = getattr(select, "POLLRDHUP", 0)


class Lookout:
    """Looks after the client of a call while `is_served` says that it goes on, and closes where the client has left.

    `ahead` is what may be written ahead of the reply, nothing once the reply has begun. `has_begun` says that it was
    the reply's own start. `holds_back` while what the client sends ahead stays in the socket.
    """

    __slots__ = ("_asked_s", "_is_looking", "_is_served", "_transport", "ahead", "has_begun", "holds_back")

    def __init__(self, transport: asyncio.Transport, is_served: Callable[[], bool]) -> None:
        self._transport = transport
        self._is_served = is_served
        self._is_looking = False
        self._asked_s = 0.0
        self.ahead = b""
        self.has_begun = False
        self.holds_back = False

    def can_ask(self) -> bool:
        """Tell whether there is something that may be written ahead; with TLS, who sends no more has left."""
        return bool(self.ahead) and self._transport.can_write_eof()

    def ask(self) -> None:
        """Write what may stand before the reply, and look whether it is refused: who has left refuses it."""
        self._transport.write(self.ahead)
        self._asked_s = asyncio.get_running_loop().time()
        if self.ahead is START:  # there is one of it, and any number of the other
            self.has_begun, self.ahead = True, b""
        _look_later(self._look_whether_refused)

    def hold_back(self) -> None:
        """Leave what the client sends ahead in the socket, and look whether its end is behind that."""
        self.holds_back = True
        self._transport.pause_reading()
        if not self._is_looking:
            self._is_looking = True
            _look_later(self._look_behind)

    def let_on(self) -> None:
        """Read on."""
        self.holds_back = False
        self._transport.resume_reading()

    def _look_whether_refused(self) -> None:
        """Close when the client has refused what it was sent; look, and ask, again while it is being served."""
        if not self._is_served() or self._transport.is_closing():
            return
        if _has_refused(self._transport):
            self._transport.abort()
        elif self.ahead is GO_ON and asyncio.get_running_loop().time() >= self._asked_s + _ASK_AGAIN_S:
            self.ask()
        else:
            _look_later(self._look_whether_refused)

    def _look_behind(self) -> None:
        """Look whether a client that sent ahead has left: its end is behind what is not read yet."""
        self._is_looking = False
        if not self.holds_back or not self._is_served() or self._transport.is_closing():
            return
        ended = _has_ended(self._transport)
        if ended is None:
            self._is_looking = True
            _look_later(self._look_behind)
        elif ended and self.can_ask():
            self.ask()
        else:
            self._transport.abort()


def _look_later(look: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(_LOOK_S, look)


def _has_refused(transport: asyncio.Transport) -> bool:
    """Tell whether a client refused what it was sent last."""
    error: int = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return error != 0


def _has_ended(transport: asyncio.Transport) -> bool | None:
    """Tell whether a client sends no more, behind what was not read yet; False: it has left, None: it goes on."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), _ENDED)
    seen = poll.poll(0)
    return seen[0][1] == _ENDED if seen else None
