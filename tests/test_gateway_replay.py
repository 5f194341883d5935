"""What a cache tells again is what was told live, on every surface and in both forms, but for the reply's own id."""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.contract import (
    Event,
    Finish,
    Frame,
    Job,
    Logprobs,
    Made,
    Reasoning,
    Scores,
    Task,
    Tensor,
    Tensors,
    Text,
    ToolCall,
    UpstreamFailed,
    Usage,
    Vectors,
)
from backends.sse import SseParser
from gateway.callers.auth import Gatekeeper
from gateway.catalog import Catalog
from gateway.front import Front
from gateway.surfaces.anthropic import AnthropicSurface
from gateway.surfaces.native import NativeSurface
from gateway.surfaces.oip.surface import OipSurface
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.responses import ResponsesSurface
from gateway.surfaces.wire import Call, Reply
from tests.fakes import FakeBackend, FakeEngine, run_virtual
from tests.oip_house import simple
from tests.test_gateway_pipeline import House, house

UPSTREAM_ID = "up-17"
MESSAGES = [{"role": "user", "content": "hi"}]
FUNCTION = {"name": "f", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": FUNCTION}]
RESPONSE_TOOLS = [{"type": "function", **FUNCTION}]
MESSAGE_TOOLS = [{"name": "f", "input_schema": {"type": "object"}}]
INPUTS = [{"name": name, "datatype": "INT32", "shape": [1, 16], "data": [*range(16)]} for name in ("INPUT0", "INPUT1")]

SPOKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "tools": TOOLS}),
    "chat, streamed": ("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "tools": TOOLS, "stream": True}),
    "chat with log probabilities": (
        "/v1/chat/completions",
        {"model": "m", "messages": MESSAGES, "tools": TOOLS, "stream": True, "logprobs": True,
         "stream_options": {"include_usage": True}},
    ),
    "completion": ("/v1/completions", {"model": "m", "prompt": "hi", "tools": TOOLS}),
    "completion, streamed": ("/v1/completions", {"model": "m", "prompt": "hi", "tools": TOOLS, "stream": True}),
    "response": ("/v1/responses", {"model": "m", "input": "hi", "tools": RESPONSE_TOOLS}),
    "response, streamed": ("/v1/responses", {"model": "m", "input": "hi", "tools": RESPONSE_TOOLS, "stream": True}),
    "message": ("/v1/messages", {"model": "m", "messages": MESSAGES, "max_tokens": 9, "tools": MESSAGE_TOOLS}),
    "message, streamed": (
        "/v1/messages",
        {"model": "m", "messages": MESSAGES, "max_tokens": 9, "tools": MESSAGE_TOOLS, "stream": True},
    ),
}  # fmt: skip
TEXTS_ALONE: dict[str, tuple[str, dict[str, Any]]] = {
    "native, streamed": ("/api/v1/generate", {"model": "m", "prompt": "hi", "stream": True}),
    "native": ("/api/v1/generate", {"model": "m", "prompt": "hi", "stream": False}),
    "generate": ("/v2/models/m/generate", {"text_input": "hi"}),
    "generate_stream": ("/v2/models/m/generate_stream", {"text_input": "hi"}),
}
FUNCTIONS: dict[str, tuple[str, dict[str, Any], Task, Event]] = {
    "embeddings": (
        "/v1/embeddings", {"model": "m", "input": "hi"}, Task.EMBED, Vectors(b"\x00\x00\x80?" * 2, (1, 2)),
    ),
    "embeddings in base64": (
        "/v1/embeddings", {"model": "m", "input": "hi", "encoding_format": "base64"}, Task.EMBED,
        Vectors(b"\x00\x00\x80?" * 2, (1, 2)),
    ),
    "native embeddings": (
        "/api/v1/embed", {"model": "m", "inputs": ["hi"]}, Task.EMBED, Vectors(b"\x00\x00\x80?" * 2, (1, 2)),
    ),
    "prediction": (
        "/api/v1/predict", {"model": "m", "input": "hi"}, Task.PREDICT,
        Scores(b"\x00\x00\x80>\x00\x00@?", (1, 2), ("no", "yes")),
    ),
    "infer": (
        "/v2/models/sums/infer", {"inputs": INPUTS}, Task.INFER,
        Tensors((Tensor("OUTPUT0", "INT32", (1, 16), b"\x01\x00\x00\x00" * 16),)),
    ),
}  # fmt: skip


class Upstream(FakeBackend):
    """Answers in bytes where its client may have them, as an upstream of the client's own wire does."""

    in_bytes = True

    async def stream(self, job: Job) -> AsyncGenerator[Made, None]:  # type: ignore[override]
        """Yield each event after a piece that stands for it; texts in the piece itself."""
        self.jobs.append(job)
        kind = job.verbatim.kind if job.verbatim is not None and self.in_bytes else None
        if kind is not None:
            yield Frame(b'{"id" : "%s"' % UPSTREAM_ID.encode(), kind, "application/x-odd")
        for number, event in enumerate(self.script):
            plain = type(event) is Text and event.index == 0
            if kind is not None:
                yield b',"%d":"\xc3\xbc\\u00fc"' % number, event.text if isinstance(event, Text) and plain else ""
            if kind is None or not plain:
                yield event  # type: ignore[misc]
        if kind is not None:
            yield b"}\n", ""


class ByteLess(Upstream):
    """Answers in events alone, as a worker of ours does, or an upstream of another wire."""

    in_bytes = False


class Engine(FakeEngine):
    """Makes backends of one kind."""

    def __init__(self, kind: type[Upstream], script: Sequence[Event]) -> None:
        super().__init__(script)
        self.kind = kind

    async def start(self) -> FakeBackend:
        """Return a backend at once."""
        backend = self.kind(self.script)
        self.backends.append(backend)
        return backend


def front_of(built: House, task: Task) -> Front:
    """Make a front of all surfaces that have a cache's part in them."""
    tasks = {"m": task, "sums": Task.INFER}
    catalog = Catalog(built.pools, tasks, {}, cached=True, clock=built.keeper._clock)
    surfaces = (
        OpenAISurface(), ResponsesSurface(), AnthropicSurface(), OipSurface(catalog.find), NativeSurface(),
    )  # fmt: skip
    return Front(surfaces, {}, built.pipeline, Gatekeeper([]), built.telemetry)


async def read(reply: Reply) -> bytes:
    """Return a reply's whole body."""
    if isinstance(reply.body, bytes):
        return reply.body
    chunks: AsyncIterator[bytes] = reply.body
    return b"".join([chunk async for chunk in chunks])


def said(reply: Reply, body: bytes) -> str:
    """Return a body without what is a reply's own: its id, and how long it took."""
    text = body.decode().replace(reply.headers["X-Request-Id"], UPSTREAM_ID)
    text = re.sub(r"(chatcmpl-|cmpl-|msg_)" + UPSTREAM_ID, UPSTREAM_ID, text)
    return re.sub(r'"latency_ms":[\d.e-]+', "", text)


async def both(asked: tuple[str, dict[str, Any]], engine: FakeEngine, task: Task) -> tuple[str, str, Any]:
    """Ask twice; return what was said live, what was said again, and the body of that."""
    path, body = asked
    sent = json.dumps(body).encode()
    async with house({"m": engine, "sums": simple()}) as built:
        front = front_of(built, task)
        live = await front.serve(Call("POST", path, {}, sent, "127.0.0.1"))
        first = await read(live)
        again = await front.serve(Call("POST", path, {}, sent, "127.0.0.1"))
        second = await read(again)
    assert (live.status, again.status) == (200, 200), first
    assert "hit" not in live.headers["Cache-Status"]
    assert "hit" in again.headers["Cache-Status"], first
    assert live.headers["Content-Type"] == again.headers["Content-Type"]
    return said(live, first), said(again, second), second


# A signature closes a thought; the text of a scored piece comes before its log probabilities.
WORDS = st.text(min_size=1, max_size=9)
PIECES = st.one_of(
    WORDS.map(lambda text: (Text(text),)),
    WORDS.map(lambda text: (Reasoning(text),)),
    WORDS.map(
        lambda text: (Text(text), Logprobs(({"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": []},)))
    ),
)
CALLS = st.lists(st.lists(WORDS, max_size=2).map(lambda words: json.dumps({"words": words})), max_size=2)


@st.composite
def answers(draw: st.DrawFn) -> tuple[Event, ...]:
    """Draw an answer that may be stored: thoughts and texts, perhaps calls of the tool in pieces, usage, the reason."""
    events: list[Event] = [event for piece in draw(st.lists(PIECES, max_size=5)) for event in piece]
    calls = draw(CALLS)
    for place, arguments in enumerate(calls):
        events += [ToolCall(place, f"call_{place}", "f", arguments[:3]), ToolCall(place, arguments=arguments[3:])]
    if draw(st.booleans()):
        events.append(Usage(draw(st.integers(5, 9)), draw(st.integers(0, 9)), 2, 1))
    return (*events, Finish("tool_calls" if calls else "stop"))


@pytest.mark.parametrize("kind", [Upstream, ByteLess])
@pytest.mark.parametrize("name", SPOKEN)
@settings(max_examples=15, deadline=None)
@given(events=answers())
def test_a_replay_says_what_was_said_live(name, kind, events):
    """Thoughts, texts in their pieces, calls, log probabilities, usage and reason; or all of an upstream's bytes."""
    live, again, body = run_virtual(both(SPOKEN[name], Engine(kind, events), Task.CHAT))

    assert again == live
    assert UPSTREAM_ID.encode() not in body


@pytest.mark.parametrize("name", TEXTS_ALONE)
@settings(max_examples=15, deadline=None)
@given(texts=st.lists(WORDS, max_size=5))
def test_a_text_is_told_again_piece_by_piece(name, texts):
    """So it is on the wires that know texts alone."""
    script = (*map(Text, texts), Usage(3, len(texts)), Finish("stop"))
    live, again, _ = run_virtual(both(TEXTS_ALONE[name], Engine(ByteLess, script), Task.COMPLETION))

    assert again == live


@pytest.mark.parametrize("name", FUNCTIONS)
def test_vectors_and_classes_are_told_again(name):
    """So are the answers of functions."""
    path, body, task, event = FUNCTIONS[name]
    live, again, _ = run_virtual(both((path, body), Engine(ByteLess, (event, Usage(3), Finish("stop"))), task))

    assert again == live


class Cut(Upstream):
    """Breaks off in the midst of an event."""

    async def stream(self, job: Job) -> AsyncGenerator[Made, None]:  # type: ignore[override]
        """Yield one event and a half."""
        assert job.verbatim is not None
        yield Frame(b'data: {"choices": []}\n\n', job.verbatim.kind, "text/event-stream")
        yield b'data: {"choi', ""
        raise UpstreamFailed("it broke off")


@pytest.mark.parametrize("name", ["chat, streamed", "completion, streamed", "message, streamed"])
def test_an_error_after_half_an_event_is_an_event_of_its_own(name):
    """Else it would be the rest of a line that no client can read."""

    async def asked() -> bytes:
        path, body = SPOKEN[name]
        async with house({"m": Engine(Cut, ())}) as built:
            front = front_of(built, Task.CHAT)
            return await read(await front.serve(Call("POST", path, {}, json.dumps(body).encode(), "127.0.0.1")))

    whole, half, error, rest = run_virtual(asked()).split(b"\n\n")
    assert (whole, half, rest) == (b'data: {"choices": []}', b'data: {"choi', b"")
    assert b"it broke off" in SseParser().feed(error + b"\n\n")[0]
