"""What ties a child to this process: a pair of sockets, and the pipe that it prints to. Knows not what it runs."""

import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import NamedTuple

from backends.tail import OutputTail


class Tether(NamedTuple):
    """Our end of the sockets, which does not block, the child's, and what the child prints."""

    ours: socket.socket
    theirs: socket.socket
    output: OutputTail


@asynccontextmanager
async def tethered() -> AsyncIterator[Tether]:
    """Open both for a child that is started within: what is the child's is closed then, and all where none was."""
    output = await OutputTail.open()
    with ExitStack() as undoing:
        undoing.callback(output.close)
        ours, theirs = socket.socketpair()
        undoing.callback(ours.close)
        ours.setblocking(False)
        with theirs:
            yield Tether(ours, theirs, output)
        output.release()
        undoing.pop_all()
