"""The plain values between a socket and a surface, and what every surface offers. Knows no server and no format."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from backends.contract import Event
from gateway.answer import Answer, Head
from gateway.errors import Fault
from gateway.request import Request

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    peer: str | None


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP response; a body that is an iterator is streamed, and closed when the client leaves."""

    status: int
    headers: dict[str, str]
    body: bytes | AsyncIterator[bytes]


class Frames(Protocol):
    """Turns the events of one answer into the bytes of a stream."""

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

    def whole(self, answer: Answer) -> bytes:
        """Encode a complete answer as one body."""
        ...


class Surface(Protocol):
    """A wire format."""

    name: str

    @property
    def paths(self) -> frozenset[str]:
        """The paths of `POST` requests that `decode` understands."""
        ...

    def decode(self, call: Call, reply_id: str) -> tuple[Request, Encoder]:
        """Read a request. Raises `InvalidRequest`. `reply_id` is 24 hex digits, fresh for each reply."""
        ...

    def failure(self, fault: Fault) -> bytes:
        """Encode an error as a body."""
        ...

    def failure_frame(self, fault: Fault) -> bytes:
        """Encode an error in the middle of a stream."""
        ...
