"""What is not served: the refusals of the front, as a client gets them."""

import json

import pytest

from gateway.auth import Gatekeeper, Key
from gateway.front import Front
from gateway.pipeline import Pipeline
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.wire import Call, Reply
from gateway.telemetry import Telemetry
from tests.fakes import FakeEngine
from tests.test_gateway_pipeline import house


async def ping(_: Call) -> Reply:
    """Answer a page."""
    return Reply(200, {}, b"pong")


def front(pipeline: Pipeline, keys: list[Key] | None = None) -> Front:
    """Make a front of one surface and one page."""
    return Front((OpenAISurface(),), {("GET", "/ping"): ping}, pipeline, Gatekeeper(keys or []), Telemetry())


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/ping", 200, None),
        ("POST", "/ping", 405, "GET"),
        ("GET", "/v1/embeddings", 405, "POST"),
        ("GET", "/" + "x" * 5000, 404, None),
    ],
)
async def test_paths_and_methods(method, path, status, allow):
    """A wrong method is told with those that are right, a long path is not echoed whole."""
    async with house({"a": FakeEngine()}) as built:
        reply = await front(built.pipeline).serve(Call(method, path, {}, b"", "127.0.0.1"))

    assert reply.status == status
    assert reply.headers.get("Allow") == allow
    assert len(reply.body) < 500


@pytest.mark.parametrize(
    ("peer", "headers", "with_keys", "status"),
    [
        ("127.0.0.1", {}, False, 200),
        ("10.0.0.9", {}, False, 403),
        ("10.0.0.9", {}, True, 401),
        ("10.0.0.9", {"authorization": "Bearer nope"}, True, 401),
        ("10.0.0.9", {"authorization": "Bearer abc"}, True, 200),
        ("10.0.0.9", {"x-api-key": "abc"}, True, 200),
    ],
)
async def test_who_may_call(peer, headers, with_keys, status):
    """Without keys only loopback may call; with keys, whoever has one."""
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    body = b'{"model": "a", "messages": [{"role": "user", "content": "hi"}]}'
    async with house({"a": FakeEngine()}) as built:
        served = front(built.pipeline, [Key("k", digest)] if with_keys else None)
        reply = await served.serve(Call("POST", "/v1/chat/completions", headers, body, peer))

    assert reply.status == status
    if status != 200:
        assert json.loads(reply.body)["error"]["message"]
        assert reply.headers["x-should-retry"] == "false"


async def test_unexpected_error_says_nothing_of_the_inside(caplog):
    """A defect is a 500 in the surface's shape; its text is in the log."""
    async with house({"a": FakeEngine((RuntimeError("secret"),))}) as built:
        body = b'{"model": "a", "messages": [{"role": "user", "content": "hi"}]}'
        reply = await front(built.pipeline).serve(Call("POST", "/v1/chat/completions", {}, body, "127.0.0.1"))

    assert reply.status == 500
    assert b"secret" not in reply.body
    assert "secret" in caplog.text
