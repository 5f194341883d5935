"""`langchain-openai` through the running program: chats, tools, structured answers and embeddings."""

import asyncio
from collections.abc import Iterator

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from scripts.running_gateway import RunningGateway
from tests.e2e.program import ATLAS, MINILM, SERVER, needs, serving

ECHO = f'  echo: {{task: chat, command: {{run: "{SERVER}", concurrency: 8}}, pool: {{min: 1}}}}'
KEY = SecretStr("none needed")


@pytest.fixture(scope="module")
def house() -> Iterator[RunningGateway]:
    """Serve the test's own server, atlas and minilm."""
    needs("atlas", "minilm")
    with serving(ECHO, ATLAS, MINILM) as running:
        yield running


def chat_of(house: RunningGateway, model: str = "echo", **more: object) -> ChatOpenAI:
    """Make LangChain's chat model."""
    return ChatOpenAI(model=model, base_url=f"{house.url}/v1", api_key=KEY, max_retries=0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("model", "answer"), [("echo", "echo: good day"), ("atlas", None)])
def test_invoke_and_stream(house: RunningGateway, model: str, answer: str | None) -> None:
    """The streamed text is the whole text, with its usage."""
    chat = chat_of(house, model, temperature=0, stream_usage=True)
    whole = chat.invoke("good day")
    streamed = None
    for chunk in chat.stream("good day"):
        streamed = chunk if streamed is None else streamed + chunk

    assert streamed is not None
    assert whole.content == streamed.content == (answer or whole.content)
    assert whole.usage_metadata is not None
    assert streamed.usage_metadata == whole.usage_metadata  # type: ignore[attr-defined]
    assert whole.response_metadata["finish_reason"] == "stop"


def test_asynchronous_and_batched(house: RunningGateway) -> None:
    """Several questions at once keep their order, also asynchronously."""
    chat = chat_of(house)

    assert [made.content for made in chat.batch(["one", "two"])] == ["echo: one", "echo: two"]
    assert asyncio.run(chat.ainvoke("three")).content == "echo: three"


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


@pytest.mark.parametrize("responses", [False, True])
def test_tools(house: RunningGateway, responses: bool) -> None:
    """A bound tool is called, its result goes back, and the answer has it: over chats and over Responses."""
    chat = chat_of(house, use_responses_api=responses).bind_tools([weather])
    question = HumanMessage("how is the weather")
    called = chat.invoke([question])
    assert isinstance(called, AIMessage)
    call = called.tool_calls[0]
    result = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])

    answered = chat.invoke([question, called, result])

    assert (call["name"], call["args"]) == ("weather", {"city": "x"})
    assert answered.text == "echo: sunny in x"
    streamed = None
    for chunk in chat.stream([question]):
        streamed = chunk if streamed is None else streamed + chunk
    assert [made["args"] for made in streamed.tool_calls] == [{"city": "x"}]  # type: ignore[union-attr]


class Trip(BaseModel):
    """A trip."""

    city: str
    days: int


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output(house: RunningGateway, method: str) -> None:
    """Both ways to a structured answer give the model's own type."""
    chat = chat_of(house).with_structured_output(Trip, method=method)  # type: ignore[arg-type]

    assert chat.invoke("plan a trip") == Trip(city="x", days=1)


def test_embeddings(house: RunningGateway) -> None:
    """Texts are sent as they are, and the same text has the same vector."""
    embeddings = OpenAIEmbeddings(
        model="minilm", base_url=f"{house.url}/v1", api_key=KEY, check_embedding_ctx_length=False
    )
    texts = embeddings.embed_documents(["What is the capital of France?", "How do I bake bread?"])

    assert texts[0] == pytest.approx(embeddings.embed_query("What is the capital of France?"), abs=1e-5)
    assert len(texts[1]) == 384
