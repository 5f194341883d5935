"""The HTTP client over real sockets: what goes out, silence, stale connections, leaving, slow readers."""

import asyncio

import pytest
import uvloop

from backends.http_client import BadUrl, HttpClient
from backends.http_connection import HELD_BYTES, Silent
from backends.http_reply import ExchangeFailed
from tests.http_upstream import CHUNKED, FRAMED, ask, body_of, client_of, request_from, saying, server


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
