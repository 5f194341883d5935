"""The native API against the real program: the same answers as over OpenAI's wire, out of the same caches."""

import json
from typing import Any

import pytest

from scripts.running_gateway import RunningGateway
from tests.e2e.program import call, chat, text_of


def generate(gateway: RunningGateway, **body: object) -> list[Any]:
    """Return the frames of a streamed generation."""
    answered = call(gateway.url, "POST", "/api/v1/generate", body)
    assert answered.status == 200, answered.body
    assert answered.headers["content-type"].startswith("text/event-stream")
    return [json.loads(part.removeprefix(b"data: ")) for part in answered.body.split(b"\n\n") if part]


def test_a_generation_is_the_same_streamed_whole_and_over_openais_wire(gateway: RunningGateway) -> None:
    """One question has one answer, whatever it is asked over; the second time it comes out of the cache."""
    prompt = "native: what is a gateway?"
    *tokens, last = generate(gateway, model="atlas", prompt=prompt, temperature=0)
    body = {"model": "atlas", "prompt": prompt, "temperature": 0, "stream": False}
    whole = call(gateway.url, "POST", "/api/v1/generate", body)
    theirs = chat(gateway.url, "atlas", prompt, temperature=0)

    text = "".join(frame["token"] for frame in tokens)
    assert text
    assert text == whole.json()["text"] == text_of(theirs)
    assert (last["done"], last["finish_reason"]) == (True, whole.json()["finish_reason"])
    assert last["usage"]["completion_tokens"] > 0
    assert last["model_version"] == whole.json()["model_version"]
    assert "hit" in whole.headers["cache-status"]
    assert "hit" in theirs.headers["cache-status"]


def test_embeddings_are_those_of_openais_wire(gateway: RunningGateway) -> None:
    """The same vectors, and as many dimensions as is said."""
    ours = call(
        gateway.url, "POST", "/api/v1/embed", {"model": "minilm", "inputs": ["native one", "native two"]}
    ).json()
    theirs = call(gateway.url, "POST", "/v1/embeddings", {"model": "minilm", "input": ["native one", "native two"]})

    assert [len(row) for row in ours["embeddings"]] == [ours["dimensions"]] * 2
    assert ours["embeddings"] == [row["embedding"] for row in theirs.json()["data"]]
    assert "hit" in theirs.headers["cache-status"]


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("generate", {"model": "atlas", "prompt": "x", "tools": []}, 400, "tools"),
        ("generate", {"model": "none", "prompt": "x"}, 404, "model"),
        ("embed", {"model": "minilm", "inputs": []}, 400, "inputs"),
        ("predict", {"model": "intents", "input": 1}, 400, "input"),
    ],
)
def test_errors_name_the_field(gateway: RunningGateway, path: str, body: object, status: int, param: str) -> None:
    """An error has one shape on all paths of the API."""
    answered = call(gateway.url, "POST", f"/api/v1/{path}", body)

    assert answered.status == status
    assert answered.error.keys() == {"message", "type", "code", "param"}
    assert answered.error["param"] == param


@pytest.mark.parametrize(("path", "body"), [("embed", {"inputs": "x"}), ("predict", {"input": "x"})])
def test_a_model_of_another_task_is_refused(gateway: RunningGateway, path: str, body: dict[str, object]) -> None:
    """It is a 400 that says so, and no failure of the model."""
    answered = call(gateway.url, "POST", f"/api/v1/{path}", {"model": "atlas", **body})

    assert answered.status == 400
