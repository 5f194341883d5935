"""What is known of a request by its head's bytes: nearly all heads of a client are the same. Knows no body and no wire.

A head is learned from a request that the usual way has read, and known from then on over every connection.
"""

from collections import OrderedDict
from collections.abc import Mapping

from gateway.auth import Gatekeeper
from gateway.errors import RequestRefused
from gateway.intake import Incoming
from gateway.lane.groups import Group

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
        "range",
        "x-request-timeout",
    }
)
# With these a request is read otherwise, or its body means something else.
MEANING = ("anthropic-beta", "anthropic-version", "content-type", "inference-header-content-length")

_HEADS = 4096
_GROUPS = 1024
_LONGEST_BYTES = 4096


class Known:
    """A head that has been read: the request that it was of, how long that one's body is, and its group."""

    __slots__ = ("body_bytes", "group", "incoming")

    def __init__(self, incoming: Incoming, group: Group | None) -> None:
        self.incoming = incoming
        self.group = group
        self.body_bytes = len(incoming.body)

    def again(self, body: bytes) -> Incoming:
        """Return the request with this head and another body."""
        was = self.incoming
        return Incoming(was.method, was.path, was.query, was.version, was.headers, body, keep_alive=True)


class Heads:
    """The heads that were seen most recently, and their groups. `group` is None for those that the lane is not for."""

    def __init__(self, gatekeeper: Gatekeeper) -> None:
        self._gatekeeper = gatekeeper
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._groups: dict[object, Group] = {}
        self.get = self._known.get
        self.keyed = gatekeeper.keyed

    def learn(self, head: bytes, incoming: Incoming, peer: str | None) -> None:
        """Keep the head of a request that was read."""
        known = self._known
        if head in known or len(head) > _LONGEST_BYTES:
            return
        if len(known) >= _HEADS:
            known.popitem(last=False)
        known[head] = Known(
            incoming, self.group_of(incoming.method, incoming.path, incoming.query, incoming.headers, peer)
        )

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
                self._groups.clear()
                self._known.clear()
            group = self._groups[named] = Group(path, caller)
        return group
