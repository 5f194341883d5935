"""What the tests of gRPC share: a server of its own on fakes, asked by Triton's client or by a bare stub."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import InferInput, service_pb2, service_pb2_grpc
from tritonclient.grpc import aio as triton

from backends.contract import Task
from tests.fakes import FakeEngine
from tests.oip_house import SAID, OipHouse, oip_house, simple

Models = Mapping[str, tuple[Task, FakeEngine]]


@asynccontextmanager
async def served(models: Models, **options: Any) -> AsyncIterator[tuple[OipHouse, triton.InferenceServerClient]]:
    """Serve the models and connect the official client."""
    async with (
        oip_house(models, **options) as house,
        house.grpc() as address,
        triton.InferenceServerClient(address) as client,
    ):
        yield house, client


@asynccontextmanager
async def stub(models: Models, **options: Any) -> AsyncIterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    """Serve the models and connect to the bare calls."""
    async with (
        oip_house(models, **options) as house,
        house.grpc() as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def sums() -> Models:
    """Make the models of most tests."""
    return {"simple": (Task.INFER, simple())}


def chat(*script: object) -> Models:
    """Make a chat model."""
    return {"chat": (Task.CHAT, FakeEngine(script or SAID))}


def pair() -> list[InferInput]:
    """Make the inputs of `simple`."""
    made = []
    for name, row in (("INPUT0", np.arange(16, dtype=np.int32)), ("INPUT1", np.ones(16, np.int32))):
        made.append(InferInput(name, [1, 16], "INT32"))
        made[-1].set_data_from_numpy(row[None])
    return made


def said(text: str = "Hi") -> list[InferInput]:
    """Make the input of a chat model."""
    made = InferInput("text_input", [1], "BYTES")
    made.set_data_from_numpy(np.array([text.encode()], np.object_))
    return [made]


def typed(datatype: str, shape: list[int], **contents: Any) -> Any:
    """Make a request with typed contents."""
    request = service_pb2.ModelInferRequest(model_name="same")
    tensor = request.inputs.add(name="INPUT0", datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return request


def raw(*contents: bytes, shape: tuple[int, ...] = (1,), **parameters: Any) -> Any:
    """Make a request of raw contents."""
    request = typed("INT32", list(shape))
    request.raw_input_contents.extend(contents)
    for name, value in parameters.items():
        request.inputs[0].parameters[name].string_param = value
    return request


async def each(*requests: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Send these requests in a stream."""
    for request in requests:
        yield request


async def asked(client: triton.InferenceServerClient, *requests: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Send requests in one stream and return every reply and error."""
    return [(result, error) async for result, error in client.stream_infer(each(*requests))]


async def until(look: Callable[[], object]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(90):
        while not look():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)
