"""Draws the ids of replies. Knows no reply."""

import secrets
from collections.abc import Iterator
from contextvars import ContextVar

under_way: ContextVar[str] = ContextVar("under_way", default="of no client")
"""The id of the reply that is being made, for logs; work that is shared has that of whoever began it."""

_ID_BYTES = 12
_IDS_DRAWN = 256


def fresh_ids() -> Iterator[str]:
    """Yield 24 random hex digits for each reply; the system is asked for many at a time, which costs as much as one."""
    while True:
        drawn = secrets.token_hex(_ID_BYTES * _IDS_DRAWN)
        for start in range(0, len(drawn), 2 * _ID_BYTES):
            yield drawn[start : start + 2 * _ID_BYTES]
