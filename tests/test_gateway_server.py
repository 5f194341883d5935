"""The HTTP server on real sockets: bounds, leaving clients, draining. What it serves is a stand-in."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import uvloop

from gateway.errors import RequestRefused, fault
from gateway.serving.server import Server
from gateway.surfaces.wire import Call, Reply

LIMIT = 1000
LONG = b"x" * 60_000  # less than a transport takes before it says that its client has to read


LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


@dataclass
class Kitchen:
    """Serves what a path asks for, and notes what happened."""

    calls: list[Call] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, call: Call) -> Reply:
        """Answer at once, or hold the call or its stream until told to go on."""
        self.calls.append(call)
        if call.path == "/stream":
            return Reply(200, {"Content-Type": "text/plain"}, self._chunks())
        if call.path == "/hold":
            await self._hold()
        if call.path == "/long":
            return Reply(200, {"Content-Type": "text/plain"}, LONG)
        return Reply(200, {"Content-Type": "text/plain"}, b"done:" + call.body)

    def refuse(self, error: Exception) -> Reply:
        """Answer an error with its words."""
        return Reply(fault(error).status, {}, str(error).encode())

    async def _chunks(self) -> AsyncIterator[bytes]:
        yield b"one,"
        await self._hold()
        yield b"two"

    async def _hold(self) -> None:
        self.begun.set()
        try:
            await self.go_on.wait()
        except BaseException:
            self.left.set()
            raise


@asynccontextmanager
async def serving(kitchen: Kitchen) -> AsyncIterator[tuple[Server, int]]:
    """Run a server on a free port."""
    server = Server(kitchen.serve, kitchen.refuse, max_body_bytes=LIMIT)
    _, port = await server.listen("127.0.0.1", 0)
    try:
        yield server, port
    finally:
        await server.drain(0.0)


async def exchange(port: int, request: bytes) -> bytes:
    """Send bytes, and read one response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(90):
            head = await reader.readuntil(b"\r\n\r\n")
            size = re.search(rb"Content-Length: (\d+)", head)
            return head + await (reader.read() if size is None else reader.readexactly(int(size[1])))
    finally:
        writer.close()
        await writer.wait_closed()


def post(path: str, body: bytes = b"", *more: bytes) -> bytes:
    """Make a request that closes its connection."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n".encode()
    return b"\r\n".join([head.rstrip(b"\r\n"), *more]) + b"\r\n\r\n" + body


async def test_body_reaches_the_call_and_the_reply_the_client():
    """A whole exchange: method, path, body and peer in, status and body out."""
    kitchen = Kitchen()
    async with serving(kitchen) as (_, port):
        answer = await exchange(port, post("/x", b"abc"))

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"done:abc")
    assert (kitchen.calls[0].method, kitchen.calls[0].path, kitchen.calls[0].peer) == ("POST", "/x", "127.0.0.1")


async def test_announced_body_over_the_limit_is_refused_before_it_is_read():
    """A Content-Length over the limit is answered at once, with the limit named."""
    async with serving(Kitchen()) as (_, port):
        answer = await exchange(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 413")
    assert b"2000 bytes; at most 1000" in answer


async def test_chunked_body_over_the_limit_is_refused():
    """A body that does not say its size is refused once it is too large."""
    chunk = b"400\r\n" + b"x" * 0x400 + b"\r\n"
    async with serving(Kitchen()) as (_, port):
        answer = await exchange(
            port, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 2 + b"0\r\n\r\n"
        )

    assert answer.startswith(b"HTTP/1.1 413")


@LOOPS
@pytest.mark.parametrize("path", ["/hold", "/stream"])
def test_client_that_leaves_cancels_its_call(path, loop):
    """Closing the connection cancels the work, before the answer as well as in a stream."""

    async def run() -> None:
        kitchen = Kitchen()
        async with serving(kitchen) as (_, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(path))
            await kitchen.begun.wait()

            writer.close()

            async with asyncio.timeout(90):
                await kitchen.left.wait()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


@LOOPS
def test_client_that_sends_no_more_is_answered(loop):
    """A client that has closed its half still gets the answer to what it asked, and then the connection's end."""

    async def run() -> None:
        kitchen = Kitchen()
        async with serving(kitchen) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
            writer.write_eof()
            await kitchen.begun.wait()
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            kitchen.go_on.set()

            async with asyncio.timeout(90):
                answer = await reader.read()

            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\nConnection: close\r\n\r\ndone:")
            writer.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


@LOOPS
def test_half_of_a_request_ends_with_its_client(loop):
    """A connection whose client stops in the middle of a request, or before one, is closed."""

    async def run() -> None:
        async with serving(Kitchen()) as (server, port):
            for begun in (b"", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(begun)
                writer.write_eof()
                async with asyncio.timeout(90):
                    assert await reader.read() == b""
                writer.close()
            assert not server._connections

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


@pytest.mark.parametrize(("path", "end"), [("/hold", b"done:"), ("/stream", b"two\r\n0\r\n\r\n")])
async def test_drain_lets_calls_in_progress_end(path, end):
    """What was begun is completed; nothing new is taken meanwhile."""
    kitchen = Kitchen()
    async with serving(kitchen) as (server, port):
        call = asyncio.create_task(exchange(port, post(path)))
        await kitchen.begun.wait()
        draining = asyncio.create_task(server.drain(10.0))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

        kitchen.go_on.set()

        await draining
        assert (await call).endswith(end)


@LOOPS
def test_drain_waits_until_what_was_answered_has_gone_out(loop):
    """Who reads slowly gets the whole of a reply that was written before."""

    async def run() -> None:
        async with serving(Kitchen()) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**10)
            writer.write(post("/x").replace(b"Connection: close\r\n", b""))
            await reader.readuntil(b"done:")
            (connection,) = server._connections
            for transport, size in ((connection._transport, socket.SO_SNDBUF), (writer.transport, socket.SO_RCVBUF)):
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, size, 2**12)
            writer.write(post("/long"))
            async with asyncio.timeout(90):
                await reader.readuntil(b"\r\n\r\n")
                draining = asyncio.create_task(server.drain(60.0))
                await asyncio.sleep(0.01)
                assert connection.has_unsent()
                assert await reader.read(-1) == LONG
                await draining
            writer.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


async def test_drain_cancels_what_outlives_its_deadline():
    """A call that does not end in time is cancelled and its client told so; the server is done."""
    kitchen = Kitchen()
    async with serving(kitchen) as (server, port):
        call = asyncio.create_task(exchange(port, post("/hold")))
        await kitchen.begun.wait()

        await server.drain(0.01)

        assert kitchen.left.is_set()
        assert (await call).startswith(b"HTTP/1.1 503")


async def test_drain_cuts_off_streams_that_outlive_its_deadline():
    """A stream whose head has been sent cannot be refused any more: its connection ends without the last chunk."""
    kitchen = Kitchen()
    async with serving(kitchen) as (server, port):
        call = asyncio.create_task(exchange(port, post("/stream")))
        await kitchen.begun.wait()

        await server.drain(0.01)

        assert not (await call).endswith(b"0\r\n\r\n")


async def test_errors_of_reading_are_refusals():
    """Every error that reading a body can raise is one that the table knows."""
    assert issubclass(RequestRefused, Exception)
    async with serving(Kitchen()) as (_, port):
        answer = await exchange(port, post("/x", b"not gzip", b"Content-Encoding: gzip"))

    assert answer.startswith(b"HTTP/1.1 400")
