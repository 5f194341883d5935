"""A client's connection without a socket: framing, order, bounds and deadlines, however the bytes are cut."""

import asyncio
import itertools
import re
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.serving.connection import KEEP_ALIVE_S, LINGER_S, READ_DEADLINE_S
from gateway.serving.intake import HEAD_LIMIT_BYTES
from gateway.surfaces.wire import Call
from tests.client_wire import LIMIT, Client
from tests.fakes import run_virtual

GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = (
    b"POST /%70 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Key: no\r\n\r\n"
)


def undated(reply: bytes) -> bytes:
    """Return what was written without its Date headers."""
    return re.sub(rb"Date: [^\r]+\r\n", b"", reply)


async def test_reply_has_the_head_of_http() -> None:
    """Status, date, server, the reply's own headers and the length, then the body."""
    client = Client()
    written = await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")

    assert re.search(rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", written)
    expected = b"HTTP/1.1 200 OK\r\nServer: warmgate\r\nX-Place: 1\r\nContent-Length: 2\r\n\r\nhi"
    assert undated(written) == expected
    assert client.wire.end == ""


@given(cuts=st.lists(st.integers(0, 300), max_size=8))
def test_bytes_may_be_cut_anywhere(cuts: list[int]) -> None:
    """Two requests come out the same however their bytes arrive; a trailer is no header, a query no path."""

    async def run() -> list[Call]:
        client, data = Client(), CHUNKED + GET
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        await client.send(*[data[low:high] for low, high in itertools.pairwise(edges)])
        return client.calls

    assert asyncio.run(run()) == [
        Call("POST", "/p", {"host": "x", "transfer-encoding": "chunked"}, b"abcde", "192.0.2.1"),
        Call("GET", "/a", {"host": "x"}, b"", "192.0.2.1", query="b=c"),
    ]


@given(data=st.binary(max_size=200))
def test_no_bytes_break_a_connection(data: bytes) -> None:
    """Whatever a client sends, it is answered, refused or waited for; nothing is raised."""

    async def run() -> bytes:
        return await Client().send(data, GET)

    written = asyncio.run(run())
    assert written == b"" or written.startswith(b"HTTP/1.1 ")


async def test_many_requests_in_one_piece_are_no_long_head() -> None:
    """What is read at once may hold more whole requests than one head may have bytes, and the beginning of another."""
    client = Client()
    count = HEAD_LIMIT_BYTES // len(GET) + 1
    await client.send(GET * count + GET[:9])
    while len(client.calls) < count:
        await client.settle()

    assert (await client.send(GET[9:])).count(b"HTTP/1.1 200 OK") == count + 1


async def test_replies_wait_for_a_client_that_does_not_read() -> None:
    """Between `pause_writing` and `resume_writing` at most one reply is written, however many were asked for."""
    client = Client()
    client.connection.pause_writing()
    assert (await client.send(GET * 9)).count(b"HTTP/1.1 200 OK") == 1

    client.connection.resume_writing()
    assert (await client.settle()).count(b"HTTP/1.1 200 OK") == 9


async def test_requests_sent_ahead_are_answered_in_their_order() -> None:
    """While one call runs, nothing more is read; then its followers have their turns."""
    client = Client()
    await client.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + GET + GET)
    assert client.wire.paused
    assert client.wire.written == b""

    client.go_on.set()
    written = await client.settle()

    assert not client.wire.paused
    assert [call.path for call in client.calls] == ["/hold", "/a", "/a"]
    assert re.findall(rb"X-Place: (\d)", written) == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    ("version", "asked", "kept", "said"),
    [
        (b"1.1", b"", True, None),
        (b"1.1", b"Connection: close\r\n", False, b"close"),
        (b"1.0", b"", False, b"close"),
        (b"1.0", b"Connection: keep-alive\r\n", True, b"keep-alive"),
    ],
)
async def test_connection_is_kept_as_the_client_asks(version: bytes, asked: bytes, kept: bool, said: bytes) -> None:
    """Both versions of HTTP have their own default, and the reply says what differs from 1.1's."""
    client = Client()
    written = await client.send(b"GET / HTTP/" + version + b"\r\nHost: x\r\n" + asked + b"\r\n")

    told = re.search(rb"Connection: (\S+)", written)
    assert (client.wire.end == "", told and told[1]) == (kept, said)


async def test_stream_is_chunked() -> None:
    """Every piece of a stream is a chunk, an empty one ends it, and the connection lives on."""
    client = Client()
    written = await client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")

    assert b"Transfer-Encoding: chunked" in written
    assert written.endswith(b"\r\n\r\n4\r\none,\r\n3\r\ntwo\r\n0\r\n\r\n")
    assert client.wire.end == ""


async def test_stream_to_an_old_client_ends_with_the_connection() -> None:
    """HTTP/1.0 has no chunks: the bytes come as they are, even where the client asked to keep the connection."""
    client = Client()
    written = await client.send(b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

    assert b"Connection: close" in written
    assert written.endswith(b"\r\n\r\none,two")
    assert client.wire.end == "closed"


async def test_stream_that_fails_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    """A stream that raises gets no last chunk, which would make it look complete."""
    client = Client()
    written = await client.send(b"GET /break HTTP/1.1\r\nHost: x\r\n\r\n")

    assert written.endswith(b"4\r\none,\r\n")
    assert client.wire.end == "aborted"
    assert "half-way" in caplog.text


async def test_stream_waits_for_a_client_that_does_not_read() -> None:
    """Between `pause_writing` and `resume_writing` at most the chunk in hand is written."""
    client = Client()
    client.connection.pause_writing()
    assert (await client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(b"one,\r\n")

    client.connection.resume_writing()
    assert (await client.settle()).endswith(b"0\r\n\r\n")


async def test_head_has_no_body() -> None:
    """A HEAD gets the length of what it does not get."""
    client = Client()
    assert (await client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")).endswith(
        b"Content-Length: 2\r\n\r\n"
    )


async def test_client_that_waits_for_leave_gets_it() -> None:
    """`Expect: 100-continue` is answered before the body comes, and a body over the limit is refused instead."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert await Client().send(head % LIMIT) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await Client().send(head % (LIMIT + 1))).startswith(b"HTTP/1.1 413 ")


async def test_client_that_waits_behind_another_request_gets_leave_once_that_is_answered() -> None:
    """Who sends ahead a request whose body is to be asked for is asked when the one before it has its reply."""
    client = Client()
    waiting = b"POST /last HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    assert await client.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + waiting) == b""
    client.go_on.set()
    assert (await client.settle()).endswith(b"\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
    assert (await client.send(b"hi")).endswith(b"\r\n\r\nhi")
    assert client.wire.written.count(b" 100 ") == 1


async def test_old_client_is_sent_no_interim_response() -> None:
    """HTTP/1.0 knows no `100 Continue`, and a client of it that expects one is answered when its body has come."""
    client = Client()
    head = b"POST / HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    assert await client.send(head) == b""
    assert (await client.send(b"hi")).startswith(b"HTTP/1.1 200 ")


async def test_upgrade_is_declined_by_going_on() -> None:
    """A client that offers another protocol is answered in this one, and so is its next request."""
    client = Client()
    offer = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi"
    written = await client.send(offer + GET)

    assert [(call.path, call.body) for call in client.calls] == [("/", b"hi"), ("/a", b"")]
    assert written.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * HEAD_LIMIT_BYTES + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (HEAD_LIMIT_BYTES + 1), 431),
        (CHUNKED.replace(b"no", b"x" * HEAD_LIMIT_BYTES), 431),
        (CHUNKED.replace(b"3\r\nabc", b"80\r\n" + b"x" * 128), 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\nabc", 415),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
    ],
    ids=[
        "long-head",
        "endless-head",
        "long-trailer",
        "long-body",
        "two-framings",
        "two-lengths",
        "coded",
        "tunnel",
        "nonsense",
    ],
)
async def test_refused_client_is_heard_out(data: bytes, status: int) -> None:
    """What cannot be read is refused once and nothing after it is; the socket stays half open for a while."""
    client = Client()
    written = await client.send(data, GET)

    assert re.findall(rb"HTTP/1.1 (\d+)", written) == [str(status).encode()]
    assert client.wire.end == "eof"
    client.connection.look_at(asyncio.get_running_loop().time() + LINGER_S + 1)
    assert client.wire.end == "aborted"


async def test_refusal_waits_for_the_call_before_it() -> None:
    """Nonsense behind a good request does not overtake its answer."""
    client = Client()
    await client.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + b"nonsense\r\n\r\n")
    client.go_on.set()

    assert re.findall(rb"HTTP/1.1 (\d+)", await client.settle()) == [b"200", b"400"]


async def test_slow_request_is_refused_and_an_idle_connection_closed() -> None:
    """A request that begins must come in time; between requests the connection may rest longer, not for ever."""
    now = asyncio.get_running_loop().time()
    slow, idle, busy = Client(), Client(), Client()
    await slow.send(GET[:10])
    await idle.send(GET)
    await busy.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
    for client in (slow, idle, busy):
        client.connection.look_at(now + READ_DEADLINE_S - 1)
        assert client.wire.end == ""

    for client in (slow, idle, busy):
        client.connection.look_at(now + KEEP_ALIVE_S + 1)

    assert slow.wire.written.startswith(b"HTTP/1.1 408 ")
    assert idle.wire.end == "aborted"
    assert busy.wire.end == ""
    busy.go_on.set()
    await busy.settle()


@pytest.mark.parametrize(
    ("version", "path", "ahead"),
    [
        (b"1.1", b"/hold", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
        (b"1.0", b"/hold", b"HTTP/1.1 200 OK\r\n"),
        (b"1.0", b"/stream", b"HTTP/1.1 200 OK\r\n"),
    ],
)
async def test_who_sends_no_more_is_answered(version: bytes, path: bytes, ahead: bytes) -> None:
    """Something of the reply goes ahead, which who has left refuses; what is written is one reply all the same."""
    client = Client()
    client.connection.data_received(b"GET " + path + b" HTTP/" + version + b"\r\nHost: x\r\n\r\n")
    assert client.connection.eof_received()
    assert client.wire.written
    assert ahead.startswith(client.wire.written)
    client.go_on.set()

    written = await client.settle()
    assert written.startswith(ahead)
    assert written.count(b" 200 OK") == 1
    assert client.wire.end == "closed"


def test_who_sends_no_more_is_asked_again_whether_it_is_there() -> None:
    """A client may leave after it was asked: it is asked every few seconds, until its reply begins."""

    async def check() -> None:
        with socket.socket() as there:
            client = Client()
            client.wire.socket = there
            await client.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.connection.eof_received()
            await asyncio.sleep(12.0)
            assert client.wire.written == 3 * b"HTTP/1.1 100 Continue\r\n\r\n"
            client.go_on.set()
            await asyncio.sleep(12.0)
            assert client.wire.written.count(b" 100 ") == 3
            assert client.wire.end == "closed"

    run_virtual(check())


async def test_slow_successor_does_not_disturb_the_call_before_it() -> None:
    """A request that stops half-way behind a long call is refused after that call's answer, which still comes."""
    now = asyncio.get_running_loop().time()
    client = Client()
    await client.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n", GET[:10])
    for later_s in (READ_DEADLINE_S + 1, READ_DEADLINE_S + 100):
        client.connection.look_at(now + later_s)
    assert client.wire.end == ""

    client.go_on.set()

    assert re.findall(rb"HTTP/1.1 (\d+)", await client.settle()) == [b"200", b"408"]


async def test_lost_connection_cancels_its_call_and_drops_the_rest() -> None:
    """Nobody is left to answer: the call in progress is cancelled, those that wait for their turn never begin."""
    client = Client()
    await client.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
    task = client.connection.task
    assert task is not None

    client.connection.connection_lost(None)
    await client.settle()

    assert (client.among, task.cancelled(), len(client.calls)) == (set(), True, 1)
