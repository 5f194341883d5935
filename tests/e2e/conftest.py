"""The gateway that most end-to-end tests ask: real models, both caches, a short queue and a small body limit."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from scripts.running_gateway import RunningGateway
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
