"""The Open Inference Protocol over gRPC, on fakes: what is read, what is answered, what is refused."""

import asyncio
import math
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import InferInput, InferRequestedOutput, service_pb2
from tritonclient.utils import InferenceServerException

from backends.contract import Finish, QueueFull, StartFailed, Task, Text
from gateway.callers.auth import Key
from tests.fakes import FakeEngine
from tests.oip_grpc_house import chat, pair, raw, said, served, stub, sums, typed, until
from tests.oip_house import SCORES, echo, oip_house, simple

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


async def test_official_client_infers():
    """The client's tensors are added, its id comes back, and only what it names, in its order."""
    async with served(sums()) as (_, client):
        answer = await client.infer("simple", pair(), request_id="7")
        named = await client.infer(
            "simple", pair(), outputs=[InferRequestedOutput("OUTPUT1"), InferRequestedOutput("OUTPUT0")]
        )

    assert answer.as_numpy("OUTPUT0").tolist() == [[n + 1 for n in range(16)]]
    assert (answer.get_response().id, answer.get_response().model_version) == ("7", "1")
    assert [output.name for output in named.get_response().outputs] == ["OUTPUT1", "OUTPUT0"]


async def test_health_and_metadata():
    """What the client asks about the server and its models is answered."""
    async with served(sums()) as (_, client):
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("simple", "1")
        assert not await client.is_model_ready("simple", "2")
        assert not await client.is_model_ready("nobody")
        server = await client.get_server_metadata(as_json=True)
        metadata = await client.get_model_metadata("simple", as_json=True)
        config = (await client.get_model_config("simple", as_json=True))["config"]

    assert server["name"] == "warmgate"
    assert metadata["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": ["-1", "16"]}
    assert (config["max_batch_size"], config["input"][0]["data_type"]) == (8, "TYPE_INT32")
    assert config["dynamic_batching"]["preferred_batch_size"] == [8]


async def test_statistics():
    """A run, a hit and a failure are counted."""
    async with served(sums()) as (_, client):
        await client.infer("simple", pair())
        await client.infer("simple", pair())
        told = await client.get_inference_statistics("simple", as_json=True)
        everything = await client.get_inference_statistics(as_json=True)

    (stats,) = told["model_stats"]
    assert told == everything
    assert (stats["inference_count"], stats["execution_count"]) == ("1", "1")
    assert stats["inference_stats"]["success"]["count"] == "2"
    assert stats["inference_stats"]["cache_hit"]["count"] == "1"
    assert int(stats["inference_stats"]["compute_infer"]["ns"]) > 0


async def test_repository():
    """A model is listed, unloaded, gone, and loaded again."""
    async with served(sums()) as (_, client):
        assert (await client.get_model_repository_index()).models[0].state == "READY"
        await client.unload_model("simple")
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'simple' is not found"):
            await client.infer("simple", pair())
        assert not await client.is_model_ready("simple")
        await client.load_model("simple")
        assert await client.is_model_ready("simple")
        with pytest.raises(InferenceServerException, match="failed to load 'nobody'"):
            await client.load_model("nobody")
        with pytest.raises(InferenceServerException, match="cannot override"):
            await client.load_model("simple", config='{"max_batch_size": 16}')


async def test_what_is_not_here_is_empty_or_refused():
    """Nothing is shared and nothing can be set."""
    async with served(sums()) as (_, client):
        assert not (await client.get_system_shared_memory_status()).regions
        assert not (await client.get_cuda_shared_memory_status()).regions
        assert not (await client.get_trace_settings()).settings
        assert not (await client.get_log_settings()).settings
        await client.unregister_system_shared_memory()
        for refused in (
            client.register_system_shared_memory("a", "/a", 8),
            client.update_log_settings({"log_verbose_level": 1}),
        ):
            with pytest.raises(InferenceServerException) as caught:
                await refused
            assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


CONTENTS: list[tuple[str, str, list[Any]]] = [
    ("BOOL", "bool_contents", [True, False]),
    ("UINT8", "uint_contents", [0, 255]),
    ("UINT16", "uint_contents", [0, 65535]),
    ("UINT32", "uint_contents", [0, 2**32 - 1]),
    ("UINT64", "uint64_contents", [0, 2**64 - 1]),
    ("INT8", "int_contents", [-128, 127]),
    ("INT16", "int_contents", [-(2**15), 2**15 - 1]),
    ("INT32", "int_contents", [-(2**31), 2**31 - 1]),
    ("INT64", "int64_contents", [-(2**63), 2**63 - 1]),
    ("FP32", "fp32_contents", [0.5, math.inf]),
    ("FP64", "fp64_contents", [1e300, -math.inf]),
    ("BYTES", "bytes_contents", [b"a", b"\xff"]),
]


@pytest.mark.parametrize(("datatype", "field", "values"), CONTENTS, ids=[each[0] for each in CONTENTS])
async def test_typed_contents(datatype, field, values):
    """Every datatype that has a typed field is read from it; the reply is bytes."""
    async with stub({"same": (Task.INFER, echo(datatype))}) as calls:
        reply = await calls.ModelInfer(typed(datatype, [2], **{field: values}))

    (raw,) = reply.raw_output_contents
    if datatype == "BYTES":
        assert raw == b"\x01\x00\x00\x00a\x01\x00\x00\x00\xff"
    else:
        kind = {"BOOL": "?", "FP32": "<f4", "FP64": "<f8"}.get(datatype, f"<{datatype[0].lower()}{0}")
        width = len(raw) // 2
        dtype = kind if "0" not in kind else kind.replace("0", str(width))
        assert np.frombuffer(raw, dtype).tolist() == values


def raw_and_typed() -> Any:
    """Make a request that sends its data twice."""
    request = typed("INT32", [1], int_contents=[1])
    request.raw_input_contents.append(b"\x01\x00\x00\x00")
    return request


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (raw_and_typed(), grpc.StatusCode.INVALID_ARGUMENT, "contents field must not be specified"),
        (raw(b"", b""), grpc.StatusCode.INVALID_ARGUMENT, "one entry"),
        (raw(b"\x01\x00"), grpc.StatusCode.INVALID_ARGUMENT, "unexpected total byte size 2"),
        (raw(b"", shape=(2**62, 2**62)), grpc.StatusCode.INVALID_ARGUMENT, "more than"),
        (raw(b"", shape=(-1,)), grpc.StatusCode.INVALID_ARGUMENT, "whole numbers"),
        (raw(b"", shared_memory_region="r"), grpc.StatusCode.UNIMPLEMENTED, "shared memory"),
        (typed("INT32", [2], int_contents=[1]), grpc.StatusCode.INVALID_ARGUMENT, "2 elements"),
        (typed("INT32", [1], fp32_contents=[1]), grpc.StatusCode.INVALID_ARGUMENT, "int_contents"),
        (typed("INT8", [1], int_contents=[300]), grpc.StatusCode.INVALID_ARGUMENT, "out of bounds"),
        (typed("FP16", [1], fp32_contents=[1]), grpc.StatusCode.INVALID_ARGUMENT, "raw_input_contents"),
        (typed("INT31", [1], int_contents=[1]), grpc.StatusCode.INVALID_ARGUMENT, "'datatype'"),
        (service_pb2.ModelInferRequest(model_name="nobody"), grpc.StatusCode.NOT_FOUND, "unknown model"),
        (
            service_pb2.ModelInferRequest(model_name="same", model_version="9"),
            grpc.StatusCode.NOT_FOUND,
            "version 9 is not found",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_wrong_with_a_request_is_told(request_, code, words):
    """Mistakes are statuses that name them."""
    async with stub({"same": (Task.INFER, echo("INT32"))}) as calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await calls.ModelInfer(request_)

    assert caught.value.code() is code
    assert words in (caught.value.details() or "")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (QueueFull("full", 1.0), grpc.StatusCode.UNAVAILABLE, None),
        (StartFailed("cannot start"), grpc.StatusCode.UNAVAILABLE, "status 503, start_failed, model chat"),
        (RuntimeError("secret"), grpc.StatusCode.INTERNAL, "unexpected error"),
    ],
)
async def test_what_goes_wrong_in_a_model_has_a_status(caplog, error, code, line):
    """Errors of models are statuses; the log names the request, where it is our doing, and keeps what a defect says."""
    async with served(chat(error)) as (_, client):
        with pytest.raises(InferenceServerException) as caught:
            await client.infer("chat", said(), request_id="a\nb")

    lines = [record.getMessage() for record in caplog.records if record.name.startswith("gateway")]
    assert lines == ([] if line is None else [rf"request 'a\nb' of gRPC: {line}"])

    assert caught.value.status() == str(code)
    assert "secret" not in caught.value.message()


async def test_a_message_that_is_too_large_is_refused():
    """What exceeds the limit of bodies is refused before it is read."""
    async with stub({"same": (Task.INFER, echo("INT32"))}) as calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await calls.ModelInfer(raw(b"\x00" * (2 << 20)))

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_models_of_texts():
    """A classifier takes texts and gives labels and probabilities."""
    text = InferInput("text", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"a"], np.object_))
    async with served({"predict": (Task.PREDICT, FakeEngine((SCORES, Finish("stop"))))}) as (_, client):
        answer = await client.infer("predict", [text])

    assert answer.as_numpy("label").tolist() == [b"yes"]
    assert answer.as_numpy("probabilities").tolist() == [[0.25, 0.75]]


async def test_a_deadline_passes():
    """A call whose time is over ends with that status, and its model is free again."""
    gate = asyncio.Event()
    engine = FakeEngine((Text("He"), gate, Finish("stop")))
    async with served({"chat": (Task.CHAT, engine)}) as (_, client):
        with pytest.raises(InferenceServerException) as caught:
            await client.infer("chat", said(), client_timeout=0.2)
        await until(lambda: not engine.backends[0].running)

    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"


async def test_keys():
    """A key is taken from the metadata; without one, and for other models, the call is refused."""
    key = {"authorization": "Bearer abc"}
    models = {"simple": (Task.INFER, simple()), "other": (Task.INFER, simple())}
    async with served(models, keys=[Key("k", ABC, models=("simple",))]) as (_, client):
        await client.infer("simple", pair(), headers=key)
        assert await client.is_server_live()
        for call, code in (
            (client.infer("simple", pair()), "UNAUTHENTICATED"),
            (client.infer("simple", pair(), headers={"x-api-key": "other"}), "UNAUTHENTICATED"),
            (client.infer("other", pair(), headers=key), "PERMISSION_DENIED"),
            (client.get_model_metadata("other", headers=key), "PERMISSION_DENIED"),
            (client.unload_model("simple", headers=key), "PERMISSION_DENIED"),
            (client.get_server_metadata(), "UNAUTHENTICATED"),
        ):
            with pytest.raises(InferenceServerException) as caught:
                await call
            assert caught.value.status() == f"StatusCode.{code}"
        index = await client.get_model_repository_index(headers=key)
        assert [model.name for model in index.models] == ["simple"]


async def test_a_cached_answer_says_so():
    """What the caches did is in the metadata that follows the reply, and a client may ask to go by them.

    It may say so among other words for them, each an item of its own.
    """
    async with stub({"same": (Task.INFER, echo("INT32"))}) as calls:
        request = typed("INT32", [1], int_contents=[1])
        told = []
        for metadata in ((), (), (("cache-control", "no-cache"), ("cache-control", "max-age=100"))):
            call = calls.ModelInfer(request, metadata=metadata)
            await call
            told.append(dict(await call.trailing_metadata())["cache-status"])

    assert "fwd=miss" in told[0]
    assert "hit" in told[1]
    assert "fwd=request" in told[2]


async def test_standard_health():
    """The health service that all of gRPC has says the same, also to who watches; another service is unknown."""
    async with oip_house(sums()) as house, house.grpc() as address, grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        for service in ("", "inference.GRPCInferenceService"):
            assert (await health.Check(health_pb2.HealthCheckRequest(service=service))).status == serving
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == serving
        pool = house.house.pools["simple"]
        pool.limits = type(pool.limits)(min_replicas=1, max_replicas=0)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


async def test_a_port_that_is_taken_is_an_error():
    """Two servers do not share a port."""
    async with oip_house(sums()) as house:
        server, address = await house.grpc_server()
        port = int(address.rpartition(":")[2])
        with pytest.raises(OSError, match="cannot listen for gRPC"):
            await house.grpc_server(port)
        await server.drain(0.0)
