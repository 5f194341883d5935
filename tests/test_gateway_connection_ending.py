"""A client's connection when its server ends: who was not told yet may ask once more, and is answered or told why."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from gateway.serving.connection import LAST_REQUEST_S
from tests.client_wire import Client
from tests.fakes import run_virtual

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
HOLD = b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n"


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test in virtual time."""

    @wraps(test)
    def run() -> None:
        run_virtual(test())

    return run


@virtual
async def test_finish_ends_each_connection_as_it_stands() -> None:
    """An idle one is closed in a while, one in the middle of a request is told why, a busy one answers and closes."""
    reading, idle, busy = Client(), Client(), Client()
    await reading.send(GET[:10])
    await busy.send(HOLD)
    for client in (reading, idle, busy):
        client.connection.finish()
    assert [client.wire.end for client in (reading, idle, busy)] == ["", "", ""]
    await asyncio.sleep(2 * LAST_REQUEST_S)

    assert reading.wire.written.startswith(b"HTTP/1.1 503 ")
    assert b"Connection: close" in reading.wire.written
    assert idle.wire.end == "closed"
    assert busy.wire.end == ""
    busy.go_on.set()
    assert b"Connection: close" in await busy.settle()
    assert busy.wire.end == "closed"


@virtual
async def test_request_that_comes_just_after_finish_is_answered() -> None:
    """Its client could not know yet; the reply says that it is the last, and it may have begun to come before."""
    for early in (0, 10, len(GET) // 2):
        client = Client()
        await client.send(GET, GET[:early])
        client.connection.finish()
        written = await client.send(GET[early:])

        assert re.findall(rb"HTTP/1.1 (\d+)", written) == [b"200", b"200"]
        assert written.count(b"Connection: close") == 1
        assert client.wire.end == "closed"


@virtual
async def test_client_of_a_stream_that_began_before_finish_may_ask_once_more() -> None:
    """The head that it read promised a connection that lasts; it is told otherwise by the next reply."""
    client = Client()
    await client.send(b"GET /stream-held HTTP/1.1\r\nHost: x\r\n\r\n")
    client.connection.finish()
    client.go_on.set()
    assert (await client.settle()).endswith(b"two\r\n0\r\n\r\n")
    assert client.wire.end == ""
    written = await client.send(GET)

    assert written.count(b"HTTP/1.1 200") == 2
    assert written.count(b"Connection: close") == 1
    assert client.wire.end == "closed"


@virtual
async def test_what_is_waited_for_at_the_end_is_under_way_and_can_be_cut_off() -> None:
    """A server that drains waits for a last request, though not beyond its deadline."""
    idle = Client()
    idle.connection.finish()
    assert idle.connection.under_way() is not None
    idle.connection.cut_off()
    assert idle.connection.under_way() is None
    assert idle.wire.end == "closed"
