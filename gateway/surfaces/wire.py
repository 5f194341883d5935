"""The plain values between a socket and a surface, and what every surface offers. Knows no server and no format."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import field
from typing import NamedTuple, Protocol

from backends.contract import Event
from backends.value import value
from gateway.answer import Answer, Head
from gateway.errors import Fault
from gateway.request import Request

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"


@value
class Call:
    """One HTTP request. Header names are in lower case; `query` is what follows the `?`, as it came.

    `names` are the parts of the path that its pattern names: `/v1/models/{model}` gives `model`.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    peer: str | None
    query: str = ""
    names: Mapping[str, str] = field(default_factory=dict)


@value
class Reply:
    """One HTTP response; a body that is an iterator is streamed, and closed when the client leaves."""

    status: int
    headers: dict[str, str]
    body: bytes | AsyncIterator[bytes]
    outlet: "Outlet | None" = None
    """Where the makers of a streamed body may write a piece of it while its reader waits for one."""


class Outlet:
    """Leads past the iterator of a streamed body; `write` tells whether it took a piece, and takes none till set."""

    __slots__ = ("write",)

    def __init__(self) -> None:
        self.write: Callable[[bytes], bool] = _closed


def _closed(_piece: bytes) -> bool:
    return False


class Whole(NamedTuple):
    """A complete body, and what the response's headers say of it."""

    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = {}


class Failure(NamedTuple):
    """An error as a wire tells it."""

    status: int
    body: bytes


class Frames(Protocol):
    """Turns the events of one answer into the bytes of a stream."""

    def content_type(self, head: Head) -> str:
        """Name what the stream consists of."""
        ...

    def opening(self, head: Head) -> bytes:
        """Encode what the stream begins with."""
        ...

    def frame(self, event: Event) -> bytes:
        """Encode one event; empty where the wire says nothing of it."""
        ...

    def closing(self) -> bytes:
        """Encode what a complete stream ends with."""
        ...


class Encoder(Protocol):
    """Turns one answer into the bytes that its client asked for: frames where it asked for a stream, else one body."""

    @property
    def frames(self) -> Frames | None:
        """The stream's frames, or None where the client wants one body."""
        ...

    def whole(self, answer: Answer) -> Whole:
        """Encode a complete answer as one body."""
        ...


class Surface(Protocol):
    """A wire format."""

    name: str

    @property
    def paths(self) -> frozenset[str]:
        """The paths of `POST` requests that `decode` understands; `{name}` in one stands for any text."""
        ...

    def decode(self, call: Call, reply_id: str) -> tuple[Request, Encoder]:
        """Read a request. Raises `InvalidRequest`. `reply_id` is 24 hex digits, fresh for each reply."""
        ...

    def failure(self, fault: Fault) -> Failure:
        """Encode an error as a status and a body."""
        ...

    def failure_frame(self, fault: Fault) -> bytes:
        """Encode an error in the middle of a stream."""
        ...
