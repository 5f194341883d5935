"""Connections to an upstream: leaving, keeping, silence, closing, and addresses that are none."""

import asyncio
import gc
from contextlib import aclosing

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler

from backends.contract import (
    StartFailed,
    Text,
    UpstreamFailed,
    WorkerDied,
)
from backends.upstream import HttpEngine
from tests.openai_server import application
from tests.upstream_house import chat, collect, text_of, upstream


async def test_leaving_closes_the_connection():
    """The server sees its client go, and the session keeps no connection."""
    gone = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        chunk = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
        try:
            while True:
                await response.write(chunk)
                await asyncio.sleep(0.005)
        except (ConnectionError, asyncio.CancelledError):
            gone.set()
            raise

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    async with upstream(app) as backend:
        async with aclosing(backend.stream(chat("x", stream=True))) as events:
            assert await anext(events) == Text("a")
        async with asyncio.timeout(90):
            await gone.wait()


async def test_a_connection_is_used_again_after_a_stream():
    """A stream that was read to its end gives its connection back."""
    ports = set()

    @web.middleware
    async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
        assert request.transport
        ports.add(request.transport.get_extra_info("peername")[1])
        return await handler(request)

    app = application()
    app.middlewares.append(note)
    async with upstream(app) as backend:
        for _ in range(3):
            await collect(backend, chat("a b", stream=True))
    assert len(ports) == 1


async def test_a_kept_connection_that_was_closed_meanwhile_is_no_failure():
    """The server closed an idle connection: the request is sent again on a new one."""
    seen = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal seen
        seen += 1
        if seen == 2:
            request.transport.close()  # type: ignore[union-attr]
        return web.json_response({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    async with upstream(app) as backend:
        await collect(backend, chat("a"))
        assert text_of(await collect(backend, chat("b"))) == "hi"
    assert seen == 3


async def test_silence_is_a_failure():
    """An upstream that sends nothing within the read timeout failed."""
    async with upstream(read_timeout_s=0.05) as backend:
        with pytest.raises(UpstreamFailed, match="sent nothing for too long"):
            await collect(backend, chat("stall"))


async def test_closing_fails_running_jobs():
    """A job whose backend is closed under it died with it."""
    async with upstream() as backend:
        events = backend.stream(chat("stall", stream=True))
        await anext(events)
        reader = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        await backend.close()
        with pytest.raises(WorkerDied):
            await reader
        assert await backend.wait_exit() == "closed"


async def test_an_upstream_that_is_not_there():
    """Who asked is told what befell the connection, the log where: as the URL does, without its credentials."""
    async with TestServer(application()) as server:
        url, where = str(server.make_url("/v1")).replace("//", "//user:secret@"), f"127.0.0.1:{server.port}"
    backend = await HttpEngine(url, "echo").start()
    try:
        told = r"^the upstream failed: it cannot be connected to \(Connection refused\)$"
        with pytest.raises(UpstreamFailed, match=told) as failed:
            await collect(backend, chat("hi"))
        assert failed.value.cause.startswith(f"upstream {where} (model echo): ")
        assert "refused" in failed.value.cause or "Connect call failed" in failed.value.cause
        assert failed.value.status is None
    finally:
        await backend.close()
        gc.collect()


async def test_closing_fails_a_job_without_a_response_yet():
    """It is woken too, though no byte came."""
    begun = asyncio.Event()

    async def handler(_: web.Request) -> web.Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    async with upstream(app) as backend:
        reader = asyncio.ensure_future(collect(backend, chat("stall")))
        async with asyncio.timeout(90):
            await begun.wait()
            await backend.close()
            with pytest.raises(WorkerDied):
                await reader


@pytest.mark.parametrize("url", ["", "ftp://x/v1", "localhost:80", "http://"])
async def test_a_url_that_is_none(url):
    """It is refused at the start, by name."""
    with pytest.raises(StartFailed, match="no http or https URL"):
        await HttpEngine(url, "echo").start()
