"""What the tests of the onnx engine share: a replica of a directory, and what the toy chat model is asked and says."""

import contextlib
from collections.abc import AsyncIterator

from backends.contract import (
    Job,
    Message,
    Sampling,
    Task,
    Text,
)
from backends.onnx import OnnxEngine, OnnxReplica
from tests import toys


@contextlib.asynccontextmanager
async def started(server, directory) -> AsyncIterator[OnnxReplica]:
    """Bring one replica of a model directory up."""
    engine = await OnnxEngine.open(directory, server, threads=1)
    replica = await engine.start()
    try:
        yield replica
    finally:
        await replica.close()


def ask(text, **sampling: object) -> Job:
    """Make a chat job."""
    return Job(Task.CHAT, messages=(Message("user", text),), sampling=Sampling(**sampling))


async def read_on(stream) -> None:
    """Read a stream to its end."""
    async for _ in stream:
        pass


async def said(replica, job) -> str:
    """Return a job's whole text."""
    return "".join([event.text async for event in replica.stream(job) if isinstance(event, Text)])


def expected(text) -> str:
    """Return what the toy chat model answers."""
    prompt = toys.question(text)
    return toys.words(toys.continuation(prompt, toys.CONTEXT - len(prompt)))
