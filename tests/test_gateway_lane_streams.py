"""The short way of streams that are passed on: nothing differs from the usual way, and nobody is kept waiting."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.serving.connection import Connection
from tests.http_upstream import Streams, request_from
from tests.passing_place import ANSWER, DEADLINE_S, FINE, Place, Way, ask, chat, http, place, post, settled, until

SSE = b"text/event-stream"
OPENING = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SAID = [
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"one two three four"}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
]
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":6}}\n\n'
DONE = b"data: [DONE]\n\n"
TOOL = b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}\n\n'
WRONG = b'data: {"error":{"message":"no more","code":500}}\n\n'
LAST = b"0\r\n\r\n"
LONG = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 2**20)


def chunks(*pieces: bytes, end: bytes = LAST) -> list[bytes]:
    """Frame pieces of a body, the head with the first."""
    framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    framed[0] = OPENING + framed[0]
    return [*framed[:-1], framed[-1] + end]


CASES = {
    "fine": chunks(*SAID, DONE),
    "in one piece": [b"".join(chunks(*SAID, USAGE, DONE))],
    "with its length": [http(b"".join([*SAID, DONE]), content_type=SSE.decode())],
    "usage": chunks(*SAID, USAGE, DONE),
    "a tool": chunks(SAID[0], TOOL, *SAID[2:], DONE),
    "cut within an event": chunks(SAID[0][:20], SAID[0][20:] + SAID[1][:9], SAID[1][9:], SAID[2], DONE),
    "the head alone first": [OPENING, *[b"%x\r\n%b\r\n" % (len(each), each) for each in (*SAID, DONE)], LAST],
    "no end of its last event": chunks(*SAID),
    "cut off": [*chunks(*SAID[:2], end=b""), b""],
    "cut off before anything": [OPENING, b""],
    "never finished": chunks(*SAID[:2], DONE),
    "an error": chunks(SAID[0], WRONG),
    "an error first": chunks(WRONG),
    "no events": chunks(b"data: what?\n\n"),
    "nothing": [OPENING + LAST],
    "refused": [http(b'{"error": {"message": "no", "param": "n"}}', "422 Unprocessable")],
    "busy": [http(b"later", "429 Too Many")],
    "no stream": [FINE],
    "no HTTP": [b"what?\r\n\r\n"],
    "closed": [b""],
}


def pieces(case: list[bytes]) -> Way:
    """Answer the first request whole, then write a reply piece by piece; an empty piece closes the connection."""
    first = [True]

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_from(reader)
            if first:
                first.clear()
                writer.write(FINE)
                continue
            for piece in case:
                if not piece:
                    return
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.002)  # so that it goes out by itself; nothing depends on that

    return way


async def stream_of(streams: Streams, *, beginning: bytes = b"") -> bytes:
    """Read one reply, and return its head and its body without the framing."""
    reader = streams[0]
    async with asyncio.timeout(90):
        head = beginning or await reader.readuntil(b"\r\n\r\n")
        if length := re.search(rb"Content-Length: (\d+)", head):
            return head + await reader.readexactly(int(length[1]))
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return head + body


async def has_idle(built: Place) -> None:
    """Have an upstream's connection kept, and the head known."""
    streams = await built.connect()
    assert (await ask(streams, post(chat()))).endswith(ANSWER)
    streams[1].close()


def streamed(**more: object) -> bytes:
    """Write a request for a stream."""
    return post(chat(stream=True, **more))


@pytest.mark.parametrize("case", CASES)
async def test_replies_and_accounts_are_those_of_the_usual_way(case):
    """Whatever the upstream does, the bytes and the counts are the same with the lane and without it."""
    seen = []
    for with_lane in (False, True):
        async with place(pieces(CASES[case]), with_lane=with_lane) as built:
            await has_idle(built)
            streams = await built.connect()
            streams[1].write(streamed(max_tokens=5))
            got = settled(await stream_of(streams))
            assert built.taken == with_lane
            await until(lambda built=built: built.accounts()[-1] == 0)
            seen.append((got, built.accounts()))
            streams[1].close()
            await built.pipeline.accounts.until_idle()
    assert seen[0] == seen[1]


class Ticking:
    """An upstream that answers the first request whole, and streams to the others, a piece each time it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.gone = 0
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        try:
            while await request_from(reader):
                self.asked += 1
                if self.asked == 1:
                    writer.write(FINE)
                    continue
                await self._stream(reader, writer)
        finally:
            self.gone += 1

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = asyncio.ensure_future(reader.read(1))
        while True:
            piece = asyncio.ensure_future(self.pieces.get())
            await asyncio.wait({piece, left}, return_when=asyncio.FIRST_COMPLETED)
            if not piece.done():
                piece.cancel()
                raise ConnectionResetError
            writer.write(piece.result())
            if piece.result().endswith(LAST):
                left.cancel()
                await asyncio.wait({left})
                return


@asynccontextmanager
async def ticking(
    *, deadline_s: float = 30.0, begun: bool = True
) -> AsyncIterator[tuple[Ticking, Place, Streams, bytes]]:
    """Have a stream under way in the lane; return its head, too, where it has begun."""
    upstream = Ticking()
    async with place(upstream.way, deadline_s=deadline_s) as built:
        await has_idle(built)
        streams = await built.connect()
        streams[1].write(streamed())
        await until(lambda: upstream.asked == 2)
        assert built.taken == 1
        head = b""
        if begun:
            upstream.pieces.put_nowait(chunks(SAID[0], end=b"")[0])
            head = await asyncio.wait_for(streams[0].readuntil(b"\r\n\r\n"), 90)
        yield upstream, built, streams, head
        streams[1].close()


def tick(upstream: Ticking, *said: bytes, end: bytes = b"") -> None:
    """Have the upstream write pieces."""
    for piece in said:
        upstream.pieces.put_nowait(b"%x\r\n%b\r\n" % (len(piece), piece))
    if end:
        upstream.pieces.put_nowait(end)


async def test_a_piece_goes_out_when_it_comes():
    """Nothing waits for the end, and no task is made for it."""
    async with ticking() as (upstream, built, streams, head):
        assert b"\r\nTransfer-Encoding: chunked\r\n" in head
        for piece in SAID[1:]:
            tick(upstream, piece)
            assert (await asyncio.wait_for(streams[0].readuntil(piece), 90)).endswith(piece)
        assert [connection.task for connection in built.server._connections] == [None]
        tick(upstream, DONE, end=LAST)
        assert (await asyncio.wait_for(streams[0].readuntil(LAST), 90)).endswith(DONE + b"\r\n" + LAST)
        assert upstream.gone == 0


@pytest.mark.parametrize("begun", [False, True])
async def test_who_leaves_ends_its_stream(begun):
    """The upstream's connection is closed, the slot free, the permit settled."""
    async with ticking(begun=begun) as (upstream, built, streams, _):
        streams[1].transport.abort()
        await until(lambda: upstream.gone == 1)
        await built.pipeline.accounts.until_idle()
        assert built.accounts()[9:11] == (0, 0)
        assert built.accounts()[-1] == 0


async def test_who_sends_no_more_has_left():
    """The end of what a client sends is the end of a stream that has begun."""
    async with ticking() as (upstream, _, streams, __):
        streams[1].write_eof()
        await until(lambda: upstream.gone == 1)
        await asyncio.wait_for(streams[0].read(), 90)


@pytest.mark.parametrize("begun", [False, True])
async def test_the_time_it_has_ends(begun):
    """What has not begun is a 504; what has ends with an error in the wire's shape."""
    async with ticking(begun=begun, deadline_s=DEADLINE_S) as (upstream, built, streams, head):
        got = await stream_of(streams, beginning=head)
        assert got.startswith(b"HTTP/1.1 200 " if begun else b"HTTP/1.1 504 ")
        assert b"deadline_exceeded" in got
        await until(lambda: upstream.gone == 1)
        assert built.accounts()[-1] == 0


async def test_requests_sent_ahead_keep_their_order():
    """What comes while a stream is under way is answered after it."""
    async with ticking() as (upstream, _, streams, head):
        streams[1].write(post(chat("nobody")))
        streams[1].write(post(chat("nobody")))
        await asyncio.sleep(0)
        tick(upstream, *SAID[1:], DONE, end=LAST)
        assert (await stream_of(streams, beginning=head)).endswith(DONE)
        assert [(await stream_of(streams))[9:12] for _ in range(2)] == [b"404", b"404"]


async def test_who_sent_ahead_and_left_ends_its_stream():
    """Its end is behind what was not read yet."""
    async with ticking() as (upstream, _, streams, __):
        streams[1].write(post(chat("nobody")) * 2)
        await asyncio.sleep(0.01)
        streams[1].close()
        await until(lambda: upstream.gone == 1)


async def stuck(upstream: Ticking, built: Place) -> Connection:
    """Have the upstream write more than a client takes that does not read; return that client's connection."""
    tick(upstream, *[LONG] * 40)
    (connection,) = built.server._connections
    await until(lambda: not connection.is_reading())
    return connection


async def test_a_slow_client_holds_its_own_stream_only():
    """What it has not read is not taken from the upstream without end; when it reads all is there."""
    async with ticking() as (upstream, built, streams, head):
        connection = await stuck(upstream, built)
        written = connection._transport.get_write_buffer_size()
        assert written < 8 * 2**20
        other = await built.connect()
        assert (await ask(other, post(chat("nobody")))).startswith(b"HTTP/1.1 404")
        tick(upstream, *SAID[1:], DONE, end=LAST)
        got = await stream_of(streams, beginning=head)
        assert got.count(LONG) == 40
        assert got.endswith(DONE)
        await until(lambda: built.accounts()[-1] == 0)


async def test_a_client_that_reads_nothing_is_given_up():
    """Who does not read for a minute loses its connection, and its slot is free."""
    async with ticking() as (upstream, built, _, __):
        connection = await stuck(upstream, built)
        connection.look_at(asyncio.get_running_loop().time() + 59)
        assert built.accounts()[-1] == 1
        connection.look_at(asyncio.get_running_loop().time() + 61)
        await until(lambda: built.accounts()[-1] == 0)


async def test_a_server_that_drains_waits_for_it():
    """The stream in progress is told to its end, then the connection ends."""
    async with ticking() as (upstream, built, streams, head):
        drain = asyncio.ensure_future(built.server.drain(10))
        await asyncio.sleep(0)
        tick(upstream, *SAID[1:], DONE, end=LAST)
        assert (await stream_of(streams, beginning=head)).endswith(DONE)
        assert await asyncio.wait_for(streams[0].read(), 90) == b""
        await drain


async def test_a_server_that_drains_waits_for_who_reads_slowly():
    """An answer that has come whole, and that its client has not read, is not cut off while there is time."""
    long = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 2**16)
    async with ticking() as (upstream, built, streams, _):
        (connection,) = built.server._connections
        for transport, size in ((connection._transport, socket.SO_SNDBUF), (streams[1].transport, socket.SO_RCVBUF)):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, size, 2**14)
        while connection.is_reading():
            tick(upstream, long)
            await asyncio.sleep(0.001)
        tick(upstream, long, long, *SAID[1:], DONE, end=LAST)
        drain = asyncio.ensure_future(built.server.drain(60))
        while connection._errand is not None:
            await asyncio.wait_for(streams[0].read(2**12), 90)
        assert connection.has_unsent()
        assert (await asyncio.wait_for(streams[0].read(), 90)).endswith(DONE + b"\r\n" + LAST)
        await drain


async def test_a_server_whose_time_is_up_breaks_it_off():
    """A stream that breaks off does not look like one that ended."""
    async with ticking() as (upstream, built, streams, _):
        await built.server.drain(0.01)
        got = await asyncio.wait_for(streams[0].read(), 90)
        assert not got.endswith(LAST)
        await until(lambda: upstream.gone == 1)


async def test_a_pool_that_ends_breaks_it_off():
    """An upstream that an edit takes away ends its streams with an error, as on the usual way."""
    async with ticking() as (_, built, streams, head):
        for replica in built.pool.fleet.replicas:
            await replica.backend.close()
        got = await stream_of(streams, beginning=head)
        assert b'"worker_died"' in got
        await until(lambda: built.accounts()[-1] == 0 or not built.pool.fleet.replicas)


async def test_a_server_that_does_not_end_after_its_last_event_is_not_waited_for():
    """The stream ends for the client; the connection is not used again."""
    async with ticking() as (upstream, built, streams, head):
        tick(upstream, *SAID[1:], DONE)
        assert (await stream_of(streams, beginning=head)).endswith(DONE)
        await until(lambda: upstream.gone == 1)
        assert built.accounts()[-1] == 0
