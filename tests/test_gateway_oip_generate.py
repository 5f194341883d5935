"""Text in, text out over the Open Inference Protocol's HTTP: whole, as events, and what is wrong with it."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from backends.contract import Finish, Task, Text, WorkerDied
from tests.fakes import FakeEngine
from tests.oip_house import SAID, SCORES, VECTORS, OipHouse, oip_house, simple


def texts(*values: str, name: str = "text") -> dict[str, Any]:
    """Make a question of texts."""
    return {"inputs": [{"name": name, "datatype": "BYTES", "shape": [len(values)], "data": list(values)}]}


async def test_models_of_texts_have_tensors_too():
    """An embedder gives vectors, a classifier labels and probabilities, a chat model its text."""
    models = {
        "embed": (Task.EMBED, FakeEngine((VECTORS, Finish("stop")))),
        "predict": (Task.PREDICT, FakeEngine((SCORES, Finish("stop")))),
        "chat": (Task.CHAT, FakeEngine(SAID)),
    }
    async with oip_house(models) as house:
        vectors = await house.json("POST", "/v2/models/embed/infer", texts("a", "b"))
        scores = await house.json("POST", "/v2/models/predict/infer", texts("a"))
        said = await house.json("POST", "/v2/models/chat/infer", texts("Hi", name="text_input"))
        for path in ("embed", "chat"):
            metadata = await house.json("GET", f"/v2/models/{path}")
            assert metadata["inputs"][0]["datatype"] == "BYTES"

    assert vectors["outputs"] == [
        {"name": "embedding", "datatype": "FP32", "shape": [2, 2], "data": [0.0, 1.0, 2.0, 3.0]}
    ]
    assert [(each["name"], each["data"]) for each in scores["outputs"]] == [
        ("label", ["yes"]),
        ("probabilities", [0.25, 0.75]),
    ]
    assert said["outputs"] == [{"name": "text_output", "datatype": "BYTES", "shape": [1], "data": ["Hello world"]}]


async def test_generate():
    """Text goes in and comes out whole; what is asked of sampling reaches the model in its own words."""
    engine = FakeEngine(SAID)
    async with oip_house({"chat": (Task.CHAT, engine)}) as house:
        answer = await house.json(
            "POST",
            "/v2/models/chat/generate",
            {
                "id": "9",
                "text_input": "Hi",
                "top_k": 3,
                "parameters": {"max_tokens": 5, "stop": ["x"], "stream": False},
            },
        )

    assert answer == {"id": "9", "model_name": "chat", "model_version": "1", "text_output": "Hello world"}
    job = engine.backends[0].jobs[0]
    assert (job.messages[0].content, job.sampling.max_tokens, job.sampling.stop) == ("Hi", 5, ("x",))
    assert dict(job.extra) == {"top_k": 3}


async def read(house: OipHouse, path: str, body: Any) -> list[Any]:
    """Read a stream's events."""
    reply = await house.call("POST", path, body)
    assert reply.status == 200, reply.body
    assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert isinstance(reply.body, AsyncIterator)
    async with aclosing(reply.body) as stream:
        sent = b"".join([piece async for piece in stream])
    return [json.loads(event.removeprefix(b"data: ")) for event in sent.split(b"\n\n") if event]


async def test_generate_stream():
    """Each piece of the text is an event; nothing marks the end."""
    async with oip_house({"chat": (Task.CHAT, FakeEngine(SAID))}) as house:
        events = await read(house, "/v2/models/chat/generate_stream", {"text_input": "Hi"})

    assert [event["text_output"] for event in events] == ["Hello ", "world"]
    assert all(event["model_name"] == "chat" for event in events)


async def test_an_error_after_the_first_piece_is_an_event():
    """The stream's status has been sent: what goes wrong then is its last event."""
    async with oip_house({"chat": (Task.CHAT, FakeEngine((Text("He"), WorkerDied("it fell"))))}) as house:
        *_, last = await read(house, "/v2/models/chat/generate_stream", {"text_input": "Hi"})

    assert last == {"error": "it fell"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "text_input"),
        ({"text_input": 7}, "text_input"),
        ({"text_input": "a", "parameters": {"max_tokens": 0}}, "max_tokens"),
        ({"text_input": "a", "temperature": "hot"}, "temperature"),
        ({"text_input": "a", "parameters": {"stop": [1]}}, "stop"),
        ({"text_input": "a", "parameters": 7}, "parameters"),
    ],
)
async def test_what_is_wrong_with_a_text_is_told(body, words):
    """Mistakes in `generate` name their field."""
    async with oip_house({"chat": (Task.CHAT, FakeEngine(SAID))}) as house:
        status, told = await house.refused("POST", "/v2/models/chat/generate", body)

    assert status == 400
    assert words in told


async def test_generate_needs_a_model_that_generates():
    """A model of tensors does not generate, and says so."""
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        status, told = await house.refused("POST", "/v2/models/simple/generate", {"text_input": "a"})

    assert status == 501
    assert "generates no text" in told
