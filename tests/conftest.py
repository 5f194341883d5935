"""What every test runs under: hypothesis without time limits (the machine may be busy), no telemetry of a runtime.

And what many tests ask for: a Redis server.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.redis_server import RedisServer

# ONNX Runtime would otherwise upload usage data from the tests that open a session themselves.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

settings.register_profile("warmgate", deadline=None)
settings.load_profile("warmgate")


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """Run a Redis server for one test."""
    with tempfile.TemporaryDirectory(prefix="wg-redis-") as directory:
        server = RedisServer(Path(directory))
        try:
            yield server
        finally:
            server.kill()
