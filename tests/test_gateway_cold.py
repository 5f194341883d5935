"""A request that meets a cold model, over every wire: sent away, told of progress, told why a start failed."""

import asyncio
import dataclasses
import hashlib
import json
import math
from typing import Any

import pytest

from backends.contract import Finish, StartFailed, Task, Text, Usage
from backends.sse import SseParser
from backends.warmth.ladder import Level
from gateway.analyze import analyze
from gateway.callers.auth import Gatekeeper, Key
from gateway.catalog import Catalog
from gateway.front import Front
from gateway.request import Caller, Directives, Limits
from gateway.routes import Route
from gateway.surfaces.anthropic import AnthropicSurface
from gateway.surfaces.native import NativeSurface
from gateway.surfaces.oip.surface import OipSurface
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.responses import ResponsesSurface
from gateway.surfaces.wire import Call, Reply
from tests.fakes import FakeEngine, run_virtual
from tests.test_gateway_pipeline import House, house
from tests.test_gateway_pipeline import ask as chat

START_S = 11.0
MESSAGES = [{"role": "user", "content": "hi"}]
FRESH = {"cache_control": "no-store"}
CHAT = {"model": "a", "messages": MESSAGES}
STREAMS = {
    "openai": ("/v1/chat/completions", {**CHAT, "stream": True}),
    "completions": ("/v1/completions", {"model": "a", "prompt": "hi", "stream": True}),
    "responses": ("/v1/responses", {"model": "a", "input": "hi", "stream": True}),
    "anthropic": ("/v1/messages", {**CHAT, "max_tokens": 9, "stream": True}),
    "oip": ("/v2/models/a/generate_stream", {"text_input": "hi"}),
    "native": ("/api/v1/generate", {"model": "a", "prompt": "hi", "stream": True}),
}
"""A request for a stream on each wire: its path and its body."""


def cold(**settings: Any) -> FakeEngine:
    """Make an engine whose start takes long."""
    return FakeEngine([Text("yes"), Usage(3, 1), Finish("stop")], start_s=START_S, **settings)


class Broken(FakeEngine):
    """An engine whose starts fail with what its process said."""

    def __init__(self, start_s: float, said: str) -> None:
        super().__init__(start_s=start_s)
        self.said = said

    async def start(self) -> Any:
        """Fail after a time."""
        await asyncio.sleep(self.start_s)
        raise StartFailed(self.said)


def front(built: House) -> Front:
    """Make a front of every wire that streams events."""
    oip = OipSurface(Catalog(built.pools, dict.fromkeys(built.pools, Task.CHAT), {}, cached=True).find)
    surfaces = (OpenAISurface(), ResponsesSurface(), AnthropicSurface(), oip, NativeSurface())
    return Front(surfaces, {}, built.pipeline, Gatekeeper([]), built.telemetry)


def learned(built: House, *seconds: float, model: str = "a") -> None:
    """Have a model known by the starts that it took."""
    for each in seconds:
        built.pools[model].costs.learn_start(each)


async def ask(built: House, path: str, body: dict[str, Any], **headers: str) -> Reply:
    """Send a request, with headers whose names have a `-` for each `_`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await front(built).serve(Call("POST", path, named, json.dumps(body).encode(), "127.0.0.1"))


async def read(reply: Reply) -> bytes:
    """Read a reply's body to its end."""
    if isinstance(reply.body, bytes):
        return reply.body
    return b"".join([chunk async for chunk in reply.body])


@pytest.mark.parametrize("wire", STREAMS)
def test_a_stream_that_waits_is_told_so_on_every_wire(wire):
    """Comments come first, and what follows is what a client gets that meets a warm model."""

    async def main() -> None:
        async with house({"a": cold()}) as built:
            learned(built, START_S)
            waited = await ask(built, *STREAMS[wire], **FRESH)
            told = await read(waited)
            warm = await read(await ask(built, *STREAMS[wire], **FRESH))

        comments = [line for line in told.split(b"\n") if line.startswith(b":")]
        assert waited.status == 200
        assert waited.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert len(comments) == math.ceil((START_S - 2.0) / 5.0)
        assert comments[0].startswith(b": starting a, about 1")
        assert not [line for line in warm.split(b"\n") if line.startswith(b":")]
        assert len(SseParser().feed(told)) == len(SseParser().feed(warm)) > 0
        assert b"starting" not in b"".join(SseParser().feed(told))

    run_virtual(main())


@pytest.mark.parametrize("wire", STREAMS)
def test_a_start_that_fails_shows_the_last_lines_on_every_wire(wire):
    """Soon it is a 503 in the wire's shape, late the wire's error event, both with what the server printed."""

    async def main() -> None:
        said = "exited with status 3; its last lines:\nCUDA error: out of memory"
        for start_s in (0.5, START_S):
            async with house({"a": Broken(start_s, said)}) as built:
                reply = await ask(built, *STREAMS[wire])
                told = await read(reply)
            refused = 529 if wire == "anthropic" else 503  # which is that wire's word for what may pass
            assert reply.status == (refused if start_s < 2 else 200)
            assert b"CUDA error: out of memory" in told

    run_virtual(main())


def test_the_head_of_a_stream_that_waits_tells_what_is_known():
    """What its caches did, its id and its limits; the times and the tag of an answer are not known before it begins."""

    async def main() -> None:
        key = Key("k", hashlib.sha256(b"abc").hexdigest(), limits=Limits(requests_per_minute=9))
        async with house({"a": cold()}) as built:
            learned(built, START_S)
            served = Front((OpenAISurface(),), {}, built.pipeline, Gatekeeper([key]), built.telemetry)
            path, body = STREAMS["openai"]
            call = Call("POST", path, {"x-api-key": "abc"}, json.dumps(body).encode(), "127.0.0.1")
            waited = await served.serve(call)
            await read(waited)

        assert waited.headers["Cache-Status"] == "warmgate; fwd=miss"
        assert len(waited.headers["X-Request-Id"]) == 24
        assert waited.headers["x-ratelimit-limit-requests"] == "9"
        assert waited.headers["x-ratelimit-remaining-requests"] == "8"
        assert not {"Server-Timing", "ETag", "Cache-Control"} & waited.headers.keys()

    run_virtual(main())


def test_who_would_not_wait_is_told_when_to_come_again():
    """`Prefer: wait` gets a 503 at once with the learned estimate, and the model is up when its client comes again."""

    async def main() -> None:
        async with house({"a": cold()}) as built:
            learned(built, START_S)
            sent_away = await ask(built, "/v1/chat/completions", CHAT, prefer="wait=5")
            error = json.loads(await read(sent_away))["error"]
            again_s = int(sent_away.headers["Retry-After"])
            await asyncio.sleep(again_s)
            again = await ask(built, "/v1/chat/completions", CHAT, prefer="wait=5")
            metrics = built.telemetry.exposition()

        assert (sent_away.status, error["code"]) == (503, "model_starting")
        assert sent_away.headers["Preference-Applied"] == "wait=5"
        assert sent_away.headers["x-should-retry"] == "true"
        assert START_S <= again_s <= START_S * 1.2 + 1
        assert again.status == 200
        assert b'warmgate_pool_sent_away_total{model="a"} 1.0' in metrics

    run_virtual(main())


def test_who_would_wait_for_long_enough_waits():
    """A patience beyond what is expected is none of a refusal's, nor is any for a model that is up."""

    async def main() -> None:
        async with house({"a": cold()}) as built:
            learned(built, START_S)
            waited = await ask(built, "/v1/chat/completions", CHAT, prefer="wait=15", **FRESH)
            warm = await ask(built, "/v1/chat/completions", CHAT, prefer="wait=0", **FRESH)

        assert (waited.status, warm.status) == (200, 200)

    run_virtual(main())


def test_the_operator_bounds_the_wait_for_a_start_where_the_client_says_nothing():
    """`start_wait` sends away at once, and what the client prefers goes before it."""

    async def main() -> None:
        async with house({"a": cold()}) as built:
            learned(built, START_S)
            built.pools["a"].limits = dataclasses.replace(built.pools["a"].limits, start_wait_s=3.0)
            sent_away = await ask(built, "/v1/chat/completions", CHAT)
            waited = await ask(built, "/v1/chat/completions", CHAT, prefer="wait=60")

        assert (sent_away.status, waited.status) == (503, 200)
        assert "Preference-Applied" not in sent_away.headers
        assert b"start_wait" in await read(sent_away)

    run_virtual(main())


def test_a_stale_answer_is_served_in_place_of_being_sent_away():
    """Who accepts a stale answer where models fail gets it, and the model comes up meanwhile."""

    async def main() -> None:
        async with house({"a": cold()}) as built:
            built.max_stale_s = 600.0
            built.pipeline = built.build()
            await read(await ask(built, "/v1/chat/completions", CHAT))
            built.pools["a"].fleet.stop("a-1")
            built.wall.advance(100.0)
            await asyncio.sleep(1.0)
            learned(built, START_S)
            served = await ask(built, "/v1/chat/completions", CHAT, prefer="wait=1", cache_control="stale-if-error=600")

        assert served.status == 200
        assert "fwd-status=503" in served.headers["Cache-Status"]

    run_virtual(main())


ROUTE = Route("route", ("a",), fallback=("b",))


@pytest.mark.parametrize(("prefer", "answered_by"), [(None, "a"), ("exact", "a"), ("fastest", "b")])
def test_who_prefers_the_fastest_is_answered_by_a_fallback_that_is_up(prefer, answered_by):
    """Without a word, and with `exact`, the model that was asked for is waited for."""

    async def main() -> None:
        async with house({"a": cold(), "b": FakeEngine()}, {"route": ROUTE}) as built:
            learned(built, START_S)
            await built.get(chat(model="b"))
            said = {} if prefer is None else {"x_warmgate_prefer": prefer}
            reply = await ask(built, "/v1/chat/completions", {**CHAT, "model": "route"}, **said, **FRESH)

        assert json.loads(await read(reply))["model"] == answered_by

    run_virtual(main())


def test_exact_is_not_answered_by_a_fallback():
    """Neither by one that steps in nor by what one answered before: a failed start is an error."""

    async def main() -> None:
        async with house({"a": FakeEngine(failures=99), "b": FakeEngine()}, {"route": ROUTE}) as built:
            body = {**CHAT, "model": "route"}
            by_fallback = await ask(built, "/v1/chat/completions", body)
            again = await ask(built, "/v1/chat/completions", body)
            exact = await ask(built, "/v1/chat/completions", body, x_warmgate_prefer="exact")

        assert (by_fallback.status, exact.status) == (200, 503)
        assert "hit" in again.headers["Cache-Status"]

    run_virtual(main())


def test_an_unknown_preference_is_refused_by_name():
    """The refusal says what is allowed."""

    async def main() -> None:
        async with house({"a": FakeEngine()}) as built:
            refused = await ask(built, "/v1/chat/completions", CHAT, x_warmgate_prefer="cheapest")

        assert refused.status == 400
        assert b"fastest, exact" in await read(refused)

    run_virtual(main())


def test_a_client_that_has_no_patience_falls_back():
    """Where the model that was asked for is too far, a fallback that is up answers before anybody is sent away."""

    async def main() -> None:
        async with house({"a": cold(), "b": FakeEngine()}, {"route": ROUTE}) as built:
            learned(built, START_S)
            await built.get(chat(model="b"))
            reply = await ask(built, "/v1/chat/completions", {**CHAT, "model": "route"}, prefer="wait=2", **FRESH)

        assert json.loads(await read(reply))["model"] == "b"

    run_virtual(main())


def test_the_reply_tells_what_was_granted_of_the_next_model():
    """A declared next model is started, and its header says for how long."""

    async def main() -> None:
        async with house({"a": FakeEngine()}) as built:
            served = front(built)
            served.on_next = lambda name, _: f"{name}; for=75"
            call = Call("POST", "/v1/chat/completions", {"x-warmgate-next": "b"}, json.dumps(CHAT).encode(), None)
            reply = await served.serve(call)

        assert reply.headers["X-Warmgate-Next"] == "b; for=75"

    run_virtual(main())


def test_a_deadline_ends_the_wait_of_a_stream_too():
    """A request that has less time than the start is told so in its stream."""

    async def main() -> None:
        async with house({"a": cold()}) as built:
            reply = await ask(built, *STREAMS["openai"], x_request_timeout="6")
            told = await read(reply)

        assert reply.status == 200
        assert b"deadline_exceeded" in told

    run_virtual(main())


def test_an_explanation_has_the_quantiles_of_each_candidate():
    """What is expected of a model goes by what its starts took."""

    async def main() -> None:
        async with house({"a": cold(), "b": FakeEngine()}, {"route": ROUTE}) as built:
            learned(built, 10.0, 10.0, 10.0, 10.0, 40.0)
            request = chat(model="route")
            features = analyze(request, Caller(""), Directives(), ROUTE.policy, 1e9)
            first, second = built.pipeline.runner.plan(ROUTE, features, ROUTE.candidates)

        assert (first.model, second.model) == ("a", "b")
        assert first.wait.p50_s == pytest.approx(10.0, rel=0.06)
        assert first.wait.p90_s == pytest.approx(40.0, rel=0.06)
        assert built.pools["a"].snapshot(0.0).cost_at(Level.ABSENT) is not None

    run_virtual(main())
