"""The last lines that a child printed, read from a pipe as they come. Knows not whose they are."""

import asyncio
import os
from typing import Self


class OutputTail(asyncio.Protocol):
    """Keeps the last `limit_bytes` of what is written to `fd`, and reads on, so that the writer never blocks."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept = bytearray()
        self._fd: int | None = None
        self._transport: asyncio.ReadTransport | None = None
        self._ended = asyncio.Event()

    @classmethod
    async def open(cls, limit_bytes: int = 8192) -> Self:
        """Make the pipe and start to read it."""
        tail = cls(limit_bytes)
        read_fd, tail._fd = os.pipe()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: tail, os.fdopen(read_fd, "rb", 0))
        tail._transport = transport
        return tail

    @property
    def fd(self) -> int:
        """The writing end, to be given to a child; call `release` once it has it."""
        if self._fd is None:
            raise ValueError("the writing end has been released")
        return self._fd

    def release(self) -> None:
        """Close our copy of the writing end, so that the pipe ends when the child's copies do."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    async def drain(self, deadline_s: float) -> None:
        """Wait until every writer has gone, at most `deadline_s`, so that `text` is whole."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._ended.wait()
        except TimeoutError:
            return

    def text(self, lines: int = 20) -> str:
        """Return the last lines; bytes that are no UTF-8 are replaced."""
        return "\n".join(self._kept.decode("utf-8", "replace").splitlines()[-lines:])

    def close(self) -> None:
        """Stop reading; safe to call twice."""
        self.release()
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Keep the end of what came."""
        self._kept += data
        del self._kept[: -self._limit_bytes]

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that no more will come."""
        del exc
        self._ended.set()
