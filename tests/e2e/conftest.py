"""The gateway that most end-to-end tests ask: real models, both caches, a short queue and a small body limit."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from scripts.running_gateway import RunningGateway
from tests import toys
from tests.e2e.program import ATLAS, ECHO, INTENTS, MINILM, needs, serving


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this directory."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def gateway() -> Iterator[RunningGateway]:
    """Serve minilm, atlas, intents and the test's own server for the whole session."""
    needs("minilm", "atlas", "intents")
    with serving(MINILM, ATLAS, INTENTS, ECHO, server="max_body: 64KiB", semantic=True) as running:
        yield running


@pytest.fixture(scope="session")
def client(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    """Yield the official client, which retries nothing here."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none needed", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """Serve the toys of tensors, and those of texts, over HTTP and gRPC for the whole session."""
    directory = tmp_path_factory.mktemp("toys")
    texts = {"embed": toys.embedder, "predict": toys.classifier, "chat": toys.decoder}
    tasks = {name: make(directory / name).name for name, make in texts.items()}
    tasks |= {make(directory / name).name: "infer" for name, make in toys.TENSOR_MODELS.items()}
    models = [f"  {name}: {{task: {task}, onnx: {{path: {directory / name}}}}}" for name, task in tasks.items()]
    with serving(*models, server="grpc: 127.0.0.1:0, max_body: 1MiB") as running:
        yield running
