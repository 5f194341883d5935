"""A streamed reply as a backend yields it: its bytes, where their client may have them, and what they say.

Pure: bytes in, values out. Knows no connection and no wire's words.
"""

from collections.abc import Callable, Sequence

from backends.contract import Event, Frame, Made, Text, UpstreamFailed
from backends.sse import EventTooLongError, SseParser
from backends.wire import Decoder


class Telling:
    """Reads one reply piece by piece. `kind` is that of its bytes, or None where nobody may have those."""

    __slots__ = ("_content_type", "_decoder", "_kind", "_parser", "_told", "complete", "error")

    def __init__(self, decoder: Decoder, kind: str | None, content_type: str) -> None:
        self.error: UpstreamFailed | None = None
        """What is wrong with the reply, as its last piece showed; `end` raises it, once that was passed on."""
        self.complete = False
        """Whether the wire's last event has come."""
        self._decoder = decoder
        self._kind = kind
        self._content_type = content_type
        self._parser = SseParser()
        self._told = False

    def told(self, data: bytes) -> Sequence[Made]:
        """Return the next piece and its events. Raises `EventTooLongError`."""
        events = self._events(data)
        if self._kind is None:
            return events
        if not self._told:
            self._told = True
            return [Frame(data, self._kind, self._content_type), *events]
        if len(events) == 1 and type(event := events[0]) is Text and event.index == 0:
            return ((data, event.text),)
        texts = [event.text for event in events if type(event) is Text and event.index == 0]
        return ((data, "".join(texts)),) if len(texts) == len(events) else [(data, ""), *events]

    def end(self) -> list[Event]:
        """Return the events that close the answer. Raises `UpstreamFailed` where it was cut off or is none."""
        if self.error is not None:
            raise self.error
        return self._decoder.end()

    def _events(self, data: bytes) -> list[Event]:
        decoder = self._decoder
        events: list[Event] = []
        try:
            for payload in self._parser.feed(data):
                events += decoder.feed(payload)
        except UpstreamFailed as error:
            self.error = error
        self.complete = decoder.complete
        return events


class Straight:
    """Takes a reply's bytes the moment they come, and gives what they say to `tap` while that takes it."""

    __slots__ = ("_error", "_left", "_tap", "_telling")

    def __init__(self, telling: Telling, tap: Callable[[Made], bool]) -> None:
        self._telling = telling
        self._tap = tap
        self._left: Sequence[Made] = ()
        self._error: EventTooLongError | None = None

    def __call__(self, data: bytes) -> bool:
        """Read what came, and tell whether all of it was taken; else `rest` has what was not."""
        telling = self._telling
        try:
            made = telling.told(data)
        except EventTooLongError as error:
            self._error = error
            return False
        for place, item in enumerate(made):
            # The others tell something of the whole answer to those on the way, who are to see them.
            if not (type(item) is tuple or type(item) is Text) or not self._tap(item):
                self._left = made[place:]
                return False
        return telling.error is None and not telling.complete

    def rest(self) -> Sequence[Made]:
        """Return what was not taken, once. Raises `EventTooLongError`."""
        if self._error is not None:
            raise self._error
        left, self._left = self._left, ()
        return left
