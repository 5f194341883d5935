"""Counting the tokens of a request: by Anthropic for its own models, by guess for all others."""

import json

from backends.contract import Finish, Frame, UpstreamFailed
from gateway.callers.auth import Gatekeeper
from gateway.counting.telemetry import Telemetry
from gateway.front import Front
from gateway.pages.token_counts import TokenCounts
from gateway.routes import Route, Routes
from gateway.surfaces.anthropic import AnthropicSurface
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.wire import Call, Reply
from tests.fakes import FakeEngine
from tests.test_gateway_pipeline import House, house, virtual

PATH = "/v1/messages/count_tokens"
KIND = "anthropic /messages/count_tokens"
COUNTED = (Frame(b'{"input_tokens": 1234}', KIND, "application/json"), Finish("stop"))


async def count(built: House, model: str, peer: str = "127.0.0.1", **fields: object) -> Reply:
    """Ask for a count; `claude` is Anthropic's own."""
    body = {"model": model, "messages": [{"role": "user", "content": "x" * 400}], **fields}
    counts = TokenCounts(Routes(built.routes), built.pipeline, Gatekeeper([]), ["claude"])
    pages, surfaces = {("POST", PATH): counts.page}, (OpenAISurface(), AnthropicSurface())
    front = Front(surfaces, pages, built.pipeline, Gatekeeper([]), Telemetry())
    return await front.serve(Call("POST", PATH, {}, json.dumps(body).encode(), peer))


def told(reply: Reply) -> dict[str, object]:
    """Read a reply."""
    assert isinstance(reply.body, bytes)
    value: dict[str, object] = json.loads(reply.body)
    return value


@virtual
async def test_a_guess_starts_no_model():
    """A model that is not Anthropic's is neither asked nor started; its tools are counted, the limit is not needed."""
    async with house({"a": FakeEngine()}) as built:
        plain = await count(built, "a")
        with_tools = await count(built, "a", tools=[{"name": "f", "input_schema": {"type": "object"}}], system="Be.")

        assert built.engines["a"].starts == 0
    assert (plain.status, told(plain)) == (200, {"input_tokens": 101})
    assert int(str(told(with_tools)["input_tokens"])) > 110


@virtual
async def test_anthropic_counts_for_its_own():
    """The request goes on as it came, also under the name of a route; a route of several kinds is guessed."""
    routes = {"own": Route("own", ("claude",)), "mixed": Route("mixed", ("claude", "a"))}
    async with house({"a": FakeEngine(), "claude": FakeEngine(COUNTED)}, routes) as built:
        replies = [await count(built, model) for model in ("claude", "own", "mixed")]

        jobs = built.engines["claude"].backends[0].jobs
    assert [told(reply)["input_tokens"] for reply in replies] == [1234, 1234, 101]
    assert [job.verbatim.kind for job in jobs if job.verbatim] == [KIND, KIND]


@virtual
async def test_refusals_have_anthropic_s_shape():
    """Whatever cannot be counted is told in the wire's own words."""
    async with house({"a": FakeEngine(), "claude": FakeEngine((UpstreamFailed("busy", 529, 6.5),))}) as built:
        replies = [
            await count(built, "nobody"),
            await count(built, "a", peer="10.0.0.9"),
            await count(built, "a", messages=[]),
            await count(built, "claude"),
        ]

    kinds = ["not_found_error", "permission_error", "invalid_request_error", "overloaded_error"]
    assert [reply.status for reply in replies] == [404, 403, 400, 529]
    assert [told(reply)["error"]["type"] for reply in replies] == kinds  # type: ignore[index]
    assert (replies[-1].headers["x-should-retry"], replies[-1].headers["Retry-After"]) == ("true", "7")
    assert [told(reply)["request_id"] for reply in replies] == [reply.headers["request-id"] for reply in replies]
