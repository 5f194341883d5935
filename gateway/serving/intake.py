"""Reads HTTP/1.1 requests from bytes however they were cut, within bounds. Pure: knows no socket and no clock."""

from collections.abc import Callable, Mapping
from urllib.parse import unquote_to_bytes, urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from backends.value import value
from gateway.errors import BodyTooLarge, HeadTooLarge, InvalidRequest, RequestRefused, UnsupportedMediaType
from gateway.fields import cut
from gateway.serving.inflate import ALLOWED, CODINGS

HEAD_LIMIT_BYTES = 64 * 2**10
TARGET_LIMIT_BYTES = 16 * 2**10
# The worst that framing may make of a body is one chunk for each byte: six bytes.
_FRAMING = 8
_HEADER_FRAMING = len(": \r\n")
# A body that may have come along with its head costs nothing more to read.
_EARLY_BYTES = 64 * 2**10

# With these a body is more than the bytes that follow the head.
_NOT_PLAIN = frozenset({"transfer-encoding", "expect", "upgrade"})

Admit = Callable[[Mapping[str, str]], object]


@value
class Incoming:
    """A request that has come whole. `headers` has names in lower case; `version` is 1.1 or 1.0.

    `coding` names how the body is still compressed; empty where it is as it was meant.
    """

    method: str
    path: str
    query: str
    version: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool
    coding: str = ""


class Intake:
    """One connection's requests. After a refusal it is `closed` and takes nothing more.

    `reading`: a request has begun and has not come whole. `expecting`: its client waits for leave to send the body.
    `path` is what the request that is being read is for, once its head has come. `admit` is asked by a head's headers
    before a long body is read, and raises what refuses it. `max_body_bytes` may change between requests. `noted` is the
    request that the last bytes were, no more and no less, with the bytes of its head: where those come again with a
    body as long, it is the same request but for that body.
    """

    def __init__(self, max_body_bytes: int, admit: Admit) -> None:
        self.closed = False
        self.reading = False
        self.expecting = False
        self.path = ""
        self.noted: tuple[bytes, Incoming] | None = None
        self.max_body_bytes = max_body_bytes
        self._admit = admit
        self._parser = HttpRequestParser(self)
        self._came: list[Incoming | RequestRefused] = []
        self._target: bytes
        self._headers: dict[str, str]
        self._body: bytes | bytearray
        self._body_bytes: int
        self._begin()

    def feed(self, data: bytes) -> list[Incoming | RequestRefused]:
        """Take in the next bytes and return the requests that they complete; a refusal can only be the last."""
        begins = not self.reading
        self.noted = None
        self._came = []
        while not self.closed:
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                data = self._decline_upgrade() + data[upgrade.args[0] :]
                continue
            except HttpParserError as error:
                self._refuse(self._reason(error))
            if not self._came:  # else most of it may belong to requests that came whole
                self._received_bytes += len(data)
            if self.reading and self._received_bytes > HEAD_LIMIT_BYTES + _FRAMING * self._body_bytes:
                self._refuse(_too_long())
            break
        if begins and len(self._came) == 1:
            self._note(data, self._came[0])
        return self._came

    def _note(self, data: bytes, came: Incoming | RequestRefused) -> None:
        """Note a request that is the whole of what came, and whose head says how long its body is."""
        if not isinstance(came, Incoming) or self.reading or not came.keep_alive or came.coding:
            return
        size = len(data) - len(came.body)
        plain = came.version == "1.1" and came.headers.keys().isdisjoint(_NOT_PLAIN) and len(came.body) <= _EARLY_BYTES
        if plain and data.find(b"\r\n\r\n") + 4 == size:
            self.noted = data[:size], came

    def close(self) -> None:
        """Take nothing more."""
        self.closed = True
        self.reading = self.expecting = False

    # What follows is called by the parser; what it raises ends the parsing, and is the refusal.

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._begin()
        self.reading = True

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request's target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what comes after the body is a trailer, and none of the head's."""
        self._head_bytes += len(name) + len(value) + _HEADER_FRAMING
        if self._head_bytes > HEAD_LIMIT_BYTES:
            raise _too_long()
        if self._in_body:
            return
        key, text = name.decode().lower(), value.decode(errors="surrogateescape")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        """Refuse what can be refused before its body comes."""
        self._in_body = True
        self._check_head()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self.max_body_bytes:
            raise self._too_large("more")
        if self._body:
            # One buffer: as objects of their own, chunks of two bytes would take thirty times their size.
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body
        else:
            self._body = body

    def on_message_complete(self) -> None:
        """Note that the request has come whole."""
        parser = self._parser
        if self.closed or parser.should_upgrade():
            return
        self.reading = self.expecting = False
        method, body, keep_alive = parser.get_method().decode(), bytes(self._body), parser.should_keep_alive()
        self._came.append(
            Incoming(method, self.path, self._query, self._version, self._headers, body, keep_alive, self._coding)
        )

    def _check_head(self) -> None:
        """Refuse what can be refused before its body comes."""
        headers = self._headers
        self._version = version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise InvalidRequest(f"HTTP/{version} is not spoken here; HTTP/1.1 is")
        if len(self._target) > TARGET_LIMIT_BYTES:
            raise HeadTooLarge(f"the request's target is too long; at most {TARGET_LIMIT_BYTES} bytes are read")
        self.path, self._query = _path(self._target)
        host = headers.get("host")
        if (host is None and version == "1.1") or (host is not None and "," in host):
            raise InvalidRequest(f"a request has exactly one Host header, got {host!r}")
        chunked = "transfer-encoding" in headers
        if chunked and (version == "1.0" or headers["transfer-encoding"].lower() != "chunked"):
            raise InvalidRequest(
                "a body is sent with Content-Length, or with HTTP/1.1's Transfer-Encoding: chunked alone"
            )
        announced = int(headers.get("content-length", 0))
        if announced > self.max_body_bytes:
            raise self._too_large(f"{announced} bytes")
        coding = headers.get("content-encoding", "identity").lower()
        if coding != "identity":
            if coding not in CODINGS:
                raise UnsupportedMediaType(
                    f"a body with Content-Encoding: {cut(coding)} is not read; allowed is one of {ALLOWED}, identity",
                    ALLOWED,
                )
            self._coding = coding
        # HTTP/1.0 knows no interim response, and such an expectation is ignored (RFC 9110 §10.1.1).
        expecting = version != "1.0" and headers.get("expect", "").lower() == "100-continue"
        if chunked or expecting or announced > _EARLY_BYTES:
            self._admit(headers)  # else a stranger could make us hold the longest body that there may be
        self.expecting = expecting

    def _begin(self) -> None:
        self._in_body = False
        self.path = self._query = self._version = self._coding = ""
        self._target = b""
        self._head_bytes = 0
        self._headers = {}
        self._body = b""
        self._body_bytes = 0
        self._received_bytes = 0

    def _decline_upgrade(self) -> bytes:
        """Return the head as if it had offered no other protocol, for a fresh parser: the old one takes no body now."""
        method, version = self._parser.get_method().decode(), self._parser.get_http_version()
        if method == "CONNECT":
            self._refuse(InvalidRequest("this is no proxy: CONNECT is not served"))
        first = f"{method} {self._target.decode(errors='surrogateescape')} HTTP/{version}"
        others = [f"{name}: {value}" for name, value in self._headers.items() if name != "upgrade"]
        self._parser = HttpRequestParser(self)
        return ("\r\n".join([first, *others]) + "\r\n\r\n").encode(errors="surrogateescape")

    def _reason(self, error: HttpParserError) -> RequestRefused:
        """Return why the parser stopped: what one of its callbacks raised, or what it could not read."""
        if isinstance(error.__context__, RequestRefused):
            return error.__context__
        is_preface = self._parser.get_method() == b"PRI"
        return InvalidRequest("HTTP/2 is not spoken here" if is_preface else f"this is not HTTP/1.1: {error}")

    def _too_large(self, size: str) -> BodyTooLarge:
        return BodyTooLarge(f"the body has {size}; at most {self.max_body_bytes} bytes are read (server.max_body)")

    def _refuse(self, error: RequestRefused) -> None:
        """Refuse the request that is coming; the rest of it, and whatever follows, is not read."""
        if not self.closed:
            self.close()
            error.path = self.path
            self._came.append(error)


def _too_long() -> HeadTooLarge:
    return HeadTooLarge(f"the request's head is too long; at most {HEAD_LIMIT_BYTES} bytes are read")


def _path(target: bytes) -> tuple[str, str]:
    """Return the path and the query of a request's target, which may be a whole URL."""
    if not target.startswith(b"/"):
        try:
            parts = urlsplit(target)
        except ValueError as error:
            raise InvalidRequest(f"the request's target is no URL: {error}") from error
        target = (parts.path or b"/") + (b"?" + parts.query if parts.query else b"")
    path, _, query = target.partition(b"?")
    return (unquote_to_bytes(path) if b"%" in path else path).decode(errors="replace"), query.decode(errors="replace")
