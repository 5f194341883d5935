"""Whether a client that sends no more, or has sent ahead, is still there. Knows sockets, and no request."""

import asyncio
import select
import socket

# Tells of the end of what a client sends though not all before it has been read; not every system has it.
_ENDED = getattr(select, "POLLRDHUP", 0)


def has_refused(transport: asyncio.Transport) -> bool:
    """Tell whether a client refused what it was sent last."""
    error: int = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return error != 0


def has_ended(transport: asyncio.Transport) -> bool | None:
    """Tell whether a client sends no more, behind what was not read yet; False: it has left, None: it goes on."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), _ENDED)
    seen = poll.poll(0)
    return seen[0][1] == _ENDED if seen else None
