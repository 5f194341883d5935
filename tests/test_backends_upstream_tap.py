"""Pieces of an upstream's stream that are given away the moment they come."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from backends.contract import Finish, Job, Made, Message, Task, Text, UpstreamFailed
from backends.sse import EVENT_LIMIT_BYTES, EventTooLongError
from backends.telling import Straight, Telling
from backends.upstream import HttpBackend, HttpEngine
from backends.upstream_answers import StreamDecoder

PIECE = 'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n'
END = 'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


@asynccontextmanager
async def dictated() -> AsyncIterator[tuple[HttpBackend, asyncio.Queue[str | None]]]:
    """Give a backend over a server that streams what is put into the queue, and ends at None."""
    said: asyncio.Queue[str | None] = asyncio.Queue()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while (words := await said.get()) is not None:
            await response.write(words.encode())
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    async with TestServer(app) as server:
        backend = await HttpEngine(str(server.make_url("/v1")), "echo").start()
        try:
            yield backend, said
        finally:
            await backend.close()


def job(tap: Callable[[Made], bool]) -> Job:
    """Make a streamed job with a tap."""
    return Job(Task.CHAT, messages=(Message("user", "hi"),), stream=True, tap=tap)


async def test_what_the_tap_takes_is_not_yielded_and_the_rest_comes_in_order() -> None:
    """Texts are taken while somebody waits for one; what is refused, and what ends the answer, is yielded."""
    came = asyncio.Event()
    told, taken = list[Made](), list[Made]()

    def tap(event: Made) -> bool:
        if event == Text("no"):
            return False
        told.append(event)
        taken.append(event)
        came.set()
        return True

    async def read() -> None:
        async for event in events:
            told.append(event)
            came.set()

    async with dictated() as (backend, said), aclosing(backend.stream(job(tap))) as events:
        reading = asyncio.create_task(read())
        for words in ("a", "b", "no", "c"):
            came.clear()
            said.put_nowait(PIECE % words)
            async with asyncio.timeout(90):
                await came.wait()
        for words in (END, None):
            said.put_nowait(words)
        await reading

    assert told == [Text("a"), Text("b"), Text("no"), Text("c"), Finish("stop")]
    assert taken == [Text("b"), Text("c")]  # never the first, with which those on the way begin the answer


async def test_a_stream_that_breaks_off_after_pieces_were_taken_is_told_so() -> None:
    """Its reader learns what the server did, though none of its bytes passed there."""
    taken: list[Made] = []
    async with dictated() as (backend, said), aclosing(backend.stream(job(lambda e: not taken.append(e)))) as events:
        for words in (PIECE % "a", None):
            said.put_nowait(words)
        with pytest.raises(UpstreamFailed, match="ended"):
            await collected(events)


def test_what_is_wrong_with_a_piece_is_raised_where_it_would_have_been_read() -> None:
    """An event longer than any may be ends the wait, not the callback of the socket."""
    straight = Straight(Telling(StreamDecoder(job(lambda _: True)), None, ""), lambda _: True)
    assert not straight(b"data: " + b"x" * (EVENT_LIMIT_BYTES + 1))
    with pytest.raises(EventTooLongError):
        straight.rest()


async def collected(events: AsyncIterator[Made]) -> list[Made]:
    """Return all events."""
    return [event async for event in events]
