"""Chats, completions and embeddings of the official `openai` client, through the running program to an upstream."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageParam
from pydantic import BaseModel

from scripts.running_gateway import RunningGateway
from tests.e2e.program import ATLAS, SERVER, needs, serving

ECHO = f'  echo: {{task: chat, command: {{run: "{SERVER}", concurrency: 8}}, pool: {{min: 1}}}}'
VECTORS = f'  vectors: {{task: embed, command: {{run: "{SERVER}"}}}}'
NO_STORE = {"Cache-Control": "no-store"}


@pytest.fixture(scope="module")
def house() -> Iterator[RunningGateway]:
    """Serve the test's own server for chats and embeddings, and atlas."""
    needs("atlas")
    with serving(ECHO, VECTORS, ATLAS) as running:
        yield running


@pytest.fixture(scope="module")
def openai_client(house: RunningGateway) -> Iterator[openai.OpenAI]:
    """Yield the official client, which retries nothing here."""
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key="none needed", max_retries=0) as made:
        yield made


def ask(text: str) -> list[ChatCompletionMessageParam]:
    """Make a conversation of one question."""
    return [{"role": "user", "content": text}]


def tool(name: str) -> ChatCompletionFunctionToolParam:
    """Make a tool that takes a city and a count."""
    properties = {"city": {"type": "string"}, "days": {"type": "integer"}}
    parameters = {"type": "object", "properties": properties, "required": ["city", "days"]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [tool("weather"), tool("tides")]


@pytest.mark.parametrize("again", [False, True])
def test_tools_whole(openai_client: openai.OpenAI, again: bool) -> None:
    """Two tools are called side by side; so they are when the same is asked again."""
    choice = openai_client.chat.completions.create(
        model="echo", messages=ask("the weather and the tides"), tools=TOOLS
    ).choices[0]

    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    calls = [call for call in choice.message.tool_calls or () if call.type == "function"]
    assert [(call.id, call.function.name) for call in calls] == [
        ("call_0_weather", "weather"),
        ("call_1_tides", "tides"),
    ]
    assert json.loads(calls[0].function.arguments) == {"city": "x", "days": 1}


def test_tools_streamed(openai_client: openai.OpenAI) -> None:
    """The client's own accumulator puts the calls together."""
    with openai_client.chat.completions.stream(
        model="echo", messages=ask("tides and weather"), tools=TOOLS, extra_headers=NO_STORE
    ) as stream:
        for _ in stream:
            pass
        message = stream.get_final_completion().choices[0].message

    assert [(call.function.name, call.function.arguments) for call in message.tool_calls or ()] == [
        ("weather", '{"city":"x","days":1}'),
        ("tides", '{"city":"x","days":1}'),
    ]


def test_choice_of_tools(openai_client: openai.OpenAI) -> None:
    """None, required, a named one, and one at a time reach the model."""

    def called(text: str, **more: object) -> list[str]:
        made = openai_client.chat.completions.create(model="echo", messages=ask(text), tools=TOOLS, **more)  # type: ignore[call-overload]
        return [call.function.name for call in made.choices[0].message.tool_calls or ()]

    assert called("the weather", tool_choice="none") == []
    assert called("anything", tool_choice="required") == ["weather"]
    assert called("anything", tool_choice={"type": "function", "function": {"name": "tides"}}) == ["tides"]
    assert called("weather and tides", parallel_tool_calls=False) == ["weather"]


def test_result_of_a_tool_goes_back(openai_client: openai.OpenAI) -> None:
    """The client's own message object and the tools' results make the next turn."""
    conversation = ask("the weather and the tides")
    message = openai_client.chat.completions.create(model="echo", messages=conversation, tools=TOOLS).choices[0].message
    conversation.append(message.to_dict())  # type: ignore[arg-type]
    for call in message.tool_calls or ():
        conversation.append({"role": "tool", "tool_call_id": call.id, "content": f"result of {call.id}"})

    answered = openai_client.chat.completions.create(model="echo", messages=conversation, tools=TOOLS)

    assert answered.choices[0].message.content == "echo: result of call_0_weather and result of call_1_tides"


class Trip(BaseModel):
    """A structured answer."""

    city: str
    days: int
    sights: list[str]


def test_structured_output(openai_client: openai.OpenAI) -> None:
    """A pydantic model is what the client parses the answer into."""
    parsed = openai_client.chat.completions.parse(model="echo", messages=ask("a trip"), response_format=Trip)
    loose = openai_client.chat.completions.create(
        model="echo", messages=ask("anything"), response_format={"type": "json_object"}
    )

    assert parsed.choices[0].message.parsed == Trip(city="x", days=1, sights=["x"])
    assert json.loads(loose.choices[0].message.content or "") == {"echo": "anything"}


def test_everything_arrives_untouched(openai_client: openai.OpenAI) -> None:
    """The upstream sees every field as it was sent, known or not, but for the model's name where that differs."""
    asked = {
        "messages": [
            {"role": "developer", "content": "be brief", "name": "me"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "mirror ", "cache_control": {"type": "ephemeral"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                    {"type": "file", "file": {"file_data": "data:,", "filename": "x"}},
                ],
            },
        ],
        "temperature": 0.5,
        "seed": 7,
        "stop": ["x"],
        "logit_bias": {"5": -100},
        "user": "u",
        "metadata": {"a": "b"},
        "max_completion_tokens": 5000,
        "extra_body": {"top_k": 3, "guided": {"regex": "a*"}, "chat_template_kwargs": None},
    }

    made = openai_client.chat.completions.create(model="echo", **asked)  # type: ignore[call-overload]

    extra = asked.pop("extra_body")
    assert json.loads(made.choices[0].message.content) == {**asked, **extra, "model": "echo"}  # type: ignore[dict-item]


def test_choices_and_log_probabilities(openai_client: openai.OpenAI) -> None:
    """Several choices, each with its tokens' log probabilities, whole and streamed; a repeat says the same."""
    for _ in range(2):
        made = openai_client.chat.completions.create(
            model="echo", messages=ask("once upon"), n=2, logprobs=True, top_logprobs=1
        )
        assert [choice.message.content for choice in made.choices] == ["echo: once upon", "echo: once upon (1)"]
        logprobs = made.choices[1].logprobs
        assert logprobs is not None
        assert [token.token for token in logprobs.content or ()] == ["echo:", " once", " upon", " (1)"]

    chunks = openai_client.chat.completions.create(
        model="echo",
        messages=ask("once upon"),
        n=2,
        logprobs=True,
        top_logprobs=1,
        stream=True,
        extra_headers=NO_STORE,
    )
    told = [
        (choice.index, choice.delta.content, [token.token for token in choice.logprobs.content or ()])
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs
    ]
    assert told[:2] == [(0, "echo:", ["echo:"]), (0, " once", [" once"])]
    assert len(told) == 7


def test_thoughts_and_refusals(openai_client: openai.OpenAI) -> None:
    """Thoughts, their tokens, and a refusal come through, whole and streamed, from the upstream and from the cache."""
    for _ in range(2):
        made = openai_client.chat.completions.create(model="echo", messages=ask("think hard"))
        assert made.choices[0].message.to_dict()["reasoning_content"] == "thinking of think hard"
        assert made.usage is not None
        assert made.usage.completion_tokens_details is not None
        assert made.usage.completion_tokens_details.reasoning_tokens == 4
    chunks = openai_client.chat.completions.create(model="echo", messages=ask("think hard"), stream=True)
    thoughts = [chunk.choices[0].delta.to_dict().get("reasoning_content") for chunk in chunks if chunk.choices]
    assert "".join(str(thought) for thought in thoughts if thought) == "thinking of think hard"
    refused = openai_client.chat.completions.create(model="echo", messages=ask("decline this"))
    assert refused.choices[0].message.refusal == "I would rather not."


def texts_of(client: Any, wire: str, model: str, *, streamed: bool) -> list[str]:
    """Ask on one of the wires with one seed, and return the pieces of the answer."""
    asked: dict[str, Any] = {"model": model, "temperature": 0.8, "extra_headers": NO_STORE, "stream": streamed}
    if wire == "chat":
        made = client.chat.completions.create(**asked, messages=ask("Describe Norway."), seed=5)
        choices = [chunk.choices[0] for chunk in made if chunk.choices] if streamed else made.choices
        return [choice.delta.content or "" if streamed else choice.message.content for choice in choices]
    if wire == "completions":
        made = client.completions.create(**asked, prompt="The capital of Italy is", seed=5, max_tokens=20)
        return [chunk.choices[0].text for chunk in made if chunk.choices] if streamed else [made.choices[0].text]
    made = client.responses.create(**asked, input="Describe Norway.", extra_body={"seed": 5})
    if not streamed:
        return [made.output_text]
    return [event.delta for event in made if event.type == "response.output_text.delta"]


@pytest.mark.parametrize("model", ["echo", "atlas"])
@pytest.mark.parametrize("wire", ["chat", "completions", "responses"])
def test_streamed_is_whole(openai_client: openai.OpenAI, model: str, wire: str) -> None:
    """With one seed the streamed text is the whole text, on every path, from our own model and from an upstream."""
    (whole,) = texts_of(openai_client, wire, model, streamed=False)
    streamed = texts_of(openai_client, wire, model, streamed=True)

    assert "".join(streamed) == whole
    assert len(streamed) > 2


def test_completions_of_several_prompts(openai_client: openai.OpenAI) -> None:
    """Each prompt has its choices, with the older log probabilities; a repeat from the cache says the same."""
    for _ in range(2):
        made = openai_client.completions.create(model="echo", prompt=["one", "two"], n=2, logprobs=1)
        texts = [choice.text for choice in made.choices]
        assert texts == ["echo: one", "echo: one (1)", "echo: two", "echo: two (1)"]
        logprobs = made.choices[1].logprobs
        assert logprobs is not None
        assert (logprobs.tokens, logprobs.text_offset) == (["echo:", " one", " (1)"], [0, 5, 9])
    assert openai_client.completions.create(model="echo", prompt="say", echo=True).choices[0].text == "sayecho: say"


def test_our_own_model_has_choices_too(openai_client: openai.OpenAI) -> None:
    """Several prompts, choices and log probabilities of an ONNX model."""
    made = openai_client.completions.create(
        model="atlas",
        prompt=["The capital of Italy is", "The capital of Peru is"],
        n=2,
        max_tokens=2,
        logprobs=2,
        seed=1,
    )
    chat = openai_client.chat.completions.create(
        model="atlas", messages=ask("What is the capital of Peru?"), n=2, logprobs=True, top_logprobs=2
    )

    assert [choice.index for choice in made.choices] == [0, 1, 2, 3]
    assert all(choice.logprobs and len(choice.logprobs.tokens or ()) == 2 for choice in made.choices)
    for choice in chat.choices:
        assert choice.logprobs is not None
        tokens = choice.logprobs.content or []
        assert "".join(token.token for token in tokens).strip() == (choice.message.content or "").strip()
        assert all(len(token.top_logprobs) == 2 for token in tokens)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", TOOLS),
        ("response_format", {"type": "json_object"}),
        ("functions", [{"name": "f"}]),
        ("prediction", {"type": "content", "content": "x"}),
        ("top_k", 3),
    ],
)
def test_what_a_model_cannot_do_is_named(openai_client: openai.OpenAI, field: str, value: object) -> None:
    """Our own model refuses, in OpenAI's shape, what it cannot honour."""
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client.chat.completions.create(model="atlas", messages=ask("Hello"), extra_body={field: value})

    assert refused.value.param == field
    assert refused.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
def test_errors_of_an_upstream(openai_client: openai.OpenAI, status: int, error: type[openai.APIStatusError]) -> None:
    """What the upstream says is wrong raises the class that it would have raised there, with its words and field."""
    with pytest.raises(error, match=f"told to refuse with {status}") as raised:
        openai_client.chat.completions.create(model="echo", messages=ask(f"status-{status}"))

    if status < 429:
        assert (raised.value.param, raised.value.type) == ("messages", "t")


def test_an_error_in_the_stream_is_raised(openai_client: openai.OpenAI) -> None:
    """What was said before it is there, then the client raises the upstream's words."""
    chunks = openai_client.chat.completions.create(model="echo", messages=ask("then break off"), stream=True)

    assert next(chunks).choices[0].delta.content == "echo:"
    with pytest.raises(openai.APIError, match="told to break"):
        list(chunks)


async def test_async_client(house: RunningGateway) -> None:
    """The asynchronous client: tools streamed, a structured answer, a list of models."""
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key="none needed", max_retries=0) as client:
        async with client.chat.completions.stream(model="echo", messages=ask("tides"), tools=TOOLS) as stream:
            events = [event async for event in stream]
            called = (await stream.get_final_completion()).choices[0].message.tool_calls or []
        parsed = await client.chat.completions.parse(model="echo", messages=ask("trip"), response_format=Trip)
        models = [model.id async for model in client.models.list()]

    assert called[0].function.parsed_arguments is None
    assert any(event.type == "tool_calls.function.arguments.done" for event in events)
    assert parsed.choices[0].message.parsed is not None
    assert set(models) == {"echo", "vectors", "atlas"}


def test_embeddings(openai_client: openai.OpenAI) -> None:
    """The client's default, numbers, and fewer dimensions, from the upstream and from the cache."""
    for _ in range(2):
        default = openai_client.embeddings.create(model="vectors", input=["ab", "c"])
        numbers = openai_client.embeddings.create(model="vectors", input=["ab", "c"], encoding_format="float")
        fewer = openai_client.embeddings.create(model="vectors", input="ab", dimensions=2)
        assert sorted((item.index, item.embedding) for item in default.data) == [(0, [2, 0, 1]), (1, [1, 1, 1])]
        assert sorted((item.index, item.embedding) for item in numbers.data) == [(0, [2, 0, 1]), (1, [1, 1, 1])]
        assert fewer.data[0].embedding == [2, 0]


def test_one_model(openai_client: openai.OpenAI) -> None:
    """A model can be retrieved by its name; one that is not there is not found."""
    assert openai_client.models.retrieve("echo").id == "echo"
    with pytest.raises(openai.NotFoundError):
        openai_client.models.retrieve("nobody")
