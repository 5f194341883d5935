"""Replies in the upstream's own bytes, where they are of the kind that the client's own request asks for.

Live they are passed on as they are; told again from a cache they have a fresh id. Knows no wire's shape.
"""

from backends.contract import Event
from gateway.answer import Answer, Head
from gateway.surfaces.wire import JSON, Frames, Whole


def passed_on(answer: Answer, kind: str, own_id: str = "") -> Whole | None:
    """Return the upstream's own bytes as one body; `own_id` is the id of the reply where they are told again."""
    if not kind or answer.head.verbatim != kind or answer.wording is None:
        return None
    data = answer.wording.told(own_id)
    return None if data is None else Whole(data, answer.head.content_type or JSON)


class PassedFrames:
    """A stream that is the upstream's own where its bytes are of the client's `kind`; else `inner` encodes the events.

    Whoever writes a live stream asks `passes`, and where that is so writes the bytes as they come.
    """

    def __init__(self, kind: str, own_id: str, inner: Frames) -> None:
        self._kind = kind
        self._own_id = own_id
        self._inner = inner

    def passes(self, head: Head) -> bool:
        """Tell whether the bytes of this answer go out as they come."""
        return head.verbatim == self._kind

    def content_type(self, head: Head) -> str:
        """Name what the stream consists of."""
        return (self.passes(head) and head.content_type) or self._inner.content_type(head)

    def opening(self, head: Head) -> bytes:
        """Encode what a stream of events begins with."""
        self.frame = self._inner.frame  # type: ignore[method-assign] # one call less for each token
        return self._inner.opening(head)

    def frame(self, event: Event) -> bytes:
        """Encode one event."""
        return self._inner.frame(event)

    def closing(self) -> bytes:
        """Encode what a stream of events ends with."""
        return self._inner.closing()

    def told_again(self, answer: Answer) -> bytes | None:
        """Return the whole stream as the upstream sent it, with a fresh id; None where it is to be encoded."""
        passed = passed_on(answer, self._kind, self._own_id)
        return None if passed is None else passed.body


def replayed(frames: Frames, answer: Answer) -> bytes:
    """Return a complete answer as a stream in one piece."""
    if isinstance(frames, PassedFrames) and (told := frames.told_again(answer)) is not None:
        return told
    opening = frames.opening(answer.head)  # before any frame: it prepares what they share
    return b"".join([opening, *[frames.frame(event) for event in answer.events], frames.closing()])
