"""Requests that were sent to an upstream, and whose answers are looked at as they come: no task waits for them.

Knows what the bytes of an answer say, and no connection but the one that brings it.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from backends.contract import BackendError, Event, Job, Made, Task, Verbatim
from backends.glance import tokens_of
from backends.http_connection import Connection
from backends.sending import Passed
from backends.sse import EventTooLongError
from backends.telling import Telling

# After a stream's last event the end of the body is due at once; a server that does not send it loses the connection.
END_S = 0.1
_EVENT_STREAM = "text/event-stream"
OK = 200
# The others that have an answer in their body. What else is a success says that there is none, or not yet, or a part.
ANSWERED = frozenset({OK, 201, 203})


class Asking(Protocol):
    """Who sent a request, and can go on with its reply in a task."""

    async def answer(self, job: Job, begun: Connection) -> Sequence[Made]:
        """Wait for the whole answer."""
        ...

    def stream(self, job: Job, begun: Connection) -> AsyncGenerator[Made, None]:
        """Yield what the answer tells."""
        ...

    def telling(self, reply: Connection, job: Job) -> Telling:
        """Return what reads a reply."""
        ...

    def broken(self, error: Exception) -> BackendError:
        """Say what befell a connection."""
        ...


class SentWhole:
    """A job that was sent, and whose answer is on its way. It ends with one of its methods, however it ends."""

    __slots__ = ("_asking", "_reply")

    def __init__(self, asking: Asking, reply: Connection) -> None:
        self._asking = asking
        self._reply = reply

    def passed(self) -> Passed | None:
        """Return the answer, and end; `None` where it has not come whole, or must be read: then there is `rest`."""
        reply = self._reply
        if not reply.complete or reply.status not in ANSWERED:
            return None
        if is_stream(reply):
            return None
        body = reply.body()
        tokens = tokens_of(body)
        if tokens is None:
            return None
        reply.leave()
        return Passed(body, reply.header("content-type"), *tokens)

    async def rest(self, job: Job) -> Sequence[Made]:
        """Go on as `HttpBackend.answer` does, and raise what it raises; the connection was stale: as it begins."""
        return await self._asking.answer(job, self._reply)

    def leave(self) -> None:
        """Close the connection at once."""
        self._reply.leave()


class SentStream:
    """A job that was sent, and whose answer is streamed. `leave` it at its end, unless it went on as `rest`."""

    __slots__ = ("_asking", "_past_end", "_reply", "_telling", "_timer")

    def __init__(self, asking: Asking, reply: Connection) -> None:
        self._asking = asking
        self._reply = reply
        self._telling: Telling | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._past_end = False

    def has_come(self) -> bool:
        """Whether something of the answer has come, or nothing will."""
        return self._past_end or self._reply.has_come()

    def opened(self, verbatim: Verbatim) -> str:
        """Return of what type the stream is that answers a request; empty where there is none: then there is `rest`."""
        reply = self._reply
        if reply.status not in ANSWERED or not reply.body() or not is_stream(reply):
            return ""
        self._telling = self._asking.telling(reply, Job(Task.CHAT, stream=True, verbatim=verbatim))
        return reply.header("content-type")

    def take(self) -> bytes:
        """Return the bytes that have come since the last time."""
        return self._reply.take()

    def told(self, data: bytes) -> Sequence[Made]:
        """Return what these bytes tell, the bytes among it. Raises `BackendError`."""
        try:
            return self._opened().told(data)
        except EventTooLongError as error:
            raise self._asking.broken(error) from error

    def ended(self) -> bool:
        """Whether no more will come."""
        telling = self._opened()
        return telling.error is not None or self._past_end or self._reply.complete or self._reply.error is not None

    def end(self) -> Sequence[Event]:
        """Return the events that close the answer. Raises `BackendError` where it was cut off, or is none."""
        telling, error = self._opened(), self._reply.error
        if telling.error is None and error is not None:
            raise self._asking.broken(error) from error
        return telling.end()

    def more(self, told: Callable[[], None]) -> None:
        """Call `told` once, when there is more to `take`, or it has `ended`."""
        self._reply.tell(told)
        if self._telling is not None and self._telling.complete and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(END_S, self._give_up, told)

    def rest(self, job: Job) -> AsyncGenerator[Made, None]:
        """Go on as `HttpBackend.stream` does, and raise what it raises; nothing may have been taken."""
        return self._asking.stream(job, self._reply)

    def leave(self) -> None:
        """End: a reply that has not ended takes its connection with it."""
        if self._timer is not None:
            self._timer.cancel()
        self._reply.leave()

    def _opened(self) -> Telling:
        assert self._telling is not None, "it was opened"
        return self._telling

    def _give_up(self, told: Callable[[], None]) -> None:
        self._past_end = True
        told()


def is_stream(reply: Connection) -> bool:
    """Tell whether a reply is one of events."""
    return reply.header("content-type").startswith(_EVENT_STREAM)
