"""The HTTP client over real sockets: framings, bounds, silence, stale connections, leaving, slow readers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.http_client import BadUrl, HttpClient
from backends.http_connection import HEAD_LIMIT_BYTES, HELD_BYTES, Connection, ExchangeFailed, Silent


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


@given(
    order=st.lists(st.sampled_from([FRAMED, ANOTHER, REFUSED, CHUNKED, ANNOUNCED, EMPTY]), max_size=12), cut=st.data()
)
@settings(deadline=None, max_examples=50)
def test_heads_that_come_again_change_nothing(order, cut):
    """Replies on one connection are read alike, whatever came before them and however each is cut."""

    async def run() -> list[tuple[int, dict[str, str], bytes]]:
        seen = []
        connection = Connection(lambda _: None, lambda _: None, lambda: 0.0, {})
        connection.connection_made(Kept())
        for data in order:
            edge = cut.draw(st.integers(1, len(data)))
            connection.begin(b"", b"", whole=True)
            connection.data_received(data[:edge])
            if edge < len(data):
                connection.data_received(data[edge:])
            await connection.came()
            seen.append((connection.status, connection.headers(), await connection.read()))
            connection.leave()
        return seen

    expected = {
        FRAMED: (200, {"content-type": "x", "content-length": "5"}, b"hello"),
        ANOTHER: (200, {"content-type": "x", "content-length": "5"}, b"world"),
        REFUSED: (404, {"content-type": "y", "content-length": "4"}, b"none"),
        CHUNKED: (200, {"transfer-encoding": "chunked"}, b"hello"),
        ANNOUNCED: (200, {"content-type": "x", "content-length": "5"}, b"hello"),
        EMPTY: (204, {"content-type": "z"}, b""),
    }
    assert asyncio.run(run()) == [expected[data] for data in order]


@pytest.mark.parametrize("reply", [FRAMED, CHUNKED, CLOSED, ANNOUNCED], ids=["length", "chunks", "close", "1xx"])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_every_framing_is_read_however_it_is_cut(reply, whole, step):
    """The status, the head's headers and the body are those that were sent."""

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_from(reader)
        for start in range(0, len(reply), step):
            writer.write(reply[start : start + step])
            await asyncio.sleep(0)

    async with client_of(way) as client:
        got = await ask(client, whole=whole)
        assert got.status == 200
        assert "x-trailer" not in got.headers()
        assert "link" not in got.headers()
        assert await body_of(got) == b"hello"


async def test_the_request_is_what_was_asked():
    """Path, host, the headers of all requests and of this one, the length, the body."""
    seen = []

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request_from(reader))
        writer.write(FRAMED)

    async with client_of(way) as client:
        await body_of(await ask(client))
    head, _, body = seen[0].partition(b"\r\n\r\n")
    first, host, *others = head.split(b"\r\n")
    assert first == b"POST /base/path HTTP/1.1"
    assert host.startswith(b"Host: 127.0.0.1:")
    assert others == [b"X-Of-All: 1", b"Content-Type: a/b", b"Content-Length: 8"]
    assert body == b"question"


@pytest.mark.parametrize("value", ["a\r\nX: 1", "a\nb"])
async def test_headers_cannot_smuggle(value):
    """A line's end in a header is refused before anything is sent."""
    async with client_of(saying()) as client:
        with pytest.raises(BadUrl):
            await client.post("/path", {"Content-Type": value}, b"", whole=True)


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: 1"])
async def test_paths_cannot_smuggle(path):
    """Nor can a path."""
    async with client_of(saying()) as client:
        with pytest.raises(BadUrl):
            await client.post(path, {}, b"", whole=True)


async def test_one_connection_serves_one_request_after_the_other():
    """What was read to its end is kept."""
    connections = 0

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await saying(FRAMED, CHUNKED, FRAMED)(reader, writer)

    async with client_of(way) as client:
        for _ in range(3):
            assert await body_of(await ask(client)) == b"hello"
    assert connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        FRAMED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        FRAMED + FRAMED,
        FRAMED + b"HTTP/1.1 200",
        FRAMED + b"rubbish",
    ],
    ids=["said so", "two replies", "a reply too much", "rubbish"],
)
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(reply):
    """The reply counts, and the next request opens another connection."""
    connections = 0

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await saying(reply)(reader, writer)

    async with client_of(way) as client:
        for _ in range(2):
            assert await body_of(await ask(client)) == b"hello"
    assert connections == 2


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"", "closed before the reply was complete"),
        (b"HTTP/1.1 200 OK\r\nContent-", "closed before the reply was complete"),
        (FRAMED[:-1], "closed before the reply was complete"),
        (CHUNKED[:-2], "closed before the reply was complete"),
        (b"SSH-2.0-x\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "another protocol"),
        (FRAMED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"), "Content-Encoding: gzip"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * HEAD_LIMIT_BYTES, "head is longer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"b" * 10 * HEAD_LIMIT_BYTES, "head is longer"),
    ],
    ids=["nothing", "half a head", "half a body", "no last chunk", "no HTTP", "upgrade", "gzip", "headers", "header"],
)
async def test_a_reply_that_goes_wrong_is_a_failure(reply, said):
    """Cut off, no HTTP, unasked codings and endless heads."""
    async with client_of(saying(reply, then_close=True)) as client:
        with pytest.raises(ExchangeFailed, match=said):
            await body_of(await ask(client))


async def test_silence_is_a_failure():
    """The server that sends nothing for too long is given up; one that sends a little now and then is not."""

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_from(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        for _ in range(5):
            writer.write(b"x")
            await asyncio.sleep(0.05)
        await reader.read()

    async with client_of(way, silence_s=0.15) as client:
        reply = await ask(client, whole=False)
        got: list[bytes] = []
        with pytest.raises(Silent):
            await body_of(reply, got)
        assert b"".join(got) == b"xxxxx"


def test_silence_is_noticed_after_a_connection_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was never connected is not looked after, and does not end the looking after all else; on the loop we run."""
    monkeypatch.setattr("backends.http_client.IDLE_S", 0.0)

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def run() -> None:
        async with server(way) as url:
            port = int(url.removeprefix("http://127.0.0.1:").removesuffix("/base"))
        client = HttpClient(url, {}, kept=4, connect_timeout_s=5, silence_s=0.2)
        await client.open()
        with pytest.raises(ExchangeFailed):
            await ask(client)
        await asyncio.sleep(0.1)  # longer than from one look to the next
        listener = await asyncio.start_server(way, "127.0.0.1", port)
        try:
            async with asyncio.timeout(30):
                with pytest.raises(Silent):
                    await ask(client)
        finally:
            client.close()
            listener.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_once():
    """The request is sent again on a fresh connection, and there nothing is forgiven."""
    requests = 0

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await request_from(reader)
        requests += 1
        if requests != 1:
            return
        writer.write(FRAMED)
        await request_from(reader)
        requests += 1

    async with client_of(way) as client:
        await body_of(await ask(client))
        with pytest.raises(ExchangeFailed):
            await ask(client)
    assert requests == 3


async def test_a_reply_that_had_begun_is_not_asked_for_again():
    """Once a byte came on a kept connection, its end is the reply's failure."""
    requests = 0

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        for reply in (FRAMED, b"HTTP/1.1 2"):
            await request_from(reader)
            requests += 1
            writer.write(reply)

    async with client_of(way) as client:
        await body_of(await ask(client))
        with pytest.raises(ExchangeFailed):
            await ask(client)
    assert requests == 2


@pytest.mark.parametrize("begun", [False, True])
async def test_cancelling_closes_the_connection(begun):
    """The server sees its client go, before the head and after it."""
    asked, gone = asyncio.Event(), asyncio.Event()

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_from(reader)
        if begun:
            writer.write(FRAMED[:-1])
        asked.set()
        try:
            await reader.read()
        finally:
            gone.set()

    async with client_of(way) as client:
        task = asyncio.ensure_future(ask(client))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(90):
            await gone.wait()


async def test_a_slow_reader_holds_the_server():
    """What is kept for it is bounded, and nothing is lost."""
    size = 64 * HELD_BYTES
    most = 0

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_from(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(64):
            writer.write(b"x" * HELD_BYTES)
            await writer.drain()
        await reader.read()

    async with client_of(way, silence_s=0.02) as client:
        reply = await ask(client, whole=False)
        await asyncio.sleep(0.1)  # longer than the silence allowed: it is the reader that is slow
        read = 0
        while part := await reply.read():
            most = max(most, len(part))
            read += len(part)
        reply.leave()
    assert read == size
    assert most < 4 * HELD_BYTES


async def test_a_large_request_goes_out_whole():
    """Its head and its body may leave in more than one piece."""
    body = b"x" * 2_000_000

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await request_from(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n%d" % (len(request.partition(b"\r\n\r\n")[2])))

    async with client_of(way) as client:
        assert await body_of(await client.post("/p", {}, body, whole=True)) == b"2000000"


async def test_closing_tells_who_waits():
    """Whoever waits for a reply, or for a connection, is told at once."""
    asked = asyncio.Event()

    async def way(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await request_from(reader)
        asked.set()
        await reader.read()

    async with client_of(way) as client:
        waiting = asyncio.ensure_future(ask(client))
        await asked.wait()
        client.close()
        with pytest.raises(ExchangeFailed, match="closed"):
            await waiting


@pytest.mark.parametrize("url", ["", "ftp://x", "x:80", "http://", "http://a:99999", "http://[::1"])
async def test_a_url_that_is_none(url):
    """It is refused when the client is made."""
    with pytest.raises(BadUrl, match="no http or https URL"):
        HttpClient(url, {}, kept=1, connect_timeout_s=1, silence_s=1)


class _Transport(asyncio.Transport):
    """Takes what is written and knows whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.closed = True

    close = abort

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


PIECES = st.sampled_from([FRAMED, CHUNKED, CLOSED, ANNOUNCED, b"\r\n", b"0\r\n", b"Content-Length: -1\r\n", b"\x00"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(PIECES, st.binary(max_size=30)), max_size=6).map(b"".join), st.integers(1, 40))
def test_whatever_comes_ends_as_a_reply_or_a_failure(data, step):
    """Rubbish never raises into the loop, and never leaves a reader waiting once the connection is gone."""

    async def main() -> None:
        connection = Connection(lambda _: None, lambda _: None, asyncio.get_running_loop().time, {})
        connection.connection_made(_Transport())
        asking = asyncio.ensure_future(connection.ask(b"", b"", whole=False))
        await asyncio.sleep(0)
        for start in range(0, len(data), step):
            connection.data_received(data[start : start + step])
        connection.connection_lost(None)
        async with asyncio.timeout(90):
            try:
                await asking
                await body_of(connection)
            except ExchangeFailed:
                pass

    asyncio.run(main())
