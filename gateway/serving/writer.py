"""What goes out to one client: pieces of streams, as fast as it reads. Knows chunks, and no request."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, cast

from gateway.surfaces.wire import Outlet

WRITE_DEADLINE_S = 60.0


class Writer:
    """Writes streams to a transport, which says when the client has to read first, and when it has."""

    __slots__ = ("_read", "_transport", "_write")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._write = transport.write
        self._read: asyncio.Future[None] | None = None

    def pause(self) -> None:
        """Hold streams until the client has read."""
        self._read = asyncio.get_running_loop().create_future()

    def resume(self) -> None:
        """Let a stream go on."""
        if self._read is not None and not self._read.done():
            self._read.set_result(None)
        self._read = None

    def is_free(self) -> bool:
        """Tell whether the client need not read first."""
        return self._read is None

    async def until_read(self) -> None:
        """Wait until the client has read: who does not holds its own share only, and not for ever."""
        if self._read is not None:
            async with asyncio.timeout(WRITE_DEADLINE_S):
                await self._read

    def chunk(self, piece: bytes) -> None:
        """Write a piece as one chunk."""
        if piece:  # an empty one would be the last
            self._write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def end(self) -> None:
        """Write the last chunk."""
        self._write(b"0\r\n\r\n")

    async def stream(
        self, head: Callable[[], bytes], chunks: AsyncIterator[bytes], outlet: Outlet | None, *, chunked: bool
    ) -> None:
        """Write a head, and the pieces of a body as they come; they may go through the outlet too."""
        write = self.chunk if chunked else self._write
        if outlet is not None:
            outlet.write = lambda piece: self._write_at_once(write, piece)
        async with aclosing(cast("Any", chunks)):
            # Nothing is awaited before the iterator has begun: one that never began would not clean up when closed.
            self._write(head())
            async for piece in chunks:
                write(piece)
                if self._read is not None:
                    await self.until_read()
        if chunked:
            self.end()

    def _write_at_once(self, write: Callable[[bytes], object], piece: bytes) -> bool:
        """Write a piece of a stream whose task waits for one, unless the client has to read first."""
        if self._read is not None:
            return False
        write(piece)
        return True
