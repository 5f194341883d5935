"""A client's side of a connection, without sockets: what it sends is cut at will, and what it gets is looked at."""

import asyncio
import socket
from collections.abc import AsyncIterator

from gateway.errors import fault
from gateway.serving.connection import Connection
from gateway.serving.rules import Rules
from gateway.surfaces.wire import Call, Reply

LIMIT = 100


class Wire(asyncio.Transport):
    """A transport that keeps what was written, and how it was ended."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.end = ""
        self.paused = False
        self.socket: socket.socket | None = None

    def get_extra_info(self, name, default=None):
        """Tell the peer, and the socket that stands for the client's, if any."""
        return {"peername": ("192.0.2.1", 5), "socket": self.socket}.get(name, default)

    def write(self, data):
        """Keep the data."""
        self.written += data

    def write_eof(self):
        """Note the half-close."""
        self.end = "eof"

    def can_write_eof(self):
        """Be plain TCP."""
        return True

    def close(self):
        """Note the close."""
        self.end = "closed"

    def abort(self):
        """Note the abort."""
        self.end = "aborted"

    def is_closing(self):
        """Tell whether it was ended."""
        return bool(self.end)

    def pause_reading(self):
        """Note the pause."""
        self.paused = True

    def resume_reading(self):
        """Note its end."""
        self.paused = False


class Client:
    """A connection with its wire, and a service that answers each call with its place, or as its path says."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.go_on = asyncio.Event()
        self.wire = Wire()
        self.among: set[Connection] = set()
        self.connection = Connection(Rules(self._serve, self._refuse, LIMIT), self.among)
        self.connection.connection_made(self.wire)

    async def send(self, *pieces: bytes) -> bytes:
        """Receive pieces one by one, let the calls run, and return all that was written so far."""
        for piece in pieces:
            self.connection.data_received(piece)
        return await self.settle()

    async def settle(self) -> bytes:
        """Let the calls in progress run as far as they can."""
        for _ in range(20):
            await asyncio.sleep(0)
        return self.wire.written

    async def _serve(self, call: Call) -> Reply:
        self.calls.append(call)
        if call.path == "/hold":
            await self.go_on.wait()
        if call.path in ("/stream", "/stream-held", "/break"):
            return Reply(200, {}, self._chunks(call.path))
        return Reply(200, {"X-Place": str(len(self.calls))}, call.body)

    async def _chunks(self, path: str) -> AsyncIterator[bytes]:
        yield b"one,"
        yield b""
        if path == "/break":
            raise RuntimeError("half-way")
        if path == "/stream-held":
            await self.go_on.wait()
        yield b"two"

    def _refuse(self, error: Exception) -> Reply:
        return Reply(fault(error).status, {}, str(error).encode())
