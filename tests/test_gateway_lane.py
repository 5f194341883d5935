"""The short way of requests that are passed on: what it takes, and that nothing else differs from the usual way."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.lane.passing import MAX_BYTES
from tests.http_upstream import Streams, request_from
from tests.passing_place import (
    ANSWER,
    DEADLINE_S,
    FINE,
    UNTIL_ITS_END,
    Place,
    ask,
    chat,
    http,
    place,
    post,
    replies,
    reply,
    settled,
    until,
)

CASES = {
    "fine": (FINE,),
    "no usage": (FINE, http(ANSWER.replace(b'"usage"', b'"used"'))),
    "refused": (FINE, http(b'{"error": {"message": "no", "param": "n"}}', "422 Unprocessable")),
    "busy": (FINE, http(b"later", "429 Too Many")),
    "broken": (FINE, http(b"no", "500 Internal")),
    "no answer": (FINE, http(b'{"choices": []}')),
    "an error": (FINE, http(b'{"error": {"message": "no"}}')),
    "no HTTP": (FINE, b"what?\r\n\r\n"),
    "closed": (FINE, None, FINE),
    "cut off": (FINE, FINE[:-5] + b"\r\n", FINE),
    "until its end": (FINE, UNTIL_ITS_END, FINE),
    "long": (FINE, http(ANSWER.replace(b"yes", b"y" * 2**20))),
    "stream": (FINE, http(b"data: [DONE]\n\n", content_type="text/event-stream")),
}


@pytest.mark.parametrize("case", CASES)
async def test_replies_and_accounts_are_those_of_the_usual_way(case):
    """Whatever the upstream does, the bytes and the counts are the same with the lane and without it."""
    seen = []
    for with_lane in (False, True):
        async with place(
            replies(*CASES[case]), with_lane=with_lane, deadline_s=DEADLINE_S if case == "cut off" else 30
        ) as built:
            streams = await built.connect()
            got = [settled(await ask(streams, post(chat(max_tokens=5)))) for _ in range(2)]
            streams[1].close()
            seen.append((got, built.accounts()))
            assert built.taken == with_lane  # the head of the first was not known
            await built.pipeline.accounts.until_idle()
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("body", "headers", "why"),
    [
        ({}, {"cache-control": "no-store"}, "head"),
        ({}, {"x-request-timeout": "3"}, "head"),
        ({}, {"authorization": "Bearer other"}, "head"),
        ({}, {"path": "/v1/messages"}, "another kind of request"),
        ({"user": "x" * MAX_BYTES}, {}, "another kind of request"),
        ({"model": "closed"}, {}, "caller"),
        ({"model": "nobody"}, {}, "unknown model"),
        ({"model": "two"}, {}, "several models"),
        ({"model": "backed"}, {}, "several models"),
        ({"model": "up"}, {}, "cacheable"),
        ({"stream": True}, {}, ""),
        ({"stream": True, "stream_options": {"include_usage": True}}, {}, ""),
        ({"temperature": "warm"}, {}, "malformed"),
        ({"temperature": 1, "tools": []}, {}, ""),
    ],
)
async def test_what_it_does_not_take(body, headers, why):
    """Each of these goes the usual way, and nothing was taken for it."""
    async with place(replies(FINE)) as built:
        streams = await built.connect()
        assert (await ask(streams, post(chat()))).endswith(ANSWER)
        assert built.way(json.dumps(chat() | body).encode(), **headers) == why


async def test_it_takes_a_sampled_answer_of_a_route_with_caches():
    """A temperature makes an answer one that no cache keeps and nobody shares."""
    async with place(replies(FINE)) as built:
        streams = await built.connect()
        for _ in range(2):
            assert b"\r\nCache-Status: warmgate; fwd=bypass; detail=temperature\r\n" in await ask(
                streams, post(chat("up", temperature=1))
            )
        assert built.taken == 1


async def test_it_needs_a_slot_a_connection_and_leave():
    """Where one of them is missing the usual way waits, opens, or refuses."""
    body = json.dumps(chat()).encode()
    async with place(replies(FINE)) as built:
        assert built.way(body) == "no connection"
        streams = await built.connect()
        await ask(streams, post(chat()))
        assert not built.way(body)
        built.pool.rest(resting=True)
        assert built.way(body) == "no connection"
        built.pool.rest(resting=False)
        await built.pool.warm_up(time.monotonic() + 90)
        statuses = [(await ask(streams, post(chat())))[9:12] for _ in range(60)]
        assert statuses == [b"200"] * 59 + [b"429"]
        assert built.taken == 58
        await built.pipeline.accounts.until_idle()


class Held:
    """An upstream that answers the first request at once, the others when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.gone = 0
        self.go_on = asyncio.Event()

    async def way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        try:
            while await request_from(reader):
                self.asked += 1
                if self.asked > 1:
                    wait = asyncio.ensure_future(self.go_on.wait())
                    left = asyncio.ensure_future(reader.read(1))
                    await asyncio.wait({wait, left}, return_when=asyncio.FIRST_COMPLETED)
                    if left.done():
                        return
                    left.cancel()
                    await asyncio.wait({left})
                writer.write(FINE)
        finally:
            self.gone += 1


@asynccontextmanager
async def holding(*, deadline_s: float = 30.0) -> AsyncIterator[tuple[Held, Place, Streams]]:
    """Have a request under way in the lane, held by its upstream."""
    held = Held()
    async with place(held.way, deadline_s=deadline_s) as built:
        streams = await built.connect()
        await ask(streams, post(chat()))
        streams[1].write(post(chat()))
        await until(lambda: held.asked == 2)
        assert built.taken == 1
        yield held, built, streams
        held.go_on.set()
        streams[1].close()


async def test_who_leaves_ends_its_request():
    """The upstream's connection is closed, the slot free, the permit settled."""
    async with holding() as (held, built, streams):
        streams[1].transport.abort()
        await until(lambda: held.gone == 1)
        await built.pipeline.accounts.until_idle()
        assert built.accounts()[9:11] == (0, 0)
        assert built.accounts()[-1] == 0


async def test_until_idle_waits_for_it():
    """A generation that retires is not idle while a request of its lane is under way."""
    async with holding() as (held, built, streams):
        idle = asyncio.ensure_future(built.pipeline.accounts.until_idle())
        await asyncio.sleep(0)
        assert not idle.done()
        held.go_on.set()
        assert (await reply(streams)).endswith(ANSWER)
        await idle


async def test_the_time_it_has_ends():
    """An upstream that takes too long is a 504 in the wire's shape."""
    async with holding(deadline_s=DEADLINE_S) as (held, built, streams):
        got = await reply(streams)
        assert got.startswith(b"HTTP/1.1 504 ")
        assert b"deadline" in got
        await until(lambda: held.gone == 1)
        assert built.accounts()[-1] == 0


async def test_requests_sent_ahead_keep_their_order():
    """What comes while one is under way is answered after it."""
    async with holding() as (held, _, streams):
        streams[1].write(post(chat("nobody")) + post(chat()))
        await asyncio.sleep(0)
        held.go_on.set()
        assert [(await reply(streams))[9:12] for _ in range(3)] == [b"200", b"404", b"200"]


async def test_a_server_that_drains_waits_for_it():
    """The request in progress is answered, then the connection ends."""
    async with holding() as (held, built, streams):
        drain = asyncio.ensure_future(built.server.drain(10))
        await until(lambda: any(connection.task for connection in built.server._connections))
        held.go_on.set()
        got = await reply(streams)
        assert got.endswith(ANSWER)
        assert b"\r\nConnection: close\r\n" in got
        await drain


async def test_a_server_whose_time_is_up_refuses_it():
    """What is not answered in time is told so."""
    async with holding() as (held, built, streams):
        await built.server.drain(0.01)
        assert (await reply(streams)).startswith(b"HTTP/1.1 503 ")
        await until(lambda: held.gone == 1)


async def test_http_1_0_is_answered_and_closed():
    """A client of HTTP/1.0 that does not ask for more gets its reply and the end."""
    async with place(replies(FINE)) as built:
        await ask(await built.connect(), post(chat()))
        streams = await built.connect()
        streams[1].write(post(chat(), version="1.0"))
        got = await asyncio.wait_for(streams[0].read(), 90)
        assert got.endswith(ANSWER)
        assert b"\r\nConnection: close\r\n" in got
        assert built.taken == 0
