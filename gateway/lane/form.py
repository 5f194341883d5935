"""The head of the replies that are passed on for one model, with places for what differs. Knows no socket."""

from collections.abc import Mapping

from gateway.callers.limits import Permit
from gateway.query import Outcome
from gateway.replies import streamed_headers, whole_reply
from gateway.surfaces.wire import Whole

# No header has this byte in it, so it can mark a place.
_ID, _LIMITS, _LENGTH = "\x00i", "\x00l", "\x00n"


class Specimen(Permit):
    """A permit whose headers mark where those of others stand."""

    __slots__ = ()

    @property
    def headers(self) -> Mapping[str, str]:
        """Mark the place."""
        return {_LIMITS: ""}


def form_of(outcome: Outcome, content_type: str, *, streamed: bool) -> bytes:
    """Return what follows the preamble of a reply to an outcome that has a `Specimen`: a format of bytes.

    It takes the milliseconds of the look-up and of the answer, the reply's id twice, the lines of the caller's limits
    and, where it is not streamed, the body's length.
    """
    if streamed:
        headers = {**streamed_headers(outcome, content_type, _ID), "Transfer-Encoding": "chunked"}
    else:
        headers = {**whole_reply(Whole(b"", content_type), outcome, _ID).headers, "Content-Length": _LENGTH}
    lines = "\r\n".join(["", *[f"{name}: {value}" for name, value in headers.items()]])
    marked = (
        lines.replace("%", "%%")
        .replace("cache;dur=0.00", "cache;dur=%.2f")
        .replace("infer;dur=0.00", "infer;dur=%.2f")
        .replace(_ID, "%b")
        .replace(f"{_LIMITS}: \r\n", "%b")
        .replace(_LENGTH, "%d")
    )
    return marked.encode() + b"\r\n\r\n"
