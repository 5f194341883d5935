"""The Open Inference Protocol over gRPC, on fakes: what is read, what is answered, what is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
from tritonclient.grpc import aio as triton
from tritonclient.grpc import InferInput, service_pb2, service_pb2_grpc

from backends.contract import Task
from tests.fakes import FakeEngine
from tests.oip_house import SAID, OipHouse, oip_house, simple

MODELS = {"simple": (Task.INFER, simple), "chat": (Task.CHAT, lambda: FakeEngine(SAID))}


@asynccontextmanager
async def served() -> AsyncIterator[tuple[OipHouse, triton.InferenceServerClient]]:
    """Serve the models and connect the official client."""
    async with (
        oip_house({name: (task, make()) for name, (task, make) in MODELS.items()}) as house,
        house.grpc() as address,
        triton.InferenceServerClient(address) as client,
    ):
        yield house, client


def pair() -> list[InferInput]:
    """Make the inputs of `simple`."""
    made = []
    for name, row in (("INPUT0", np.arange(16, dtype=np.int32)), ("INPUT1", np.ones(16, np.int32))):
        made.append(InferInput(name, [1, 16], "INT32"))
        made[-1].set_data_from_numpy(row[None])
    return made


async def test_official_client_infers():
    """The client's tensors are added, and its id comes back."""
    async with served() as (_, client):
        answer = await client.infer("simple", pair(), request_id="7")

    assert answer.as_numpy("OUTPUT0").tolist() == [[n + 1 for n in range(16)]]
    assert answer.get_response().id == "7"


async def test_health_and_metadata():
    """What the client asks about the server and its models is answered."""
    async with served() as (_, client):
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("simple")
        assert not await client.is_model_ready("nobody")
        metadata = await client.get_model_metadata("simple", as_json=True)
        config = await client.get_model_config("simple", as_json=True)
    assert [each["name"] for each in metadata["inputs"]] == ["INPUT0", "INPUT1"]
    assert config["config"]["max_batch_size"] == 8
