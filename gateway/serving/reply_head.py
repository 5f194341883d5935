"""What every reply begins with: its status, its date, and whose it is."""

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


@lru_cache(maxsize=32)
def preamble(status: int, epoch_s: int) -> str:
    """Return the first lines of a reply: the same for all replies of one status in one second.

    Statuses that no RFC knows (Anthropic's 529, an upstream's own) have no phrase.
    """
    return (
        f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\nDate: {formatdate(epoch_s, usegmt=True)}\r\nServer: warmgate"
    )


def opening(status: int) -> bytes:
    """Return the first lines of a reply that is written now."""
    return _opening(status, int(time.time()))


@lru_cache(maxsize=32)
def _opening(status: int, epoch_s: int) -> bytes:
    return preamble(status, epoch_s).encode()
