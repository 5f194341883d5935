"""A streamed reply as a backend yields it: its bytes, where their client may have them, and what they say.

Pure: bytes in, values out. Knows no connection and no wire's words.
"""

from collections.abc import Sequence

from backends.contract import Event, Frame, Made, Text, UpstreamFailed
from backends.sse import SseParser
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
