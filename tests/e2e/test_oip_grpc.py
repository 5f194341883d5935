"""The official `tritonclient` over gRPC against the running program, with real workers."""

import queue
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient import grpc as triton
from tritonclient.grpc import aio
from tritonclient.utils import InferenceServerException

from scripts.running_gateway import RunningGateway
from tests import toys
from tests.e2e.program import DEADLINE_S, config, in_flight, pool, serving, started, until
from tests.e2e.test_oip_http import FIRST, SECOND, continuation

_SERVES = re.compile(r"^warmgate serves gRPC on (\S+)$", re.MULTILINE)


def address(gateway: RunningGateway) -> str:
    """Return where the program said that it serves gRPC."""
    found = _SERVES.search(gateway.log_text())
    assert found is not None, gateway.log_text()
    return found[1]


@pytest.fixture
def client(tensors: RunningGateway) -> Iterator[triton.InferenceServerClient]:
    """Connect the client."""
    with triton.InferenceServerClient(address(tensors)) as client:
        yield client


def tensor(name: str, values: Any, datatype: str) -> triton.InferInput:
    """Make an input."""
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def pair(first: Any = FIRST, second: Any = SECOND, datatype: str = "INT32") -> list[triton.InferInput]:
    """Make the inputs of `simple`, or of its like."""
    return [tensor("INPUT0", first, datatype), tensor("INPUT1", second, datatype)]


def text(words: str) -> list[triton.InferInput]:
    """Make the input of the chat model."""
    return [tensor("text_input", np.array([words], np.object_), "BYTES")]


def test_health_and_metadata(client: triton.InferenceServerClient, tensors: RunningGateway) -> None:
    """Server and models are ready and tell what they are; gRPC's own health service agrees."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("simple", "1")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata().name == "warmgate"
    metadata = client.get_model_metadata("simple", as_json=True)
    assert metadata["outputs"][1] == {"name": "OUTPUT1", "datatype": "INT32", "shape": ["-1", "16"]}
    assert client.get_model_config("chat").config.model_transaction_policy.decoupled
    with grpc.insecure_channel(address(tensors)) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
    assert health.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_sums(client: triton.InferenceServerClient, compression: str | None) -> None:
    """Tensors go and come, as they are and compressed."""
    outputs = [triton.InferRequestedOutput("OUTPUT1")]
    answer = client.infer("simple", pair(), request_id="42", compression_algorithm=compression)
    named = client.infer("simple", pair(), outputs=outputs, compression_algorithm=compression)

    assert (answer.as_numpy("OUTPUT0") == FIRST + SECOND).all()
    assert answer.get_response().id == "42"
    assert named.as_numpy("OUTPUT0") is None
    assert (named.as_numpy("OUTPUT1") == FIRST - SECOND).all()


@pytest.mark.parametrize(
    ("model", "datatype", "values"),
    [
        ("identity_fp16", "FP16", np.array([[0.1, 65504.0]], np.float16)),
        ("identity_bool", "BOOL", np.array([[True, False]])),
        ("simple_identity", "BYTES", np.array([["né", "", "a" * 1000]], np.object_)),
    ],
)
def test_datatypes(client: triton.InferenceServerClient, model: str, datatype: str, values: Any) -> None:
    """What goes in comes out."""
    same = client.infer(model, [tensor("INPUT0", values, datatype)]).as_numpy("OUTPUT0")

    if datatype == "BYTES":
        assert [each.decode() for each in same[0]] == values[0].tolist()
    else:
        assert same.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("model", "inputs", "words", "status"),
    [
        ("nobody", pair(), "Request for unknown model: 'nobody' is not found", "NOT_FOUND"),
        ("simple", pair()[:1], "expected 2 inputs but got 1 inputs for model 'simple'", "INVALID_ARGUMENT"),
        ("simple", pair(FIRST[:, :8], SECOND[:, :8]), "unexpected shape for input 'INPUT0'", "INVALID_ARGUMENT"),
        (
            "simple",
            [tensor("INPUT0", np.zeros((1, 2**19), np.int32), "INT32")],
            "larger than max",
            "RESOURCE_EXHAUSTED",
        ),
    ],
)
def test_errors(client: triton.InferenceServerClient, model: str, inputs: list[Any], words: str, status: str) -> None:
    """The client raises its own error with the words of ours."""
    with pytest.raises(InferenceServerException, match=words) as caught:
        client.infer(model, inputs)

    assert caught.value.status() == f"StatusCode.{status}"


def test_a_stream(client: triton.InferenceServerClient) -> None:
    """Requests of one stream are answered in turn: a text in pieces, sums in one reply, an error as one."""
    replies: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: replies.put((result, error)))
    client.async_stream_infer("chat", text("w3 w7"), request_id="1", enable_empty_final_response=True)
    pieces = []
    while True:
        result, error = replies.get(timeout=DEADLINE_S)
        assert error is None
        assert result.get_response().id == "1"
        if result.get_response().parameters["triton_final_response"].bool_param:
            break
        pieces.append(result.as_numpy("text_output")[0].decode())
    client.async_stream_infer("nobody", pair())
    client.async_stream_infer("simple", pair())
    _, error = replies.get(timeout=DEADLINE_S)
    added, _ = replies.get(timeout=DEADLINE_S)
    client.stop_stream()

    assert "".join(pieces) == continuation("w3 w7")
    assert len(pieces) > 1
    assert "unknown model" in error.message()
    assert (added.as_numpy("OUTPUT0") == FIRST + SECOND).all()


def test_a_text_is_the_same_whole(client: triton.InferenceServerClient) -> None:
    """The text that a stream gives in pieces is that of the whole reply."""
    said = client.infer("chat", text("w3 w9"), parameters={"max_tokens": 6}).as_numpy("text_output")

    assert said.tolist() == [continuation("w3 w9", 6).encode()]


def test_statistics(client: triton.InferenceServerClient) -> None:
    """Both transports count together."""
    before = client.get_inference_statistics("simple").model_stats[0].inference_stats.success.count
    client.infer("simple", pair())

    assert client.get_inference_statistics("simple").model_stats[0].inference_stats.success.count == before + 1


def test_repository(tmp_path: Path) -> None:
    """A model is unloaded, gone, and loaded again."""
    model = f"  simple: {{task: infer, onnx: {{path: {toys.simple(tmp_path / 'simple')}}}}}"
    with (
        serving(model, server="grpc: 127.0.0.1:0") as gateway,
        triton.InferenceServerClient(address(gateway)) as client,
    ):
        assert client.get_model_repository_index().models[0].state == "READY"
        client.unload_model("simple")
        assert not client.is_model_ready("simple")
        with pytest.raises(InferenceServerException, match="Request for unknown model"):
            client.infer("simple", pair())
        client.load_model("simple")
        assert len(pool(gateway.url, "simple")["replicas"]) == 1
        assert (client.infer("simple", pair()).as_numpy("OUTPUT0") == FIRST + SECOND).all()


async def test_asynchronous_client(tensors: RunningGateway) -> None:
    """The asynchronous client does the same, streams included."""

    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": "chat", "inputs": text("w3 w11")}

    async with aio.InferenceServerClient(address(tensors)) as client:
        assert await client.is_server_ready()
        assert ((await client.infer("simple", pair())).as_numpy("OUTPUT0") == FIRST + SECOND).all()
        replies = [result async for result, error in client.stream_infer(requests()) if error is None]
        with pytest.raises(InferenceServerException, match="unknown model"):
            await client.infer("nobody", pair())

    assert "".join(reply.as_numpy("text_output")[0].decode() for reply in replies) == continuation("w3 w11")


def test_a_client_that_leaves_frees_the_worker(client: triton.InferenceServerClient, tensors: RunningGateway) -> None:
    """A stream that its client breaks off leaves nothing in flight."""
    replies: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: replies.put((result, error)))
    client.async_stream_infer("chat", text(toys.ENDLESS))
    replies.get(timeout=DEADLINE_S)
    client.stop_stream(cancel_requests=True)

    until(lambda: in_flight(tensors.url, "chat") == 0, "the worker is free")


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With certificate files both transports speak TLS."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    files = f"tls: {{certificate: {tmp_path / 'both.pem'}, key: {tmp_path / 'both.pem'}}}"
    model = f"  simple: {{task: infer, onnx: {{path: {toys.simple(tmp_path / 'simple')}}}}}"
    with started(config(tmp_path, model, server=f"grpc: 127.0.0.1:0, {files}"), tmp_path) as (gateway, _):
        roots = str(tmp_path / "authority.pem")
        with triton.InferenceServerClient(address(gateway), ssl=True, root_certificates=roots) as client:
            assert (client.infer("simple", pair()).as_numpy("OUTPUT0") == FIRST + SECOND).all()
