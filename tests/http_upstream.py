"""What the tests of our HTTP client share: a server that does to a connection what a test wants, and who asks it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from backends.http_client import HttpClient
from backends.http_connection import Connection


class Kept(asyncio.Transport):
    """A transport that stays open, and keeps nothing."""

    def write(self, data):
        """Take it."""

    def is_closing(self):
        """Be open."""
        return False

    def get_write_buffer_size(self):
        """Have sent all."""
        return 0


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Way = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def request_from(reader: asyncio.StreamReader) -> bytes:
    """Read one request whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    return head + await reader.readexactly(size)


@asynccontextmanager
async def server(way: Way) -> AsyncIterator[str]:
    """Serve each connection in a way, on a free port."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await way(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/base"
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def client_of(way: Way, silence_s: float = 30.0) -> AsyncIterator[HttpClient]:
    """Give a client of such a server."""
    async with server(way) as url:
        client = HttpClient(url, {"X-Of-All": "1"}, kept=4, connect_timeout_s=5, silence_s=silence_s)
        await client.open()
        try:
            yield client
        finally:
            client.close()
            await asyncio.sleep(0)


def saying(*replies: bytes, then_close: bool = False) -> Way:
    """Answer a connection's requests with these, one after the other."""

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            await request_from(reader)
            writer.write(reply)
            await writer.drain()
        if not then_close:
            await reader.read()

    return way


async def ask(client: HttpClient, *, whole: bool = True) -> Connection:
    """Send a request."""
    return await client.post("/path", {"Content-Type": "a/b"}, b"question", whole=whole)


async def body_of(reply: Connection, parts: list[bytes] | None = None) -> bytes:
    """Read a reply to its end, and leave it; `parts` gets what came."""
    parts = [] if parts is None else parts
    try:
        while part := await reply.read():
            parts.append(part)
    finally:
        reply.leave()
    return b"".join(parts)


FRAMED = b"HTTP/1.1 200 OK\r\nContent-Type: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Trailer: 1\r\n\r\n"
CLOSED = b"HTTP/1.0 200 OK\r\n\r\nhello"
ANNOUNCED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + FRAMED
REFUSED = b"HTTP/1.1 404 Not Found\r\nContent-Type: y\r\nContent-Length: 4\r\n\r\nnone"
ANOTHER = FRAMED[:-5] + b"world"
EMPTY = b"HTTP/1.1 204 No Content\r\nContent-Type: z\r\n\r\n"
