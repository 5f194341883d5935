"""The official `anthropic` client against the running program: real models, and an upstream of Anthropic's wire."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import Message, MessageParam, ToolParam

from backends.command import free_port
from scripts.replay import outcome_of
from scripts.running_gateway import ROOT, RunningGateway
from tests.anthropic_server import RECORDED_STREAM, RECORDED_WHOLE, SIGNATURE
from tests.e2e.program import ATLAS, SERVER, call, needs, serving, until

PARIS = "The capital of France is Paris."
WEATHER: ToolParam = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}
CLOCK: ToolParam = {"name": "clock", "input_schema": {"type": "object"}}
FUNCTION: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": WEATHER["input_schema"]},
}


@contextmanager
def anthropic_upstream() -> Iterator[str]:
    """Run the small server of Anthropic's API; yield its base URL."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(ROOT / "tests/anthropic_server.py"), "--port", str(port)])
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        try:
            return call(url, "GET", "/seen").status == 200
        except OSError:
            return False

    try:
        until(is_up, "the upstream listens")
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    """Run one upstream for the module."""
    with anthropic_upstream() as url:
        yield url


@pytest.fixture(scope="module")
def house(upstream: str) -> Iterator[RunningGateway]:
    """Serve atlas, a server of OpenAI's wire, an upstream of Anthropic's, and one that nobody listens at."""
    needs("atlas")
    echo = f'  echo: {{task: chat, command: {{run: "{SERVER}", concurrency: 2}}, pool: {{max: 1, queue: 1}}}}'
    claude = f"  claude: {{task: chat, http: {{url: {upstream}/v1, api: anthropic, key: sk-ours, model: claude-x}}}}"
    broken = f'  broken: {{task: chat, command: {{run: "{SERVER} --fail"}}, pool: {{max: 1}}}}'
    with serving(ATLAS, echo, claude, broken, server="max_body: 64KiB") as running:
        yield running


@pytest.fixture(scope="module")
def client(house: RunningGateway) -> Iterator[anthropic.Anthropic]:
    """Yield the official client, which retries nothing here."""
    with anthropic.Anthropic(base_url=house.url, api_key="none needed", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def openai_client(house: RunningGateway) -> Iterator[openai.OpenAI]:
    """Yield OpenAI's client over the same gateway."""
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key="none needed", max_retries=0) as made:
        yield made


def asked(text: str) -> list[MessageParam]:
    """Make a conversation of one question."""
    return [{"role": "user", "content": text}]


def text_of(message: Message) -> str:
    """Join the text of a message."""
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_real_model_answers_the_same_streamed_and_whole(client: anthropic.Anthropic) -> None:
    """A stream's text is the whole message's text, for a question that is asked anew each time."""
    ask: Any = {"model": "atlas", "max_tokens": 60, "messages": asked("What is the capital of France?")}
    fresh = {"Cache-Control": "no-store"}

    whole = client.messages.create(**ask, extra_headers=fresh)
    with client.messages.stream(**ask, extra_headers=fresh) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()

    assert text_of(whole) == "".join(pieces) == text_of(final) == PARIS
    assert len(pieces) > 1
    assert (final.stop_reason, final.role, final.model) == ("end_turn", "assistant", "atlas")
    assert final.usage.output_tokens == whole.usage.output_tokens > 0
    assert final.usage.input_tokens == whole.usage.input_tokens > 0


def test_one_answer_serves_both_wires(client: anthropic.Anthropic, openai_client: openai.OpenAI) -> None:
    """What was answered over OpenAI's wire is an exact hit over Anthropic's, whole and streamed."""
    said: Any = [{"role": "system", "content": "Be exact."}, {"role": "user", "content": "Describe Norway."}]
    first = openai_client.chat.completions.create(model="atlas", messages=said, max_tokens=300, temperature=0)
    ask: Any = {"model": "atlas", "max_tokens": 300, "messages": asked("Describe Norway."), "system": "Be exact."}
    raw = client.messages.with_raw_response.create(**ask, extra_body={"temperature": 0})
    with client.messages.stream(**ask, extra_body={"temperature": 0}) as stream:
        streamed = stream.get_final_message()

    assert outcome_of(raw.headers["Cache-Status"]) == "exact"
    assert text_of(raw.parse()) == text_of(streamed) == first.choices[0].message.content
    assert raw.parse().stop_reason == streamed.stop_reason == "end_turn"


@pytest.mark.parametrize("model", ["echo", "claude"])
def test_tools_make_their_round(client: anthropic.Anthropic, model: str) -> None:
    """A tool is called, whole and streamed alike; its result goes back, and the model answers with it."""
    ask: Any = {"model": model, "max_tokens": 100, "tools": [WEATHER], "tool_choice": {"type": "auto"}}
    question = asked("use the tool weather")

    whole = client.messages.create(**ask, messages=question)
    with client.messages.stream(**ask, messages=question) as stream:
        events = [event.type for event in stream]
        streamed = stream.get_final_message()

    assert whole.stop_reason == streamed.stop_reason == "tool_use"
    made, again = whole.content[-1], streamed.content[-1]
    assert made.type == again.type == "tool_use"
    assert (made.name, made.input) == (again.name, again.input)
    assert made.name == "weather"
    assert "text" in made.input
    assert "input_json" in events
    result: Any = {"type": "tool_result", "tool_use_id": made.id, "content": "rain in Oslo"}
    answer = client.messages.create(
        **ask,
        messages=[*question, {"role": "assistant", "content": whole.content}, {"role": "user", "content": [result]}],
    )
    assert "rain in Oslo" in text_of(answer)


def test_two_tools_at_once(client: anthropic.Anthropic) -> None:
    """Parallel calls come as blocks of their own, over an upstream of either wire."""
    for model, words in (("claude", "use all tools"), ("echo", "use weather and clock")):
        with client.messages.stream(
            model=model, max_tokens=100, messages=asked(words), tools=[WEATHER, CLOCK]
        ) as stream:
            message = stream.get_final_message()
        assert [block.name for block in message.content if block.type == "tool_use"] == ["weather", "clock"]


def test_thoughts_are_blocks(client: anthropic.Anthropic) -> None:
    """What a model of either wire thought comes before its text, signed where it was."""
    for model, signature in (("claude", SIGNATURE), ("echo", "")):
        with client.messages.stream(model=model, max_tokens=100, messages=asked("think please")) as stream:
            message = stream.get_final_message()
        thought, said = message.content
        assert thought.type == "thinking"
        assert thought.thinking
        assert thought.signature == signature
        assert said.type == "text"


def test_what_ended_an_answer(client: anthropic.Anthropic) -> None:
    """Limits and stop sequences are told as Anthropic does."""
    short = client.messages.create(model="claude", max_tokens=2, messages=asked("one two three"))
    stopped = client.messages.create(
        model="claude", max_tokens=50, messages=asked("one END two"), stop_sequences=["END"]
    )

    assert (short.stop_reason, text_of(short)) == ("max_tokens", "echo: one")
    assert (stopped.stop_reason, stopped.stop_sequence, text_of(stopped)) == ("stop_sequence", "END", "echo: one ")


def test_counting_tokens(client: anthropic.Anthropic) -> None:
    """Anthropic's own models are counted upstream, for others it is a guess."""
    for model in ("claude", "atlas"):
        counted = client.messages.count_tokens(
            model=model, messages=asked("How many tokens are these words?"), system="Be brief.", tools=[WEATHER]
        )
        assert 10 < counted.input_tokens < 100


@pytest.mark.parametrize(
    ("error", "request_", "words"),
    [
        (anthropic.BadRequestError, {"model": "atlas", "max_tokens": -1}, "'max_tokens' must be a whole number"),
        (anthropic.BadRequestError, {"model": "atlas", "tools": [WEATHER]}, "cannot honour 'tools'"),
        (anthropic.BadRequestError, {"model": "atlas", "thinking": {"type": "adaptive"}}, "'thinking'"),
        (anthropic.BadRequestError, {"model": "claude", "extra_body": {"nonsense": 1}}, "Extra inputs"),
        (
            anthropic.BadRequestError,
            {"model": "echo", "tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "no tool 'web_search'",
        ),
        (
            anthropic.BadRequestError,
            {
                "model": "echo",
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}
                ],
            },
            "no parts of the type 'image'",
        ),
        (anthropic.NotFoundError, {"model": "atlantis"}, "there are: atlas"),
        (anthropic.RateLimitError, {"model": "claude", "messages": asked("status-429")}, "told to refuse with 429"),
        (anthropic.OverloadedError, {"model": "claude", "messages": asked("status-529")}, "told to refuse with 529"),
        (anthropic.OverloadedError, {"model": "broken"}, "giving up"),
        (anthropic.ContentTooLargeError, {"model": "atlas", "messages": asked("x" * 70_000)}, "65536"),
        (
            anthropic.InternalServerError,
            {"model": "claude", "messages": asked("status-500")},
            "told to refuse with 500",
        ),
    ],
)
def test_refusals_raise_the_clients_own_errors(
    client: anthropic.Anthropic, error: type[anthropic.APIStatusError], request_: dict[str, Any], words: str
) -> None:
    """What cannot be served raises the class that the client has for it, whole and streamed."""
    ask: dict[str, Any] = {"max_tokens": 9, "messages": asked("Hello"), **request_}

    with pytest.raises(error, match=words):
        client.messages.create(**ask)
    with pytest.raises(error, match=words), client.messages.stream(**ask) as stream:
        stream.until_done()


def test_an_error_in_the_midst_of_a_stream_is_raised(client: anthropic.Anthropic) -> None:
    """What was said before it came; then the client raises what the event tells."""
    for model, kind in (("claude", "overloaded_error"), ("echo", "api_error")):
        pieces: list[str] = []
        with (
            pytest.raises(anthropic.APIStatusError, match=f"{kind}.*told to break"),
            client.messages.stream(model=model, max_tokens=50, messages=asked("please break now")) as stream,
        ):
            pieces.extend(stream.text_stream)
        assert pieces


def test_keys(upstream: str) -> None:
    """The key of a client opens the gateway, in either header, and never reaches the upstream."""
    digest = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    claude = f"  claude: {{task: chat, http: {{url: {upstream}/v1, api: anthropic, key: sk-ours, model: claude-x}}}}"
    with serving(claude, server=f'keys: [{{name: one, sha256: "{digest}"}}]') as running:
        ask: Any = {"model": "claude", "max_tokens": 9, "messages": asked("Hello")}
        with (
            anthropic.Anthropic(base_url=running.url, api_key="wrong", max_retries=0) as wrong,
            pytest.raises(anthropic.AuthenticationError, match="not known here"),
        ):
            wrong.messages.create(**ask)
        with anthropic.Anthropic(base_url=running.url, api_key="one", max_retries=0) as right:
            assert text_of(right.messages.create(**ask)) == "echo: Hello"
            assert text_of(right.messages.create(**ask, extra_headers={"X-Api-Key": "one"})) == "echo: Hello"
        headers = call(upstream, "GET", "/seen").json()["headers"]
        assert headers["x-api-key"] == "sk-ours"
        assert not any(value.endswith("one") for value in headers.values())


@pytest.mark.parametrize("stream", [False, True])
def test_a_recorded_exchange_passes_byte_for_byte(house: RunningGateway, upstream: str, stream: bool) -> None:
    """What the upstream answered is what the client gets, and what it asked is what the upstream got."""
    body = b'{ "model":"claude" , "max_tokens": 64,"messages":[{"role":"user","content":"recorded"}],"stream":%s}'
    sent = body % json.dumps(stream).encode()
    headers = {"anthropic-version": "2026-10-21", "anthropic-beta": "b1", "Content-Type": "application/json"}

    answered = call(house.url, "POST", "/v1/messages?beta=true", sent, **headers)

    assert answered.body == (RECORDED_STREAM if stream else RECORDED_WHOLE)
    assert answered.headers["content-type"].startswith("text/event-stream" if stream else "application/json")
    told = call(upstream, "GET", "/seen").json()
    assert told["body"].encode() == sent.replace(b'"claude"', b'"claude-x"')
    assert told["path"] == "/v1/messages?beta=true"
    assert told["headers"]["anthropic-version"] == "2026-10-21"
    assert told["headers"]["anthropic-beta"] == "b1"


async def test_the_async_client(house: RunningGateway) -> None:
    """Whole, streamed and counted, as with the other."""
    async with anthropic.AsyncAnthropic(base_url=house.url, api_key="none needed", max_retries=0) as client:
        ask: Any = {"model": "claude", "max_tokens": 50, "messages": asked("think of it")}
        whole = await client.messages.create(**ask)
        async with client.messages.stream(**ask) as stream:
            pieces = [piece async for piece in stream.text_stream]
            final = await stream.get_final_message()
        counted = await client.messages.count_tokens(model="claude", messages=asked("count this"))

    assert [block.to_dict() for block in whole.content] == [block.to_dict() for block in final.content]
    assert "".join(pieces) == text_of(whole) == "echo: think of it"
    assert counted.input_tokens > 2


def test_openai_s_client_and_an_upstream_of_anthropic_s(openai_client: openai.OpenAI) -> None:
    """Text, whole and streamed, with what was counted; the limit that Anthropic demands is filled in."""
    ask: Any = {
        "model": "claude",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}],
    }
    whole = openai_client.chat.completions.create(**ask)
    chunks = list(
        openai_client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}, user="u")
    )

    assert whole.choices[0].message.content == "echo: Hello there"
    assert whole.choices[0].finish_reason == "stop"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == "echo: Hello there"
    assert whole.usage is not None
    assert chunks[-1].usage == whole.usage
    assert whole.usage.prompt_tokens > 2


def test_openai_s_tools_and_an_upstream_of_anthropic_s(openai_client: openai.OpenAI) -> None:
    """A call comes as OpenAI's, whole and streamed, and its result goes back in Anthropic's words."""
    question: Any = [{"role": "user", "content": "use the tool"}]
    ask: Any = {"model": "claude", "tools": [FUNCTION], "extra_headers": {"Cache-Control": "no-store"}}
    whole = openai_client.chat.completions.create(**ask, messages=question)
    with openai_client.chat.completions.stream(**ask, messages=question) as stream:
        streamed = stream.get_final_completion()

    assert whole.choices[0].finish_reason == streamed.choices[0].finish_reason == "tool_calls"
    (made,), (again,) = whole.choices[0].message.tool_calls or (), streamed.choices[0].message.tool_calls or ()
    assert made.type == again.type == "function"
    assert made.function.name == again.function.name == "weather"
    assert json.loads(made.function.arguments) == json.loads(again.function.arguments)
    result = {"role": "tool", "tool_call_id": made.id, "content": "rain"}
    answer = openai_client.chat.completions.create(
        **ask, messages=[*question, whole.choices[0].message.to_dict(), result]
    )
    assert answer.choices[0].message.content == "echo: said: rain"


def test_openai_s_fields_that_anthropic_has_no_words_for(openai_client: openai.OpenAI) -> None:
    """They are refused by name before anything is sent."""
    for name, value in {"n": 2, "seed": 7, "logprobs": True, "temperature": 1.5}.items():
        with pytest.raises(openai.BadRequestError) as caught:
            openai_client.chat.completions.create(
                model="claude",
                messages=[{"role": "user", "content": "Hello"}],
                **{name: value},  # type: ignore[arg-type]
            )
        assert caught.value.param == name
