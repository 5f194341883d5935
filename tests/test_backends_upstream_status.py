"""What a success of an upstream other than 200 is: an answer that is passed on and never kept, or none."""

import orjson
import pytest
from aiohttp import web
from multidict import CIMultiDict

from backends.contract import Dispatched, Finish, Frame, Job, Task, Text, UpstreamFailed, Verbatim
from tests.upstream_house import chat, collect, serving, upstream

WHOLE = orjson.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]})
STREAM = b'data: {"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


def unkept(status: int) -> Dispatched:
    """Return what an answer begins with that is not to be kept."""
    return Dispatched("", queue_s=0.0, start_s=0.0, unkept=f"status {status}")


@pytest.mark.parametrize("status", [201, 203])
@pytest.mark.parametrize(("body", "kind"), [(WHOLE, "application/json"), (STREAM, "text/event-stream")])
async def test_an_answer_under_another_status_is_not_to_be_kept(status: int, body: bytes, kind: str) -> None:
    """It is an answer like any other, whole or streamed, and says why nothing may remember it."""
    async with upstream(serving(body, kind, status)) as backend:
        expected = [unkept(status), Text("hi"), Finish("stop")]
        assert await collect(backend, chat("x")) == expected
        assert list(await backend.answer(chat("x"))) == expected


@pytest.mark.parametrize("status", [202, 206, 226])
@pytest.mark.parametrize(("body", "kind"), [(WHOLE, "application/json"), (STREAM, "text/event-stream")])
async def test_what_is_no_whole_answer_fails(status: int, body: bytes, kind: str) -> None:
    """A promise or a part is none, whatever its body looks like: the next model is asked, and the status is told."""
    async with upstream(serving(body, kind, status)) as backend:
        with pytest.raises(UpstreamFailed, match=f"gave no whole answer, but status {status}$") as failed:
            await collect(backend, chat("x"))
        assert failed.value.status == status
        with pytest.raises(UpstreamFailed):
            await backend.answer(chat("x"))


async def test_a_relay_passes_on_all_but_parts() -> None:
    """What it means is between the client and the upstream; but for 200 it is not to be kept."""
    job = Job(Task.RELAY, verbatim=Verbatim("openai", "/chat/completions", b"{}"))
    for status in (200, 202):
        async with upstream(serving(b"so", "text/plain", status)) as backend:
            *before, frame, end = await collect(backend, job)
            assert before == ([] if status == 200 else [unkept(status)])
            assert isinstance(frame, Frame)
            assert (frame.data, end) == (b"so", Finish("stop"))
    async with upstream(serving(b"s", "text/plain", 206)) as backend:
        with pytest.raises(UpstreamFailed, match="status 206"):
            await collect(backend, job)


async def test_no_store_is_heard_from_any_line() -> None:
    """What an upstream says of keeping may be in several lines, its own and those of a proxy on the way."""

    async def handler(_: web.Request) -> web.Response:
        words = CIMultiDict([("Cache-Control", "no-store"), ("Cache-Control", "private")])
        return web.Response(body=WHOLE, content_type="application/json", headers=words)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    async with upstream(app) as backend:
        first, *_ = await collect(backend, chat("x"))
        assert first == Dispatched("", queue_s=0.0, start_s=0.0, unkept="no-store")
