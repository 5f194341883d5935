"""What every test runs under: hypothesis without time limits (the machine may be busy), no telemetry of a runtime.

And what many tests ask for: a Redis server, a fork server.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from backends.forkserver.client import ForkServer
from tests.redis_server import RedisServer

# ONNX Runtime would otherwise upload usage data from the tests that open a session themselves.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# A change is judged by the same examples each time; what looks for new ones is a command of its own.
settings.register_profile("warmgate", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("warmgate")


@pytest.fixture
def make_redis() -> Iterator[Callable[..., RedisServer]]:
    """Start Redis servers for one test; the options are those of `RedisServer`."""
    with ExitStack() as stack:

        def make(**options: Any) -> RedisServer:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="wg-redis-"))
            server = RedisServer(Path(directory), **options)
            stack.callback(server.kill)
            return server

        yield make


@pytest.fixture
def redis_server(make_redis: Callable[..., RedisServer]) -> RedisServer:
    """Start a Redis server on a socket for one test."""
    return make_redis()


@pytest.fixture
async def fork_server() -> AsyncIterator[ForkServer]:
    """Yield a fork server for one test."""
    server = ForkServer(os.environ)
    yield server
    await server.close(5.0)
