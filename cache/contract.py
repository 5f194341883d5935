"""The entry that every store keeps, and the protocol of a store. Knows nothing of what a value means."""

from dataclasses import dataclass
from typing import Protocol

AHEAD_S = 60.0
"""How far the clock of who stored an entry may have been ahead. Further, its age would count for too little: once a
clock was set back an hour, what was stored before would be served for an hour more than its time."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What lets an entry be found by meaning: its text, the text's vector, and the partition that it may match in.

    `vector` is little-endian float32, normalised. Entries of different partitions never match. `tokens` is what a
    verifier of pairs compares beside the vectors: opaque here, and empty where there is none.
    """

    partition: bytes
    text: str
    vector: bytes
    tokens: bytes = b""


@dataclass(frozen=True, slots=True)
class Entry:
    """A remembered answer. `key` is a 32-byte digest; `value` is opaque; times are seconds since the epoch.

    The last `stale_s` seconds before `expires_at` it is stale: kept, but served only to who accepts that. It belongs to
    `groups`, such as `model:atlas` or `tag:news`, and to the moment `stamp` (microseconds, rising): a purge of a group
    ends all of it that was stamped before.
    """

    key: bytes
    value: bytes
    stored_at: float
    expires_at: float
    meaning: Meaning | None = None
    stale_s: float = 0.0
    groups: tuple[str, ...] = ()
    stamp: int = 0

    @property
    def fresh_until(self) -> float:
        """The moment from which it is stale."""
        return self.expires_at - self.stale_s

    def is_over(self, now: float) -> bool:
        """Tell whether its time is over at `now`, or cannot be told: it was stored under a clock that was ahead."""
        return self.expires_at <= now or self.stored_at > now + AHEAD_S


class Store(Protocol):
    """Keeps entries by key. A trouble inside is a miss or a lost write, and is counted; it is never raised."""

    async def get(self, key: bytes) -> Entry | None:
        """Return the live entry, or None."""
        ...

    async def put(self, entry: Entry) -> None:
        """Keep the entry, replacing one of the same key."""
        ...

    async def remove(self, key: bytes) -> None:
        """Forget the entry, if it is there."""
        ...
