"""A reply that can be written again: bytes with places for what differs each time. Knows no cache and no socket."""

from collections.abc import Collection

from cache.contract import Entry
from gateway.caching.cache_control import CacheStatus
from gateway.serving.reply_head import preamble
from gateway.surfaces.wire import Reply

STATUS = 200
# No header may have this byte in it, so it can mark the places in a head.
_ID, _TTL, _AGE, _LIMITS = "\x00i", "\x00t", "\x00a", "\x00l"
# A look-up of bytes takes less than five millionths of a second, which is so written.
_TIMING = "cache;dur=0.00"
_MARKED = {"Server-Timing": _TIMING, "Age": _AGE}


class Replay:
    """A hit's reply in pieces, to be joined by a fresh id; they stay the same until a second of one of its times ends.

    `head` is what follows the preamble, with its places marked; `body` is parted at each of its ids.
    """

    __slots__ = (
        "_after",
        "_before",
        "_body",
        "_entry",
        "_fresh_until",
        "_head",
        "_limits",
        "_pieces",
        "_until",
        "size",
    )

    def __init__(self, head: str, body: list[bytes], entry: Entry, fresh_until: float) -> None:
        self._head = head
        self._body = body
        self._entry = entry
        self._fresh_until = fresh_until
        self._before: list[bytes] = []
        self._after: list[bytes] = []
        self._pieces: list[bytes] = []
        self._limits = b""
        self._until = 0.0
        self.size = len(head) + sum(map(len, body))

    def written(self, now: float, limits: bytes, fresh_id: bytes) -> bytes:
        """Return the reply at `now` (epoch seconds), with these lines of limits and this id."""
        if now >= self._until:
            self._renew(now)
            self._put(limits)
        elif limits is not self._limits:
            self._put(limits)
        return fresh_id.join(self._pieces)

    def _renew(self, now: float) -> None:
        """Write what changes with the seconds: the date, the answer's age, and how long it will be fresh."""
        age, left = now - self._entry.stored_at, self._fresh_until - now
        lines = self._head.replace(_AGE, str(max(0, int(age)))).replace(_TTL, str(int(left)))
        before, _, after = (preamble(STATUS, int(now)) + lines).encode().partition(_LIMITS.encode())
        self._before, (*between, last) = before.split(_ID.encode()), after.split(_ID.encode())
        self._after = [*between, last + self._body[0], *self._body[1:]]
        self._until = now + min(1.0 - now % 1.0, 1.0 - age % 1.0, left % 1.0)

    def _put(self, limits: bytes) -> None:
        before, after = self._before, self._after
        self._pieces = [*before[:-1], before[-1] + limits + after[0], *after[1:]]
        self._limits = limits


def replay_of(
    reply: Reply, reply_id: str, status: CacheStatus, *, limits: Collection[str], entry: Entry, now: float
) -> Replay | None:
    """Return what writes a hit's reply again; None where its times are not those of the entry.

    `limits` are the names of the headers that tell of the caller's limits; they stand together.
    """
    fresh_until = next(
        (moment for moment in (entry.fresh_until, entry.expires_at) if int(moment - now) == status.ttl_s), None
    )
    if fresh_until is None or status.age_s != max(0, int(now - entry.stored_at)) or type(reply.body) is not bytes:
        return None
    lines = [""]
    for name, value in reply.headers.items():
        if name in limits:
            if not lines[-1].startswith(_LIMITS):
                lines.append(_LIMITS)
            continue
        marked = _MARKED.get(name) or value.replace(reply_id, _ID)
        if name == "Cache-Status":
            marked = marked.replace(f"; ttl={status.ttl_s}", f"; ttl={_TTL}")
        lines.append(f"{name}: {marked}")
    lines.append(f"Content-Length: {len(reply.body)}")
    head = "\r\n".join(lines).replace(f"{_LIMITS}\r\n", _LIMITS) + "\r\n\r\n"
    return Replay(head, reply.body.split(reply_id.encode()), entry, fresh_until)
