"""Requests that mean the same where their bodies do, and what is prepared for those bodies. Knows no bytes of heads."""

from backends.pool import Pool
from cache.contract import Entry
from gateway.counting.model_statistics import OfModel
from gateway.counting.tally import Answered
from gateway.front import Answered as Hit
from gateway.lane.replay import Replay
from gateway.lane.ways import Way
from gateway.request import Caller


class Seen:
    """A hit that the usual way answered, at `now` (epoch seconds): its reply is prepared when it is asked for again."""

    __slots__ = ("asked_again", "entry", "found", "now", "reply_bytes", "size")

    def __init__(self, entry: Entry, found: Hit, now: float) -> None:
        self.entry = entry
        self.found = found
        self.now = now
        self.reply_bytes = len(found.reply.body) if type(found.reply.body) is bytes else 0
        self.asked_again = False
        self.size = 0


class Prepared:
    """What answers one body of a group: the entry behind it, its reply, and who counts it."""

    __slots__ = (
        "answered",
        "asked_again",
        "entry",
        "fresh_until",
        "key",
        "pool",
        "replay",
        "reply_bytes",
        "size",
        "sums",
        "tokens",
    )

    def __init__(
        self, entry: Entry, replay: Replay, pool: Pool, *, tokens: int, answered: Answered, sums: OfModel
    ) -> None:
        self.key = entry.key
        self.entry = entry
        self.fresh_until = entry.fresh_until
        self.replay = replay
        self.reply_bytes = replay.size
        self.pool = pool
        self.tokens = tokens
        self.answered = answered
        self.sums = sums
        self.asked_again = False
        self.size = 0


class Group:
    """What requests have in common that mean the same where their bodies are the same: caller, path and headers."""

    __slots__ = ("caller", "path", "prepared", "ways")

    def __init__(self, path: str, caller: Caller) -> None:
        self.path = path
        self.caller = caller
        self.prepared: dict[bytes, Prepared | Seen] = {}
        self.ways: dict[bytes, Way | str] = {}
