"""What the tests of upstreams share: a backend in front of a server of its own, and what is read of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer

from backends.contract import (
    Job,
    Made,
    Message,
    Task,
    Text,
)
from backends.upstream import HttpBackend, HttpEngine
from tests.openai_server import application

KEY = "sk-very-secret"


def chat(text: str, *, stream: bool = False, **more: object) -> Job:
    """Make a chat job with one user message."""
    return Job(Task.CHAT, messages=(Message("user", text),), stream=stream, **more)  # type: ignore[arg-type]


@asynccontextmanager
async def upstream(
    app: web.Application | None = None, model: str = "echo", key: str = KEY, **options: object
) -> AsyncIterator[HttpBackend]:
    """Serve `app` and give a backend over it."""
    async with TestServer(app or application()) as server:
        engine = HttpEngine(str(server.make_url("/v1")), model, key=key, **options)  # type: ignore[arg-type]
        backend = await engine.start()
        try:
            yield backend
        finally:
            await backend.close()


def serving(body: bytes, content_type: str = "text/event-stream", status: int = 200) -> web.Application:
    """Build a server that answers every chat with these bytes."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, status=status)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    return app


async def collect(backend: HttpBackend, job: Job) -> list[Made]:
    """Run a job to its end."""
    return [made async for made in backend.stream(job)]


def text_of(events: list[Made]) -> str:
    """Join the text."""
    return "".join(event.text for event in events if isinstance(event, Text))
