"""What the onnx engine makes of model directories: what is missing, which version it is, and the models of the zoo."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from backends.contract import (
    Job,
    Logprobs,
    Message,
    StartFailed,
    Task,
    Text,
    Usage,
)
from backends.forkserver.client import ForkServer
from backends.onnx import OnnxEngine
from tests import toys
from tests.onnx_house import ask, said, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = Path(__file__).parent.parent / "var" / "models"


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def _server() -> AsyncIterator[ForkServer]:
    server = ForkServer(os.environ)
    yield server
    await server.close(10)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda d: (d / "model.onnx").unlink(), r"model\.onnx does not exist; scripts/setup makes"),
        (lambda d: (d / "tokenizer.json").unlink(), r"tokenizer\.json does not exist"),
        (lambda d: (d / "model.yaml").unlink(), r"model\.yaml does not exist"),
        (lambda d: (d / "labels.txt").unlink(), r"labels\.txt"),
        (lambda d: (d / "model.yaml").write_text("task: sing"), r"model\.yaml: task: 'sing'"),
    ],
)
async def test_opening_names_what_is_missing(server, tmp_path, break_it, words):
    """A directory without one of its files, or with a bad manifest, raises StartFailed that names it."""
    break_it(toys.classifier(tmp_path))

    with pytest.raises(StartFailed, match=words):
        await OnnxEngine.open(tmp_path, server, threads=1)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
async def test_a_file_that_cannot_be_loaded_fails_the_start(server, tmp_path, name):
    """A worker that cannot load its model ends, and the start raises StartFailed with the library's reason."""
    (toys.embedder(tmp_path) / name).write_bytes(b"garbage")
    engine = await OnnxEngine.open(tmp_path, server, threads=1)

    with pytest.raises(StartFailed, match=str(tmp_path)):
        await engine.start()


async def test_the_version_follows_the_files(server, tmp_path):
    """The version is a digest: the same for the same files, another when a label changes."""
    versions = []
    for labels in ("even\nodd\nnone\n", "even\nodd\nnone\n", "even\nodd\nboth\n"):
        (toys.classifier(tmp_path) / "labels.txt").write_text(labels)
        versions.append((await OnnxEngine.open(tmp_path, server, threads=1)).version)

    assert versions[0] == versions[1] != versions[2]
    assert versions[0].startswith("sha256:")
    assert len(versions[0]) == len("sha256:") + 16


async def test_files_that_changed_are_not_served_under_the_old_version(server, tmp_path):
    """A start after the model's files were replaced raises StartFailed: its answers would be cached as another's."""
    engine = await OnnxEngine.open(toys.embedder(tmp_path), server, threads=1)
    with (tmp_path / "model.onnx").open("ab") as file:
        file.write(b" ")

    with pytest.raises(StartFailed, match="have changed since they were read"):
        await engine.start()
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(StartFailed, match=r"model\.onnx cannot be read any more"):
        await engine.start()


def model_directory(name) -> Path:
    """Return one of the models that scripts/setup makes, or skip."""
    if not (MODELS / name / "model.onnx").exists():
        pytest.skip(f"var/models/{name} is absent; scripts/setup makes it")
    return MODELS / name


@pytest.mark.e2e
async def test_minilm_through_a_worker(server):
    """The real embedder gives the cosines that it is known by."""
    inputs = ("What is the capital of France?", "Tell me the capital city of France", "How do I bake bread?")
    async with started(server, model_directory("minilm")) as replica:
        vectors = await anext(replica.stream(Job(Task.EMBED, inputs=inputs)))

    matrix = np.frombuffer(vectors.data, "<f4").reshape(vectors.shape)
    assert replica.providers == ("CPUExecutionProvider",)
    assert matrix[0] @ matrix[1] == pytest.approx(0.923, abs=0.005)
    assert matrix[0] @ matrix[2] == pytest.approx(0.148, abs=0.01)


@pytest.mark.e2e
async def test_intents_through_a_worker(server):
    """The real classifier recognises a plain question."""
    async with started(server, model_directory("intents")) as replica:
        scores = await anext(replica.stream(Job(Task.PREDICT, inputs=("My card was stolen, what now?",))))

    row = np.frombuffer(scores.data, "<f4")
    assert "card" in scores.labels[row.argmax()]
    assert row.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.e2e
async def test_atlas_through_a_worker(server):
    """The real chat model answers, and answers the same in company."""
    questions = [f"What is the capital of {country}?" for country in ("Austria", "Australia", "France", "Peru")]
    async with started(server, model_directory("atlas")) as replica:
        alone = [await said(replica, ask(question)) for question in questions]
        together = await asyncio.gather(*(said(replica, ask(question)) for question in questions))

    assert together == alone
    assert ["Vienna" in alone[0], "Canberra" in alone[1]] == [True, True]


@pytest.mark.e2e
async def test_atlas_tells_log_probabilities(server):
    """The real chat model's tokens, as bytes, join to its text, and a greedy answer has the likeliest of each."""
    question = Message("user", "What is the capital of Austria?")
    job = Job(Task.CHAT, messages=(question,), extra={"logprobs": True, "top_logprobs": 2})
    async with started(server, model_directory("atlas")) as replica:
        events = [event async for event in replica.stream(job)]
    entries = [entry for event in events if isinstance(event, Logprobs) for entry in event.tokens]

    text = "".join(event.text for event in events if isinstance(event, Text))
    assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == text
    assert len(entries) == next(event.completion_tokens for event in events if isinstance(event, Usage))
    assert all(entry["top_logprobs"][0]["token"] == entry["token"] for entry in entries)
