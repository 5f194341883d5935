"""A cold start as official clients see it: they wait through comments, or come again when they are told to."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai
import pytest

from scripts.running_gateway import RunningGateway
from tests.e2e.program import SERVER, call, chat, chat_body, connect, metric, serving, text_of, until

STARTS_S = 6
SLOW = f'  slow: {{task: chat, command: {{run: "{SERVER} --start-s {STARTS_S}"}}, pool: {{max: 1}}}}'
LATER = f'  later: {{task: chat, command: {{run: "{SERVER} --start-s 1"}}, pool: {{max: 1, start_wait: 1s}}}}'
# Fails well after its clients were told that they wait.
_FAILING = "sh -c 'sleep 3; echo no memory left; exit 3' {port}"
FAILS = f'  fails: {{task: chat, command: {{run: "{_FAILING}"}}, pool: {{max: 1}}}}'
NEXT = f'  next: {{task: chat, command: {{run: "{SERVER}"}}}}'
ASKED = "who waits is told"


@pytest.fixture(scope="module")
def house() -> Iterator[RunningGateway]:
    """Serve models that are cold until they are asked for."""
    with serving(SLOW, LATER, FAILS, NEXT, routes="{either: {split: {slow: 1}, fallback: [next]}}") as running:
        yield running


def openai_chat(url: str, model: str = "slow") -> str:
    """Stream a chat by OpenAI's client."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        chunks = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": f"{ASKED} chat"}], stream=True
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def openai_completion(url: str, model: str = "slow") -> str:
    """Stream a completion by OpenAI's client."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        chunks = client.completions.create(model=model, prompt=f"{ASKED} completion", stream=True)
        return "".join(chunk.choices[0].text for chunk in chunks)


def openai_response(url: str, model: str = "slow") -> str:
    """Stream a response by OpenAI's client."""
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client,
        client.responses.stream(model=model, input=f"{ASKED} response") as events,
    ):
        return events.get_final_response().output_text


def anthropic_message(url: str, model: str = "slow") -> str:
    """Stream a message by Anthropic's client."""
    with (
        anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client,
        client.messages.stream(
            model=model, max_tokens=50, messages=[{"role": "user", "content": f"{ASKED} message"}]
        ) as stream,
    ):
        return stream.get_final_text()


def native_lines(url: str, model: str = "slow") -> str:
    """Stream over the native wire, and return the bytes as they came."""
    body = {"model": model, "prompt": f"{ASKED} line", "stream": True}
    return call(url, "POST", "/api/v1/generate", body).body.decode()


def leave(url: str) -> None:
    """Ask for a stream, read its first comment, and go."""
    connection = connect(url)
    connection.request("POST", "/v1/chat/completions", json.dumps(chat_body("slow", "left", stream=True)))
    response = connection.getresponse()
    assert response.readline().startswith(b": starting slow, about ")
    response.close()
    connection.close()


def test_official_clients_wait_through_the_comments(house: RunningGateway) -> None:
    """All wait for one start of a server, and read nothing but the answer; on the wire there are comments before it.

    Who leaves while it waits leaves no job behind.
    """
    leave(house.url)
    with ThreadPoolExecutor() as pool:
        answers = list(
            pool.map(lambda ask: ask(house.url), (openai_chat, openai_response, anthropic_message, native_lines))
        )

    *by_clients, lines = answers
    assert by_clients == [f"echo: {ASKED} {kind}" for kind in ("chat", "response", "message")]
    assert lines.startswith(": starting slow, ")
    assert f"echo: {ASKED} line".split()[0] in lines
    assert metric(house.url, "warmgate_pool_replicas", model="slow", state="ready") == 1
    assert metric(house.url, "warmgate_pool_queued", model="slow") == 0
    until(lambda: metric(house.url, "warmgate_pool_in_flight", model="slow") == 0, "nothing is left")


def oip_lines(url: str, model: str) -> str:
    """Stream over the Open Inference Protocol, and return the bytes as they came."""
    return call(url, "POST", f"/v2/models/{model}/generate_stream", {"text_input": f"{ASKED} piece"}).body.decode()


def raised(ask: Callable[[str, str], str], url: str) -> Exception:
    """Return what a client raises that asks for the model which does not start."""
    with pytest.raises((openai.APIError, anthropic.APIError)) as error:
        ask(url, "fails")
    return error.value


def test_official_clients_raise_what_fails_after_the_comments(house: RunningGateway) -> None:
    """The status was 200 by then: each wire tells the error in its stream, and its client raises it with its words."""
    by_clients = (openai_chat, openai_completion, openai_response, anthropic_message)
    with ThreadPoolExecutor() as pool:
        lines = [pool.submit(ask, house.url, "fails") for ask in (native_lines, oip_lines)]
        errors = list(pool.map(lambda ask: raised(ask, house.url), by_clients))

    assert [type(error) for error in errors] == [openai.APIError] * 3 + [anthropic.APIStatusError]
    assert all("no memory left" in str(error) for error in errors)
    for native_or_oip in lines:
        comment, error = native_or_oip.result().split("\n\n")[0], native_or_oip.result().split("\n\n")[-2]
        assert comment.startswith(": starting fails")
        assert "no memory left" in str(json.loads(error.removeprefix("data: "))["error"])


def test_an_official_client_comes_again_when_it_is_told_to(house: RunningGateway) -> None:
    """Sent away with the learned estimate, OpenAI's client retries by itself, and meets a model that is up."""
    first = call(house.url, "POST", "/v1/chat/completions", chat_body("later", "hello"), Prefer="wait=0")
    assert (first.status, first.error["code"]) == (503, "model_starting")
    assert first.headers["preference-applied"] == "wait=0"
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key="x", max_retries=2) as client:
        answer = client.chat.completions.create(model="later", messages=[{"role": "user", "content": "hello"}])

    assert answer.choices[0].message.content == "echo: hello"


def test_the_next_model_is_up_before_it_is_asked_for(house: RunningGateway) -> None:
    """Who declares what it will ask for next finds it up; the operator's hint does the same, within the credit."""
    declared = call(house.url, "POST", "/v1/chat/completions", chat_body("slow", "plan"), **{"X-Warmgate-Next": "next"})
    assert declared.headers["x-warmgate-next"].startswith("next; for=")
    until(lambda: metric(house.url, "warmgate_pool_replicas", model="next", state="ready") == 1, "the next model is up")
    assert text_of(chat(house.url, "next", "asked")) == "echo: asked"

    granted = call(house.url, "POST", "/admin/pools/slow/warm", {"for_s": 30}).json()
    assert (granted["model"], granted["for_s"], granted["in_full"]) == ("slow", 30, True)


def test_who_prefers_the_fastest_is_not_kept_waiting(house: RunningGateway) -> None:
    """With its own model up or not, a route's request names the preference, and an unknown one is refused."""
    body = chat_body("either", "quick")
    served = call(house.url, "POST", "/v1/chat/completions", body, **{"X-Warmgate-Prefer": "fastest"})
    refused = call(house.url, "POST", "/v1/chat/completions", body, **{"X-Warmgate-Prefer": "best"})

    assert text_of(served) == "echo: quick"
    assert (refused.status, "fastest, exact" in refused.error["message"]) == (400, True)
