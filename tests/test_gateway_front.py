"""What is not served: the refusals of the front, as a client gets them."""

import json

import pytest

from backends.contract import UpstreamFailed
from gateway.callers.auth import Gatekeeper, Key
from gateway.counting.telemetry import Telemetry
from gateway.front import Front
from gateway.pipeline import Pipeline
from gateway.routes import Route
from gateway.surfaces.anthropic import AnthropicSurface
from gateway.surfaces.native import NativeSurface
from gateway.surfaces.oip.surface import OipSurface
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.relays import RelaySurface
from gateway.surfaces.wire import Call, Reply
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


@pytest.mark.parametrize(
    ("origin", "host", "with_keys", "status"),
    [
        ("http://evil.example", "localhost:8080", False, 403),
        ("http://localhost:3000", "localhost:8080", False, 403),
        ("null", "localhost:8080", False, 403),
        ("http://[", "localhost:8080", False, 403),
        ("http://LocalHost:8080", "localhost:8080", False, 200),
        (None, "localhost:8080", False, 200),
        ("http://evil.example", "localhost:8080", True, 200),
    ],
)
async def test_pages_of_other_sites_change_nothing(origin, host, with_keys, status):
    """Where no key shows who wants it, what a browser sends for another site's page reaches no page but `GET`."""
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    async with house({"a": FakeEngine()}) as built:
        keeper = Gatekeeper([Key("k", "00" * 32)] if with_keys else [])
        table = {("GET", "/ping"): ping, ("POST", "/ping"): ping, ("DELETE", "/ping"): ping}
        served = Front((OpenAISurface(),), table, built.pipeline, keeper, Telemetry())
        for method in ("POST", "DELETE"):
            assert (await served.serve(Call(method, "/ping", headers, b"", "127.0.0.1"))).status == status
        assert (await served.serve(Call("GET", "/ping", headers, b"", "127.0.0.1"))).status == 200


@pytest.mark.parametrize(
    ("headers", "with_keys", "status"),
    [
        ({"host": "localhost:8080", "origin": "http://evil.example"}, False, 403),
        ({"host": "localhost:8080", "origin": "null"}, False, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, False, 403),
        ({"host": "evil.example"}, False, 403),
        ({"host": "localhost:8080", "origin": "http://localhost:8080"}, False, 200),
        ({"host": "localhost:8080", "origin": "app://notes", "authorization": "Bearer any"}, False, 200),
        ({"host": "evil.example", "origin": "http://evil.example", "authorization": "Bearer any"}, False, 403),
        ({"host": "gateway.example", "origin": "http://app.example", "authorization": "Bearer abc"}, True, 200),
    ],
)
async def test_pages_of_other_sites_ask_no_model(headers, with_keys, status):
    """A browser asks nothing for a page of another site, nor for one whose name leads here, without a key's header."""
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    body = b'{"model": "a", "messages": [{"role": "user", "content": "hi"}]}'
    async with house({"a": FakeEngine()}) as built:
        served = front(built.pipeline, [Key("k", digest)] if with_keys else None)
        text = {"content-type": "text/plain", **headers}
        reply = await served.serve(Call("POST", "/v1/chat/completions", text, body, "127.0.0.1"))

    assert reply.status == status
    if status != 200:
        assert json.loads(reply.body)["error"]["code"] == "forbidden"


@pytest.mark.parametrize(
    ("path", "with_keys", "status"),
    [("/admin/x", False, 403), ("/admin/x", True, 403), ("/ping", False, 403), ("/ping", True, 200)],
)
async def test_a_name_that_leads_here_opens_no_page(path, with_keys, status):
    """A page of the operator's is not for who calls us by a name of their own, and none is where there are no keys."""
    async with house({"a": FakeEngine()}) as built:
        keeper = Gatekeeper([Key("k", "00" * 32)] if with_keys else [], hosts=("gateway.example",))
        table = {("GET", "/ping"): ping, ("GET", "/admin/x"): ping}
        served = Front((OpenAISurface(),), table, built.pipeline, keeper, Telemetry())
        for host, expected in (("evil.example:8080", status), ("gateway.example", 200), ("127.0.0.1:8080", 200)):
            assert (await served.serve(Call("GET", path, {"host": host}, b"", "127.0.0.1"))).status == expected


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/nothing", {"message", "type", "code", "param"}),
        ("/v1/messages/batches", {"message", "type"}),
        ("/v1/messages/batches/x/results", {"message", "type"}),
        ("/v2/models/a/nothing", None),
        ("/v2/nothing", None),
        ("/api/v1/nothing", {"message", "type", "code", "param"}),
        ("/nothing/at/all", {"message", "type", "code", "param"}),
    ],
)
async def test_unknown_paths_have_the_shape_of_their_wire(path, told):
    """The wire whose paths have the longest start in common with it tells of the error."""
    surfaces = (OpenAISurface(), AnthropicSurface(), OipSurface(lambda _: None), RelaySurface(), NativeSurface())
    async with house({"a": FakeEngine()}) as built:
        served = Front(surfaces, {}, built.pipeline, Gatekeeper([]), Telemetry())
        reply = await served.serve(Call("POST", path, {}, b"", "127.0.0.1"))

    error = json.loads(reply.body)["error"]
    assert reply.status == 404
    assert (None if isinstance(error, str) else set(error)) == told


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/chat/completions", "/v1/chat/completions"),
        ("/v1/ping", "/ping"),
        ("/v1/nothing", None),
        ("/", None),
        ("/a" * 3000, None),
    ],
)
async def test_a_wrong_base_url_is_told_with_what_was_meant(path, meant):
    """Clients of one wire want `/v1` in it, those of another do not."""
    async with house({"a": FakeEngine()}) as built:
        reply = await front(built.pipeline).serve(Call("POST", path, {}, b"", "127.0.0.1"))

    message = json.loads(reply.body)["error"]["message"]
    assert reply.status == 404
    assert ("base URL" in message) is (meant is not None)
    assert meant is None or f"'{meant}' is" in message


async def test_unexpected_error_says_nothing_of_the_inside(caplog):
    """A defect is a 500 in the surface's shape; its text is in the log."""
    async with house({"a": FakeEngine((RuntimeError("secret"),))}) as built:
        body = b'{"model": "a", "messages": [{"role": "user", "content": "hi"}]}'
        reply = await front(built.pipeline).serve(Call("POST", "/v1/chat/completions", {}, body, "127.0.0.1"))

    assert reply.status == 500
    assert b"secret" not in reply.body
    assert "secret" in caplog.text


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ({}, "miss"),
        ({"cache-control": "no-cache"}, "request"),
        ({"cache-control": "no-store"}, "bypass"),
        ({"cache-control": "only-if-cached"}, "miss"),
        ({"cache-control": "max-age=soon"}, "none"),
    ],
)
async def test_a_failed_request_is_counted_by_what_the_caches_did(words, label):
    """Only where nothing was asked of them nothing is said."""
    async with house({"a": FakeEngine((UpstreamFailed("down"),))}) as built:
        served = front(built.pipeline)
        body = b'{"model": "a", "messages": [{"role": "user", "content": "x"}]}'
        reply = await served.serve(Call("POST", "/v1/chat/completions", words, body, "127.0.0.1"))

    model = "a" if reply.status != 400 else ""
    assert f'cache="{label}",model="{model}",status="{reply.status}"'.encode() in served.telemetry.exposition()


@pytest.mark.parametrize(
    ("upstream", "status", "retry"),
    [(401, 502, "false"), (403, 502, "false"), (404, 502, "false"), (429, 429, "true"), (500, 502, "true")],
)
async def test_what_an_upstream_will_refuse_again_is_not_to_be_retried(upstream, status, retry):
    """A client's library follows the header: no time is spent on a wrong key or an unknown model."""
    async with house({"a": FakeEngine((UpstreamFailed("refused", upstream),))}) as built:
        body = b'{"model": "a", "messages": [{"role": "user", "content": "x"}]}'
        reply = await front(built.pipeline).serve(Call("POST", "/v1/chat/completions", {}, body, "127.0.0.1"))

    assert (reply.status, reply.headers["x-should-retry"]) == (status, retry)


FAILING = UpstreamFailed("status 500: what they asked", 500, cause="upstream 10.0.0.9:80 (model m): status 500")


@pytest.mark.parametrize(
    ("asked", "counted"),
    [("a", 'model="a",status="502"'), ("both", 'model="b",status="502"'), ("other", 'model="",status="404"')],
)
async def test_a_failure_is_counted_and_logged_with_its_model(asked, counted, caplog):
    """The log has the request, the model and the cause, and no words of an upstream; what is no model is no label."""
    engines = {"a": FakeEngine((FAILING,)), "b": FakeEngine((FAILING,))}
    async with house(engines, {"both": Route("both", ("a",), fallback=("b",))}) as built:
        served = front(built.pipeline)
        body = b'{"model": "%b", "messages": [{"role": "user", "content": "x"}]}' % asked.encode()
        reply = await served.serve(Call("POST", "/v1/chat/completions", {}, body, "127.0.0.1"))

    id_, cause = reply.headers["X-Request-Id"], FAILING.cause
    expected = {
        "a": [f"request {id_}: status 502, upstream_failed, model a, {cause}"],
        "both": [
            f"request {id_}: a failed, and the next candidate is tried: UpstreamFailed: {cause}",
            f"request {id_}: status 502, upstream_failed, model b, {cause}",
        ],
        "other": [],
    }
    assert counted.encode() in served.telemetry.exposition()
    assert [line for line in caplog.messages if line.startswith("request ")] == expected[asked]


async def test_the_answer_of_a_fallback_says_so_each_time():
    """A header names the model that stood in, also when its answer comes from the cache; others have none."""
    engines = {"a": FakeEngine((FAILING,)), "b": FakeEngine()}
    async with house(engines, {"both": Route("both", ("a",), fallback=("b",))}) as built:
        served, said = front(built.pipeline), []
        for name in ("both", "both", "b"):
            body = b'{"model": "%b", "messages": [{"role": "user", "content": "x"}]}' % name.encode()
            reply = await served.serve(Call("POST", "/v1/chat/completions", {}, body, "127.0.0.1"))
            said.append((reply.headers.get("X-Warmgate-Fallback"), "hit" in reply.headers["Cache-Status"]))

    assert said == [("b", False), ("b", True), (None, True)]


@pytest.mark.parametrize(("model", "counted"), [("a", "a"), ("none", "")])
async def test_a_refusal_is_counted_with_the_model_that_was_asked_for(model, counted):
    """Where there is such a model: names that clients make up are no labels."""
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    body = b'{"model": "%b", "messages": [{"role": "user", "content": "x"}]}' % model.encode()
    async with house({"a": FakeEngine()}) as built:
        served = front(built.pipeline, [Key("k", digest, ("b",))])
        call = Call("POST", "/v1/chat/completions", {"x-api-key": "abc"}, body, None)
        reply = await served.serve(call)

    assert f'model="{counted}",status="{reply.status}"'.encode() in served.telemetry.exposition()
    assert reply.status == (403 if counted else 404)
