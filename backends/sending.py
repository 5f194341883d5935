"""What a backend offers that can be sent a request without waiting, in the words that its client wrote.

Knows nothing of how a model runs, nor of connections.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from backends.contract import AnsweringBackend, Job, Made, Verbatim


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
