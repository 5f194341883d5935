"""Server-sent events, read from chunks of bytes however they were cut. Knows nothing of what the data means."""

BOM = b"\xef\xbb\xbf"
EVENT_LIMIT_BYTES = 8 * 2**20


class EventTooLongError(ValueError):
    """An event is longer than the parser is willing to hold."""


class SseParser:
    """Yields the data of each event; comments and the fields `event`, `id` and `retry` are passed over.

    Lines end with LF, CRLF or CR. An event counts when its blank line has come: what a cut stream left is not one.
    """

    def __init__(self, limit_bytes: int = EVENT_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._line = b""
        self._data: list[bytes] = []
        self._held_bytes = 0
        self._at_start = True
        self._skip_lf = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take in the next bytes and return the data of the events that they complete.

        Raises `EventTooLongError` where one event exceeds the limit.
        """
        if chunk.startswith(b"data: ") and self._is_one_event(chunk):
            return [chunk[6:-2]]
        if self._at_start and not (chunk := self._without_bom(chunk)):
            return []
        if self._skip_lf and chunk:
            self._skip_lf = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._skip_lf = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        if len(self._line) + self._held_bytes + len(lines[0]) > self._limit_bytes:
            raise EventTooLongError(f"an event is longer than {self._limit_bytes} bytes")
        lines[0] = self._line + lines[0]
        self._line = lines.pop()
        return self._events(lines)

    def _is_one_event(self, chunk: bytes) -> bool:
        """Tell whether a chunk is an event of one line and nothing else, as nearly all are."""
        size = len(chunk)
        return (
            not (self._line or self._data or self._at_start or self._skip_lf)
            and chunk.find(b"\n") == size - 2
            and chunk.endswith(b"\n")
            and size <= self._limit_bytes
            and b"\r" not in chunk
        )

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                    self._data.clear()
                    self._held_bytes = 0
            elif line.startswith(b"data:"):
                value = line[6:] if line.startswith(b"data: ") else line[5:]
                self._data.append(value)
                self._held_bytes += len(line)
            elif line == b"data":
                self._data.append(b"")
                self._held_bytes += len(line)
        return events

    def _without_bom(self, chunk: bytes) -> bytes:
        """Drop a byte order mark at the very start; hold back what may become one."""
        start = self._line + chunk
        if BOM.startswith(start):
            self._line = start if start != BOM else b""
            self._at_start = start != BOM
            return b""
        self._line = b""
        self._at_start = False
        return start.removeprefix(BOM)
