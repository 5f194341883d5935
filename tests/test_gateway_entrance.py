"""As many clients are connected as there is room for: the next is told so, and a place that is left is had again."""

import asyncio
import resource
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import fault
from gateway.serving import entrance
from gateway.serving.server import Server
from gateway.surfaces.wire import Call, Reply
from tests.passing_place import until

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
ASKED = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def serve(_: Call) -> Reply:
    """Answer."""
    return Reply(200, {}, b"here")


def refuse(error: Exception) -> Reply:
    """Answer an error with its words."""
    return Reply(fault(error).status, {"Retry-After": str(fault(error).retry_after_s)}, str(error).encode())


@asynccontextmanager
async def crowded(most: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Server, int]]:
    """Run a server with so many places."""
    server = Server(serve, refuse, max_body_bytes=1000)
    server.exchange(serve, refuse, 1000, max_connections=most)
    _, port = await server.listen("127.0.0.1", 0, tls)
    try:
        yield server, port
    finally:
        await server.drain(0.0)


async def came(port: int) -> Pair:
    """Connect, and ask."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ASKED)
    return reader, writer


async def answer(pair: Pair) -> bytes:
    """Read one answer."""
    async with asyncio.timeout(90):
        return await pair[0].readuntil(b"\r\n\r\n")


@LOOPS
def test_who_comes_when_all_places_are_taken_is_told_so(loop):
    """It reads a 503 that says when to come again, and the end; who had a place keeps it, and one left is free."""

    async def run() -> None:
        async with crowded(2) as (server, port):
            inside = [await came(port) for _ in range(2)]
            assert all([(await answer(pair)).startswith(b"HTTP/1.1 200") for pair in inside])

            late = await came(port)
            async with asyncio.timeout(90):
                told = await late[0].read()
            late[1].close()
            inside[0][1].close()
            await until(lambda: server.connected == 1)
            inside[1][1].write(ASKED)
            inside.append(await came(port))

            assert told.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"\r\nRetry-After: 1.0\r\n" in told
            assert told.endswith(b"Connection: close\r\n\r\n2 clients are connected, and no more are served")
            assert (await answer(inside[2])).startswith(b"HTTP/1.1 200")
            assert (server.connected, server.turned_away) == (2, 1)
            for _, writer in inside:
                writer.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


@LOOPS
def test_many_that_come_at_once_have_no_more_places(loop):
    """Whoever is accepted in one turn of the loop is counted too; of those too many, not all are heard out."""

    async def run() -> None:
        async with crowded(3) as (server, port):
            pairs = await asyncio.gather(*[came(port) for _ in range(100)])
            await until(lambda: server.connected + server.turned_away == len(pairs))
            heard_out = len(server._turned_away)

            assert (server.connected, server.turned_away) == (3, 97)
            assert heard_out <= entrance._MOST_HEARD_OUT
            for _, writer in pairs:
                writer.close()
            await until(lambda: not (server.connected or server._turned_away))

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


async def test_who_was_turned_away_and_stays_is_cut_off(monkeypatch):
    """A client that reads its refusal and does not leave holds no socket for long."""
    monkeypatch.setattr(entrance, "_LINGER_S", 0.0)
    async with crowded(1) as (server, port):
        first, late = await came(port), await came(port)
        await until(lambda: bool(server.turned_away) and not server._turned_away)

        for _, writer in (first, late):
            writer.close()


LIMITS = st.integers(16, 2**21)


@given(st.integers(1, 10**6), LIMITS, st.one_of(LIMITS, st.just(float("inf"))))
def test_places_are_within_what_the_process_may_open(wanted: int, soft: int, hard: float):
    """There is at least one, never more than wanted, and where files are short half of them at most are clients'."""
    most, files = entrance.places_within(wanted, soft, hard)

    assert 1 <= most <= wanted
    assert files <= max(soft, hard)
    assert files - 2 * most >= min(512, files // 2)


@pytest.mark.parametrize(
    ("wanted", "soft", "hard", "found"),
    [
        (4096, 1024, float("inf"), (4096, 8704)),
        (4096, 1024, 524_288, (4096, 8704)),
        (4096, 1024, 4096, (1792, 4096)),
        (4096, 256, 256, (64, 256)),
        (100, 1024, 4096, (100, 712)),
    ],
)
def test_places_of_usual_limits(wanted, soft, hard, found):
    """What a process of systemd, of a container and of an old system has room for."""
    assert entrance.places_within(wanted, soft, hard) == found


def test_the_soft_limit_of_files_is_raised_as_far_as_it_needs(monkeypatch):
    """It is never lowered, and the hard one stays."""
    limits = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))

    assert (entrance.places(100), entrance.places(1000), entrance.places(9000)) == (100, 1000, 1792)
    assert limits == [(1024, 4096), (2512, 4096), (4096, 4096)]
