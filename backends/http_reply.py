"""A reply of an HTTP/1.1 server as its bytes come: its status, its headers, what there is of its body.

It knows no transport, and nobody who waits for it.
"""

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

HEAD_LIMIT_BYTES = 64 * 2**10
# The worst that framing may make of a body is one chunk for each byte: six bytes, and a little for its size.
_FRAMING = 8

# The heads of replies that are known at a time. A server's are mostly the same within a second, but for their length.
_KNOWN_HEADS = 256

KnownReplies = dict[bytes, tuple[int, dict[bytes, bytes], int]]
"""The status, the headers and the body's length of replies by the bytes of their heads."""

_FIRST_FINAL = 200
_WITHOUT_BODY = (204, 304)
_KEEPING = b"cache-control"


class ExchangeFailed(Exception):
    """The connection broke, or what came is no HTTP."""


class Reply:
    """Reads one reply after the other: `_reset` for each, then each piece that comes into `_take_known` or `_feed`.

    It ends as `complete`, or with the `error` that whoever feeds it has put there.
    """

    def __init__(self, known: KnownReplies) -> None:
        self.status = 0
        self._known = known
        self._parser = HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self.complete = False
        self.error: ExchangeFailed | None = None
        self._headers: dict[bytes, bytes] = {}
        self._head_done = False
        self._body: list[bytes] = []
        self._held_bytes = 0
        self._body_bytes = 0
        self._received_bytes = 0
        self._until_close = False
        self._keep_alive = False
        self._overrun = False

    def header(self, name: str) -> str:
        """Return a header of the reply by its name in lower case; empty where there is none."""
        return self._headers.get(name.encode(), b"").decode("latin-1")

    def headers(self) -> dict[str, str]:
        """Return all headers of the reply, with their names in lower case."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self._headers.items()}

    def body(self) -> bytes:
        """Return what has come of the body and was not read; it stays to be read."""
        return b"".join(self._body)

    def _taken(self) -> bytes:
        """Take what has come of the body and was not read."""
        body = self._body
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        self._held_bytes = 0
        return data

    def _ended(self) -> bool:
        return self.complete or self.error is not None

    def _take_known(self, data: bytes) -> bool:
        """Take a whole reply whose head is known, byte for byte; tell whether it is one.

        The parser knows nothing of it; it is where it was, before a reply.
        """
        begins = data.find(b"\r\n\r\n") + 4
        known = self._known.get(data[:begins])
        if known is None or len(data) != begins + known[2]:
            return False
        self.status, self._headers, self._body_bytes = known
        self._received_bytes = len(data)
        self._body.append(data[begins:])
        self._head_done = self.complete = self._keep_alive = True
        return True

    def _feed(self, data: bytes) -> None:
        """Read what came. Raises `ExchangeFailed`."""
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            raise ExchangeFailed("it switched to another protocol, unasked") from None
        except HttpParserError as error:
            if isinstance(error.__context__, ExchangeFailed):  # a callback raised it
                raise error.__context__ from None
            raise ExchangeFailed(f"what it sent is not HTTP/1.1: {error}") from error
        if self._received_bytes > HEAD_LIMIT_BYTES + _FRAMING * self._body_bytes and not self._ended():
            self._check_head(len(data))
        if self.complete and self._received_bytes == len(data):
            self._note(data)

    def _check_head(self, last_bytes: int) -> None:
        """Refuse a head, or a framing, without end; the last piece alone may be long, as much of it may be body."""
        if self._received_bytes - last_bytes > HEAD_LIMIT_BYTES + _FRAMING * self._body_bytes:
            raise ExchangeFailed(f"its reply's head is longer than {HEAD_LIMIT_BYTES} bytes")

    def _note(self, data: bytes) -> None:
        """Keep a reply's head for `_take_known`, where it is the whole of what came and says how long its body is."""
        head_bytes = len(data) - self._body_bytes
        if (
            self._keep_alive
            and self._body_bytes
            and not self._overrun
            and b"transfer-encoding" not in self._headers
            and data.find(b"\r\n\r\n") + 4 == head_bytes
        ):
            if len(self._known) >= _KNOWN_HEADS:
                self._known.clear()
            self._known[data[:head_bytes]] = self.status, self._headers, self._body_bytes

    # What follows is called by the parser.

    def on_message_begin(self) -> None:
        """Note where a second reply follows the one that was asked for: nothing on this connection can be trusted."""
        if self.complete:
            self._overrun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what comes after the body is a trailer, and none of the head's.

        Of a header that comes again the last line counts, but for what may not be kept: any of them may forbid it.
        """
        if not self._head_done:
            name = name.lower()
            if name == _KEEPING and name in self._headers:
                value = self._headers[name] + b", " + value
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        """Take the head, unless it only announces another."""
        status, headers = self._parser.get_status_code(), self._headers
        if status < _FIRST_FINAL or self._overrun:
            return
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise ExchangeFailed("it used a Content-Encoding, unasked")
        self.status = status
        self._head_done = True
        self._until_close = (
            b"content-length" not in headers and b"transfer-encoding" not in headers and status not in _WITHOUT_BODY
        )

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        if not self._overrun:
            self._body.append(data)
            self._held_bytes += len(data)
            self._body_bytes += len(data)

    def on_message_complete(self) -> None:
        """Note that the reply is complete, unless it only announced another."""
        if self._head_done:
            self.complete = True
            self._keep_alive = self._parser.should_keep_alive()
        else:
            self._headers = {}
