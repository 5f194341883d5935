"""Requests that go to an upstream in their client's own words, and replies that come back as they were."""

from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import orjson
import pytest
from aiohttp import web

from backends.contract import (
    BadJob,
    Event,
    Finish,
    Frame,
    Job,
    Logprobs,
    Made,
    Message,
    Reasoning,
    Refusal,
    Task,
    Text,
    ToolCall,
    UpstreamFailed,
    Usage,
    Verbatim,
)
from backends.upstream import HttpBackend
from backends.upstream_wire import OpenAIWire
from tests.upstream_house import collect, upstream

WIRE = OpenAIWire()
CHAT = "/chat/completions"


class Recorder:
    """A server that answers every POST with the same bytes, and keeps what it was sent."""

    def __init__(
        self,
        reply: bytes,
        content_type: str = "application/json",
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.reply = reply
        self.headers = {"Content-Type": content_type, **(headers or {})}
        self.status = status
        self.bodies: list[bytes] = []
        self.seen: list[web.Request] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer."""
        self.bodies.append(await request.read())
        self.seen.append(request)
        response = web.StreamResponse(status=self.status, headers=self.headers)
        await response.prepare(request)
        for start in range(0, len(self.reply), 11):
            await response.write(self.reply[start : start + 11])
        return response

    def backend(self, model: str = "theirs") -> AbstractAsyncContextManager[HttpBackend]:
        """Serve, and give a backend over it."""
        app = web.Application()
        app.router.add_post("/v1/{path:.*}", self.answer)
        return upstream(app, model, "sk")


def split(told: list[Made]) -> tuple[bytes, list[Event]]:
    """Part the bytes from the events that they say."""
    data, said = b"", list[Event]()
    for made in told:
        if isinstance(made, tuple):
            data += made[0]
            said += [Text(made[1])] if made[1] else []
        elif isinstance(made, Frame):
            data += made.data
        else:
            said.append(made)
    return data, said


def asked(body: bytes, *, streamed: bool = False) -> Job:
    """Make a chat job that came over OpenAI's wire."""
    verbatim = Verbatim("openai", CHAT, body, headers={"X-Wire": "1"}, streamed=streamed)
    return Job(Task.CHAT, messages=(Message("user", "hi"),), verbatim=verbatim, stream=streamed)


BODY = b'{ "model":"theirs", "seed": 123456789012345678901, "odd_field": [1.0, null],\t"messages":[] }'
ANSWER = (
    b'{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1},'
    b'"completion_tokens_details":{"reasoning_tokens":2}}, "service_tier" : "odd" }\n'
)


async def test_a_request_and_its_reply_pass_byte_for_byte():
    """The upstream gets the client's bytes, the client gets the upstream's; the events say the same."""
    recorder = Recorder(ANSWER)
    async with recorder.backend() as backend:
        events = await collect(backend, asked(BODY))
    assert recorder.bodies == [BODY]
    assert recorder.seen[0].headers["X-Wire"] == "1"
    assert recorder.seen[0].headers["Authorization"] == "Bearer sk"
    assert events[0] == Frame(ANSWER, "openai /chat/completions", "application/json")
    assert split(events) == (ANSWER, [Text("hello"), Usage(1, 2, 1, 2), Finish("stop")])


async def test_only_the_models_name_changes_where_it_must():
    """The upstream calls the model something else."""
    recorder = Recorder(ANSWER)
    async with recorder.backend("other") as backend:
        await collect(backend, asked(BODY))
    assert recorder.bodies == [BODY.replace(b"theirs", b"other")]


STREAM = (
    b": hello\r\n\r\n"
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","reasoning_content":"hm"}}]}\n\n'
    b"event: x\nid: 7\n"
    b'data: {"choices":[{"index":1,"delta":{"content":"b"},"logprobs":{"content":[{"token":"b"}]}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],"odd":1}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function",'
    b'"function":{"name":"f","arguments":""}}]}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}\n\n'
    b'data: {"choices":[{"index":1,"delta":{"refusal":"no"},"finish_reason":"content_filter"}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\n'
    b"data: [DONE]\n\n: bye\n"
)


async def test_a_stream_passes_byte_for_byte_and_its_events_are_told():
    """Reasoning, texts, log probabilities, tool calls, refusals, and the end of both choices."""
    recorder = Recorder(STREAM, "text/event-stream; charset=utf-8")
    async with recorder.backend() as backend:
        events = await collect(backend, asked(BODY, streamed=True))
    data, said = split(events)
    assert data == STREAM
    assert isinstance(events[0], Frame)
    assert (events[0].kind, events[0].content_type) == (
        "openai /chat/completions stream",
        "text/event-stream; charset=utf-8",
    )
    assert said == [
        Reasoning("hm"),
        Text("b", 1),
        Logprobs(({"token": "b"},), 1),
        Text("a"),
        ToolCall(0, "c1", "f"),
        ToolCall(0, arguments="{}"),
        Refusal("no", 1),
        Finish("tool_calls", 0),
        Finish("content_filter", 1),
    ]


@pytest.mark.parametrize("message", [{"function_call": {"name": "f"}}, {"audio": {}, "images": [1]}])
async def test_what_events_cannot_tell_passes_and_counts_as_incomplete(message):
    """The client of the same wire gets it; no cache may keep it, since there is no `Finish`."""
    body = orjson.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})
    async with Recorder(body).backend() as backend:
        assert split(await collect(backend, asked(BODY))) == (body, [])


async def test_a_job_of_another_wire_is_put_into_openais_words():
    """Messages keep their other fields, extra fields go on, and the stream is asked to tell its usage."""
    tool = {"type": "function", "function": {"name": "f"}}
    job = Job(
        Task.CHAT,
        messages=(
            Message("user", "ab", {"content": [{"type": "text", "text": "ab"}]}),
            Message("tool", "r", {"tool_call_id": "c"}),
        ),
        extra={"tools": [tool], "max_completion_tokens": 3, "stream_options": {"x": 1}},
        verbatim=Verbatim("anthropic", "/messages", b"{}"),
        stream=True,
    )
    async with Recorder(STREAM, "text/event-stream").backend() as backend:
        events = await collect(backend, job)
    assert not any(isinstance(event, Frame) for event in events)
    assert orjson.loads(WIRE.request_of(job, "m").body) == {
        "model": "m",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "ab"}]},
            {"role": "tool", "content": "r", "tool_call_id": "c"},
        ],
        "tools": [tool],
        "max_completion_tokens": 3,
        "stream": True,
        "stream_options": {"x": 1, "include_usage": True},
    }


def test_a_completions_log_probabilities_take_the_shape_of_chats():
    """Columns become rows."""
    logprobs = {"tokens": ["a", "é"], "token_logprobs": [None, -1.5], "top_logprobs": [None, {"e": -2.0}]}
    body = orjson.dumps({"choices": [{"text": "aé", "logprobs": logprobs, "finish_reason": "length"}]})
    assert WIRE.answer_events(Job(Task.COMPLETION, prompt="x"), body)[1] == Logprobs(
        (
            {"token": "a", "logprob": None, "bytes": [97], "top_logprobs": []},
            {
                "token": "é",
                "logprob": -1.5,
                "bytes": [195, 169],
                "top_logprobs": [{"token": "e", "logprob": -2.0, "bytes": [101]}],
            },
        )
    )


def test_a_content_of_parts_is_joined():
    """Some servers answer with a list of parts."""
    message = {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    body = orjson.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert WIRE.answer_events(Job(Task.CHAT), body) == [Text("ab"), Finish("stop")]


FORM = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nours\r\n--b\r\n\r\n\x00\xff\r\n--b--\r\n'


@pytest.mark.parametrize("reply", [b"\x00\x01" * 40, b""])
async def test_a_relay_passes_both_ways_unread(reply):
    """The path, the form and its type go on, only its model renamed; the reply comes back as it is, with its type."""
    verbatim = Verbatim("openai", "/audio/transcriptions", FORM, 'multipart/form-data; boundary="b"')
    recorder = Recorder(reply, "audio/mpeg")
    async with recorder.backend() as backend:
        events = await collect(backend, Job(Task.RELAY, verbatim=verbatim))
    assert isinstance(events[0], Frame)
    assert (events[0].kind, events[0].content_type) == ("openai /audio/transcriptions", "audio/mpeg")
    assert split(events) == (reply, [Finish("stop")])
    assert recorder.bodies == [FORM.replace(b"ours", b"theirs")]
    assert recorder.seen[0].path == "/v1/audio/transcriptions"
    assert recorder.seen[0].headers["Content-Type"] == 'multipart/form-data; boundary="b"'


async def test_a_relay_of_another_wire_is_refused():
    """There is nothing to put it into."""
    async with Recorder(b"").backend() as backend:
        with pytest.raises(BadJob, match="does not relay"):
            await collect(backend, Job(Task.RELAY, verbatim=Verbatim("anthropic", "/x", b"")))


async def test_a_refusal_keeps_the_upstreams_words():
    """Status, type, code and field are the upstream's."""
    error = {"message": "no", "type": "odd_error", "param": "tools", "code": "odd_code"}
    async with Recorder(orjson.dumps({"error": error}), status=422).backend() as backend:
        with pytest.raises(BadJob, match="no") as refused:
            await collect(backend, asked(BODY))
    assert (refused.value.status, refused.value.kind, refused.value.code, refused.value.param) == (
        422,
        "odd_error",
        "odd_code",
        "tools",
    )


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_an_upstream_that_is_busy_says_how_long(status):
    """Milliseconds count before seconds."""
    recorder = Recorder(b"{}", status=status, headers={"Retry-After-Ms": "250", "Retry-After": "9"})
    async with recorder.backend() as backend:
        with pytest.raises(UpstreamFailed) as refused:
            await collect(backend, asked(BODY))
    assert (refused.value.status, refused.value.retry_after_s) == (status, 0.25)


async def test_a_header_that_cannot_be_sent_is_the_clients_fault():
    """Nothing goes out."""
    recorder = Recorder(ANSWER)
    job = asked(BODY)
    assert job.verbatim is not None
    bad = replace(job, verbatim=replace(job.verbatim, headers={"X-Wire": "a\r\nX: b"}))
    async with recorder.backend() as backend:
        with pytest.raises(BadJob):
            await collect(backend, bad)
    assert recorder.seen == []
