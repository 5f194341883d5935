"""What a backend offers that can be sent a request without waiting, in the words that its client wrote.

Knows nothing of how a model runs, nor of connections.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from backends.contract import AnsweringBackend, Event, Job, Made, Verbatim


class Passed(NamedTuple):
    """A whole answer in the bytes that it came in, which are of the job's own kind, and the tokens that it tells."""

    body: bytes
    content_type: str
    tokens_in: int
    tokens_out: int


Written = bytes
"""A request as it is sent."""


class Sent(Protocol):
    """A job that was sent, and whose answer is on its way. It ends with one of its methods, however it ends."""

    def passed(self) -> Passed | None:
        """Return the answer, and end; `None` where it has not come whole, or must be read: then there is `rest`."""
        ...

    async def rest(self, job: Job) -> Sequence[Made]:
        """Wait for the answer; raises what `AnsweringBackend.answer` raises."""
        ...

    def leave(self) -> None:
        """Cancel the job."""
        ...


class SentStream(Protocol):
    """A job that was sent, and whose answer is streamed. `leave` it at its end, unless it went on as `rest`."""

    def has_come(self) -> bool:
        """Whether something of the answer has come, or nothing will."""
        ...

    def opened(self, verbatim: Verbatim) -> str:
        """Return of what type the stream is that answers a request; empty where there is none: then there is `rest`."""
        ...

    def take(self) -> bytes:
        """Return the bytes that have come since the last time."""
        ...

    def told(self, data: bytes) -> Sequence[Made]:
        """Return what these bytes tell, the bytes among it. Raises `BackendError`."""
        ...

    def ended(self) -> bool:
        """Whether no more will come."""
        ...

    def end(self) -> Sequence[Event]:
        """Return the events that close the answer. Raises `BackendError` where it was cut off, or is none."""
        ...

    def more(self, told: Callable[[], None]) -> None:
        """Call `told` once, when there is more to `take`, or it has `ended`."""
        ...

    def rest(self, job: Job) -> AsyncGenerator[Made, None]:
        """Yield the answer's events; raises what `Backend.stream` raises. Nothing may have been taken."""
        ...

    def leave(self) -> None:
        """End; what has not ended is cancelled."""
        ...


@runtime_checkable
class SendingBackend(AnsweringBackend, Protocol):
    """A backend that can be sent a job in its own `wire`'s words without waiting."""

    @property
    def wire(self) -> str:
        """The `Verbatim.wire` of the requests that go on as they came."""
        ...

    def ready(self) -> bool:
        """Tell whether `begin` may be called now."""
        ...

    def written(self, verbatim: Verbatim) -> Written:
        """Return what is to be sent for a request of its `wire`. Raises `BadJob`."""
        ...

    def begin(self, written: Written, told: Callable[[], None]) -> Sent:
        """Send what was `written`; `told` is called once, from the event loop, when its answer has come or will not."""
        ...

    def begin_stream(self, written: Written, told: Callable[[], None]) -> SentStream:
        """Send what was `written`; `told` is called once, from the event loop, when its answer begins or will not."""
        ...
