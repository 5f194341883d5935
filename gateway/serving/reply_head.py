"""What every reply begins with: its status, its date, and whose it is."""

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from gateway.surfaces.wire import Reply

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


@lru_cache(maxsize=32)
def preamble(status: int, epoch_s: int) -> str:
    """Return the first lines of a reply: the same for all replies of one status in one second.

    Statuses that no RFC knows (Anthropic's 529, an upstream's own) have no phrase.
    """
    return (
        f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\nDate: {formatdate(epoch_s, usegmt=True)}\r\nServer: warmgate"
    )


def head_of(reply: Reply, framing: str, *, named: bool, lasts: bool) -> bytes:
    """Return a reply's head; `named`: it says whether the connection lasts."""
    lines = [preamble(reply.status, int(time.time())), *[f"{name}: {value}" for name, value in reply.headers.items()]]
    if framing:
        lines.append(framing)
    if named:
        lines.append(f"Connection: {'keep-alive' if lasts else 'close'}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def opening(status: int) -> bytes:
    """Return the first lines of a reply that is written now."""
    return _opening(status, int(time.time()))


@lru_cache(maxsize=32)
def _opening(status: int, epoch_s: int) -> bytes:
    return preamble(status, epoch_s).encode()
