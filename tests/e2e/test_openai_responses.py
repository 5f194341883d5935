"""OpenAI's Responses through the running program, asked by the official client."""

import json
from collections.abc import Iterator

import openai
import pytest
from openai.types.responses import FunctionToolParam, ResponseInputParam
from pydantic import BaseModel

from tests.e2e.program import SERVER, serving

ECHO = f'  echo: {{task: chat, command: {{run: "{SERVER}", concurrency: 8}}, pool: {{min: 1}}}}'
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}


@pytest.fixture(scope="module")
def responder() -> Iterator[openai.OpenAI]:
    """Yield the official client of a gateway in front of the test's own server."""
    with (
        serving(ECHO) as house,
        openai.OpenAI(base_url=f"{house.url}/v1", api_key="none needed", max_retries=0) as made,
    ):
        yield made


def test_text(responder: openai.OpenAI) -> None:
    """A question is answered; what a chat asked before is the same question."""
    chat = responder.chat.completions.create(model="echo", messages=[{"role": "user", "content": "good morning"}])
    raw = responder.responses.with_raw_response.create(model="echo", input="good morning", store=True)
    response = raw.parse()

    assert response.output_text == chat.choices[0].message.content == "echo: good morning"
    assert "hit" in raw.headers["Cache-Status"]
    assert (response.status, response.to_dict()["store"]) == ("completed", False)
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (2, 3)


def test_stream(responder: openai.OpenAI) -> None:
    """The client's own stream helper follows the events; thoughts come before the text."""
    with responder.responses.stream(model="echo", input="think twice") as stream:
        events = list(stream)
        response = stream.get_final_response()

    types = [event.type for event in events]
    assert types[:2] == ["response.created", "response.in_progress"]
    assert types.index("response.reasoning_text.done") < types.index("response.output_text.delta")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output_text == "echo: think twice"


def test_tools_and_their_results(responder: openai.OpenAI) -> None:
    """A call, whole and streamed, and its result in the next request, which says all that came before."""
    conversation: ResponseInputParam = [{"role": "user", "content": "the weather"}]
    first = responder.responses.create(model="echo", input=conversation, tools=[WEATHER])
    with responder.responses.stream(model="echo", input="the weather now", tools=[WEATHER]) as stream:
        done = [event for event in stream if event.type == "response.function_call_arguments.done"]
    call = first.output[0]
    assert call.type == "function_call"
    conversation += first.output  # type: ignore[arg-type]
    conversation.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})

    second = responder.responses.create(model="echo", input=conversation, tools=[WEATHER], instructions="be brief")

    assert (call.name, call.arguments, call.call_id) == ("weather", '{"city":"x"}', "call_0_weather")
    assert [event.arguments for event in done] == ['{"city":"x"}']
    assert second.output_text == "echo: sunny"


class Trip(BaseModel):
    """A structured answer."""

    city: str
    days: int


def test_structured_output(responder: openai.OpenAI) -> None:
    """A pydantic model is what the client parses the answer into."""
    response = responder.responses.parse(model="echo", input="a trip", text_format=Trip)

    assert response.output_parsed == Trip(city="x", days=1)


def test_an_answer_that_was_cut_is_incomplete(responder: openai.OpenAI) -> None:
    """The limit is the model's, and the reply tells that it was reached."""
    response = responder.responses.create(model="echo", input="one two three four", max_output_tokens=2)

    assert (response.status, response.output_text) == ("incomplete", "echo: one")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"

    *_, last = responder.responses.create(model="echo", input="one two three", max_output_tokens=2, stream=True)
    assert last.type == "response.incomplete"
    assert (last.response.status, last.response.output_text) == ("incomplete", "echo: one")


@pytest.mark.parametrize("field", ["previous_response_id", "conversation", "background"])
def test_nothing_is_kept(responder: openai.OpenAI, field: str) -> None:
    """What needs an earlier request is refused by name."""
    asked = {field: True if field == "background" else "resp_1"}
    with pytest.raises(openai.BadRequestError, match="nothing is kept") as refused:
        responder.responses.create(model="echo", input="hello", extra_body=asked)

    assert refused.value.param == field


def test_errors(responder: openai.OpenAI) -> None:
    """An upstream's refusal and an error in the midst of a stream raise what the client has for them."""
    with pytest.raises(openai.UnprocessableEntityError, match="told to refuse with 422"):
        responder.responses.create(model="echo", input="status-422")
    with pytest.raises(openai.APIError, match="told to break"):
        list(responder.responses.create(model="echo", input="then break off", stream=True))


def test_a_stream_that_breaks_tells_the_response_that_failed(responder: openai.OpenAI) -> None:
    """What came before the error is in it, for clients that go by the response's own events; the numbers go on."""
    raw = responder.responses.with_streaming_response
    with raw.create(model="echo", input="then break apart", stream=True) as stream:
        told = [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line.startswith("data: ")]

    error, failed = told[-2:]
    assert (error["type"], failed["type"]) == ("error", "response.failed")
    assert "told to break" in failed["response"]["error"]["message"]
    assert failed["response"]["output"][0]["content"][0]["text"] == "echo:"
    assert [event["sequence_number"] for event in told] == list(range(len(told)))


async def test_async_client() -> None:
    """The asynchronous client streams."""
    with serving(ECHO) as house:
        async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key="none needed", max_retries=0) as client:
            events = await client.responses.create(model="echo", input="hello there", stream=True)
            texts = [event.delta async for event in events if event.type == "response.output_text.delta"]

    assert "".join(texts) == "echo: hello there"
