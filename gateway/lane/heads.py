"""What is known of a request by its head's bytes: nearly all heads of a client are the same. Knows no body and no wire.

A head is learned from a request that the usual way has read, and known from then on over every connection.
"""

import re
from collections.abc import Mapping

from gateway.callers.auth import Gatekeeper
from gateway.errors import RequestRefused
from gateway.lane.groups import Group
from gateway.serving.intake import Incoming

END = b"\r\n\r\n"

# With these a request is weighed by who knows more than its bytes.
WEIGHED = frozenset(
    {
        "cache-control",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-unmodified-since",
        "origin",
        "pragma",
        "prefer",
        "range",
        "x-warmgate-next",
        "x-warmgate-prefer",
        "x-warmgate-tags",
        "x-request-timeout",
    }
)
# With these a request is read otherwise, or its body means something else.
MEANING = ("anthropic-beta", "anthropic-version", "content-type", "inference-header-content-length")

_HEADS = 4096
_GROUPS = 1024
_LONGEST_BYTES = 4096
# A longer body is not read before its caller is known.
_LONGEST_BODY_BYTES = 64 * 2**10
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([1-9][0-9]{0,4})\r\n")


class KnownHeaders(dict[str, str]):
    """The headers of a known head: whoever is given a request's headers can tell its group."""

    __slots__ = ("group",)

    def __init__(self, headers: Mapping[str, str], group: Group | None) -> None:
        super().__init__(headers)
        self.group = group


class Known:
    """A head that has been read: the request that it was of, how long its body is, and its group.

    `group` is None for those that the lane does nothing for but spare them the parser.
    """

    __slots__ = ("body_bytes", "group", "incoming")

    def __init__(self, incoming: Incoming, group: Group | None, body_bytes: int) -> None:
        self.incoming = _with_headers(incoming, KnownHeaders(incoming.headers, group))
        self.group = group
        self.body_bytes = body_bytes

    def again(self, body: bytes) -> Incoming:
        """Return the request with this head and another body."""
        was = self.incoming
        return Incoming(was.method, was.path, was.query, was.version, was.headers, body, keep_alive=True)

    def of_length(self, body_bytes: int) -> "Known":
        """Return the same head for a body of another length."""
        headers = {**self.incoming.headers, "content-length": str(body_bytes)}
        return Known(_with_headers(self.incoming, headers), self.group, body_bytes)


class Heads:
    """The heads that were seen most recently, and their groups; no body may be longer than `max_body_bytes`.

    Heads that differ in nothing but their `Content-Length` are known from any one of them.
    """

    def __init__(self, gatekeeper: Gatekeeper, max_body_bytes: int) -> None:
        self._gatekeeper = gatekeeper
        self._max_body_bytes = min(max_body_bytes, _LONGEST_BODY_BYTES)
        self._known: dict[bytes, Known] = {}
        self._of_any_length: dict[bytes, Known] = {}
        self._groups: dict[object, Group] = {}
        self.get = self._known.get
        self.keyed = gatekeeper.keyed

    def of_another_length(self, head: bytes) -> Known | None:
        """Return what is known of a head, that is not known itself, from one for a body of another length."""
        found = _LENGTH.search(head)
        if found is None:
            return None
        known, body_bytes = self._of_any_length.get(_without(head, found)), int(found[1])
        if known is None or body_bytes > self._max_body_bytes:
            return None
        return _put(self._known, head, known.of_length(body_bytes))

    def learn(self, head: bytes, incoming: Incoming, peer: str | None) -> None:
        """Keep the head of a request that was read."""
        if head in self._known or len(head) > _LONGEST_BYTES:
            return
        group = self.group_of(incoming.method, incoming.path, incoming.query, incoming.headers, peer)
        known = _put(self._known, head, Known(incoming, group, len(incoming.body)))
        if found := _LENGTH.search(head):
            _put(self._of_any_length, _without(head, found), known)

    def forget(self) -> None:
        """Know nothing any more, as what a caller may do has changed or there is too much of it."""
        for table in (self._groups, self._known, self._of_any_length):
            table.clear()

    def group_of(
        self, method: str, path: str, query: str, headers: Mapping[str, str], peer: str | None
    ) -> Group | None:
        """Return the group of a request by what its head says."""
        if method != "POST" or not WEIGHED.isdisjoint(headers):
            return None
        try:
            caller = self._gatekeeper.identify(headers, peer)
        except RequestRefused:
            return None
        named = (caller, path, query, *[headers.get(name) for name in MEANING])
        group = self._groups.get(named)
        if group is None:
            if len(self._groups) >= _GROUPS:
                self.forget()
            group = self._groups[named] = Group(path, caller)
        return group


def _with_headers(was: Incoming, headers: dict[str, str]) -> Incoming:
    return Incoming(was.method, was.path, was.query, was.version, headers, b"", keep_alive=True)


def _put(table: dict[bytes, Known], key: bytes, known: Known) -> Known:
    """Keep a head in place of the oldest, where there are many."""
    if len(table) >= _HEADS:
        del table[next(iter(table))]
    table[key] = known
    return known


def _without(head: bytes, length: re.Match[bytes]) -> bytes:
    start, end = length.span(1)
    return head[:start] + head[end:]
