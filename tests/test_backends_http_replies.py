"""Replies over HTTP as they may come: in any framing, cut anywhere, broken, or no HTTP at all."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.http_connection import Connection
from backends.http_reply import HEAD_LIMIT_BYTES, ExchangeFailed
from tests.http_upstream import (
    ANNOUNCED,
    ANOTHER,
    CHUNKED,
    CLOSED,
    EMPTY,
    FRAMED,
    REFUSED,
    Kept,
    ask,
    body_of,
    client_of,
    request_from,
    saying,
)


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


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"", "closed before the reply was complete"),
        (b"HTTP/1.1 200 OK\r\nContent-", "closed before the reply was complete"),
        (FRAMED[:-1], "closed before the reply was complete"),
        (CHUNKED[:-2], "closed before the reply was complete"),
        (b"SSH-2.0-x\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "another protocol"),
        (FRAMED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"), "a Content-Encoding"),
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
