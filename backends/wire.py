"""What a wire must offer so that an upstream can be asked in it, and the bytes that a client wrote sent on in it.

Pure: bytes and values in, values out. Knows no particular wire, nothing of connections, and never sees a key's use.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import orjson

from backends.contract import BackendError, BadJob, Event, Job, Verbatim
from backends.renaming import renamed


class Asking(NamedTuple):
    """A `POST` to an upstream: `path` counts from its base URL, `headers` are `Content-Type` and those of the wire."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class Decoder(Protocol):
    """Turns one streamed answer into events. It is fed each server-sent event's data, in order."""

    @property
    def complete(self) -> bool:
        """Whether the wire's last event has come (`[DONE]`, `message_stop`): after it only the body's end is due."""
        ...

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that one server-sent event's data stands for; never `Usage` and `Finish`.

        Raises `UpstreamFailed` for an error in the stream, and for what is none of the wire's events.
        """
        ...

    def end(self) -> list[Event]:
        """Return what closes the answer: `Usage` where known, then one `Finish` a choice.

        Raises `UpstreamFailed` where the answer was cut off.
        """
        ...


class Wire(Protocol):
    """A wire format as its client speaks it."""

    @property
    def name(self) -> str:
        """Name the wire: the `Verbatim.wire` of the requests that go on as they came."""
        ...

    def credentials(self, key: str) -> Mapping[str, str]:
        """Return the headers that carry the operator's key."""
        ...

    def request_of(self, job: Job, model: str) -> Asking:
        """Return what asks an upstream's `model` to do `job`; a job in this wire's own words goes on with `as_it_came`.

        Raises `BadJob` for what the wire has no words for.
        """
        ...

    def decoder(self, job: Job) -> Decoder:
        """Return what reads the job's answer where it is streamed."""
        ...

    def answer_events(self, job: Job, body: bytes) -> list[Event]:
        """Return the events of an answer that came whole. Raises `UpstreamFailed` where it is none."""
        ...

    def refusal_of(self, status: int, headers: Mapping[str, str], body: bytes) -> BackendError:
        """Return the error for an answer with a status other than 2xx.

        What is the client's doing becomes `BadJob` with the upstream's own words. Header names are in lower case.
        """
        ...


def written(body: Mapping[str, object]) -> bytes:
    """Write a request. Raises `BadJob` for what came in a text of JSON, or less nested, and is now too deep."""
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise BadJob(f"the request cannot be written in the upstream's words: {error}") from error


def as_it_came(verbatim: Verbatim, model: str) -> Asking:
    """Return the client's own request, untouched but for the model's name."""
    body = renamed(verbatim.body, verbatim.content_type, model)
    return Asking(verbatim.path, {"Content-Type": verbatim.content_type, **verbatim.headers}, body)
