"""The official `tritonclient` over HTTP against the running program, with real workers."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ml_dtypes
import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException

from scripts.running_gateway import RunningGateway
from tests import toys
from tests.e2e.program import call, chat_body, serving, until

FIRST = np.arange(16, dtype=np.int32)[None]
SECOND = np.ones((1, 16), np.int32)


def address(gateway: RunningGateway) -> str:
    """Return what the client calls an address."""
    return urlsplit(gateway.url).netloc


@pytest.fixture
def client(tensors: RunningGateway) -> Iterator[triton.InferenceServerClient]:
    """Connect the client."""
    with triton.InferenceServerClient(address(tensors), concurrency=4) as client:
        yield client


def tensor(name: str, values: Any, datatype: str, *, binary: bool = True) -> triton.InferInput:
    """Make an input."""
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def pair(first: Any = FIRST, second: Any = SECOND, datatype: str = "INT32", *, binary: bool = True) -> list[Any]:
    """Make the inputs of `simple`, or of its like."""
    return [tensor("INPUT0", first, datatype, binary=binary), tensor("INPUT1", second, datatype, binary=binary)]


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    """Server and models are ready, though none has been started, and tell what they are."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("simple", "1")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "warmgate"
    assert client.get_model_metadata("simple") == {
        "name": "simple",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": f"INPUT{n}", "datatype": "INT32", "shape": [-1, 16]} for n in (0, 1)],
        "outputs": [{"name": f"OUTPUT{n}", "datatype": "INT32", "shape": [-1, 16]} for n in (0, 1)],
    }
    config = client.get_model_config("simple")
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (8, [16])


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_sums(client: triton.InferenceServerClient, binary: bool, compression: str | None) -> None:
    """Tensors go and come as bytes and as JSON, the body as it is and compressed."""
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("OUTPUT1", "OUTPUT0")]
    answer = client.infer(
        "simple",
        pair(binary=binary),
        outputs=outputs,
        request_id="42",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )

    assert (answer.as_numpy("OUTPUT0") == FIRST + SECOND).all()
    assert (answer.as_numpy("OUTPUT1") == FIRST - SECOND).all()
    assert answer.get_response()["id"] == "42"
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["OUTPUT1", "OUTPUT0"]


def test_a_batch_and_one_that_is_too_large(client: triton.InferenceServerClient) -> None:
    """Eight rows are answered together, nine are refused."""
    eight = np.repeat(FIRST, 8, axis=0)
    answer = client.infer("simple", pair(eight, eight))

    assert (answer.as_numpy("OUTPUT0") == 2 * eight).all()
    nine = np.repeat(FIRST, 9, axis=0)
    with pytest.raises(InferenceServerException, match="batch-size must be <= 8 for 'simple'"):
        client.infer("simple", pair(nine, nine))


@pytest.mark.parametrize("binary", [True, False])
def test_strings(client: triton.InferenceServerClient, binary: bool) -> None:
    """Numbers in decimal digits are added, and any text comes back as it was."""
    digits = [np.array([[str(n).encode() for n in row[0]]], np.object_) for row in (FIRST, SECOND)]
    outputs = [triton.InferRequestedOutput("OUTPUT0", binary_data=binary)]
    added = client.infer("simple_string", pair(*digits, datatype="BYTES", binary=binary), outputs=outputs)
    texts = np.array([["né", "", "日本", "a" * 1000]], np.object_)
    same = client.infer("simple_identity", [tensor("INPUT0", texts, "BYTES", binary=binary)], outputs=outputs)

    assert [int(each) for each in added.as_numpy("OUTPUT0")[0]] == [n + 1 for n in range(16)]
    came = [each if isinstance(each, str) else each.decode() for each in same.as_numpy("OUTPUT0")[0]]
    assert came == texts[0].tolist()


@pytest.mark.parametrize(
    ("model", "datatype", "values"),
    [
        ("identity_fp32", "FP32", np.array([[0.1, math.inf, -0.0]], np.float32)),
        ("identity_fp16", "FP16", np.array([[0.1, 65504.0]], np.float16)),
        ("identity_bf16", "BF16", np.array([[0.5, 2.0]], ml_dtypes.bfloat16)),
        ("identity_bool", "BOOL", np.array([[True, False]])),
    ],
)
def test_datatypes(client: triton.InferenceServerClient, model: str, datatype: str, values: Any) -> None:
    """What goes in comes out, bit for bit."""
    same = client.infer(model, [tensor("INPUT0", values, datatype)]).as_numpy("OUTPUT0")

    assert np.asarray(same).astype(values.dtype).tobytes() == values.tobytes()


def test_numbers_that_json_does_not_have(tensors: RunningGateway) -> None:
    """NaN and the infinities come in JSON that Python reads."""
    body = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1], "data": [0]}]}
    nan, plus, minus = call(tensors.url, "POST", "/v2/models/nan_inf/infer", body).json()["outputs"][0]["data"]

    assert math.isnan(nan)
    assert (plus, minus) == (math.inf, -math.inf)


def test_a_raw_body(tensors: RunningGateway) -> None:
    """A body that is nothing but one tensor is answered with bytes."""
    sent = np.array([1.5, 2.5], "<f4").tobytes()
    header = {"Inference-Header-Content-Length": "0"}
    answered = call(tensors.url, "POST", "/v2/models/identity_fp32/infer", sent, **header)

    assert answered.status == 200
    length = int(answered.headers["inference-header-content-length"])
    assert json.loads(answered.body[:length])["outputs"][0]["shape"] == [1, 2]
    assert answered.body[length:] == sent


def test_many_at_a_time(client: triton.InferenceServerClient) -> None:
    """Requests in flight together each get their own answer."""
    waiting = [client.async_infer("simple", pair(FIRST + n)) for n in range(20)]

    for n, each in enumerate(waiting):
        assert (each.get_result().as_numpy("OUTPUT0") == FIRST + n + 1).all()


def test_best_classes(client: triton.InferenceServerClient) -> None:
    """The best classes of a row come as `value:index`."""
    outputs = [triton.InferRequestedOutput("OUTPUT0", class_count=2)]
    answer = client.infer("simple", pair(), outputs=outputs).as_numpy("OUTPUT0")

    assert [each.decode().split(":")[1] for each in answer[0]] == ["15", "14"]


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        ("nobody", pair(), "Request for unknown model: 'nobody' is not found"),
        ("simple", pair()[:1], "expected 2 inputs but got 1 inputs for model 'simple'"),
        ("simple", pair(FIRST[:, :8], SECOND[:, :8]), "unexpected shape for input 'INPUT0' for model 'simple'"),
        ("simple", [*pair(), tensor("INPUT2", FIRST, "INT32")], "unexpected inference input 'INPUT2'"),
        ("identity_fp32", [tensor("INPUT0", FIRST, "INT32")], "data-type"),
    ],
)
def test_errors(client: triton.InferenceServerClient, model: str, inputs: list[Any], words: str) -> None:
    """The client raises its own error with the words of ours."""
    with pytest.raises(InferenceServerException, match=words):
        client.infer(model, inputs)


def test_an_error_of_the_graph_is_told(client: triton.InferenceServerClient) -> None:
    """What the graph cannot compute fails that request, and the model goes on."""
    words = np.array([["no number"] * 16], np.object_)
    with pytest.raises(InferenceServerException, match="Cast"):
        client.infer("simple_string", pair(words, words, "BYTES"))
    digits = np.array([["1"] * 16], np.object_)
    assert client.infer("simple_string", pair(digits, digits, "BYTES")).as_numpy("OUTPUT0")[0][0] == b"2"


def test_statistics(client: triton.InferenceServerClient) -> None:
    """A run and its repeat are a miss and a hit."""

    def counts() -> dict[str, int]:
        (stats,) = client.get_inference_statistics("simple_int8")["model_stats"]
        told = {kind: each["count"] for kind, each in stats["inference_stats"].items()}
        return {**told, "rows": stats["inference_count"], "executions": stats["execution_count"]}

    before = counts()
    two = np.repeat(FIRST.astype(np.int8), 2, axis=0)
    for _ in range(2):
        client.infer("simple_int8", pair(two, two, "INT8"))
    after = counts()

    grown = {kind: after[kind] - before[kind] for kind in after}
    assert grown == {
        "success": 2, "fail": 0, "queue": 2, "compute_input": 1, "compute_infer": 1, "compute_output": 1,
        "cache_hit": 1, "cache_miss": 1, "rows": 2, "executions": 1,
    }  # fmt: skip


def test_what_is_not_here(client: triton.InferenceServerClient) -> None:
    """Nothing is shared and nothing can be set; the client gets empty lists, and errors for changes."""
    assert client.get_system_shared_memory_status() == []
    assert client.get_cuda_shared_memory_status() == []
    assert client.get_trace_settings() == {}
    assert client.get_log_settings() == {}
    client.unregister_system_shared_memory()
    with pytest.raises(InferenceServerException, match="shares no memory"):
        client.register_system_shared_memory("region", "/key", 64)


def test_models_of_texts(client: triton.InferenceServerClient) -> None:
    """Embedders, classifiers and chat models take their texts as tensors."""
    texts = np.array(["w1 w2", "w3"], np.object_)
    vectors = client.infer("embed", [tensor("text", texts, "BYTES")]).as_numpy("embedding")
    scores = client.infer("predict", [tensor("text", texts, "BYTES")])
    said = client.infer("chat", [tensor("text_input", texts[1:], "BYTES")]).as_numpy("text_output")

    assert np.linalg.norm(vectors, axis=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    assert scores.as_numpy("probabilities").sum(axis=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    assert {label.decode() for label in scores.as_numpy("label")} <= {"even", "odd", "none"}
    assert said.tolist() == [continuation("w3").encode()]


def continuation(text: str, most: int = toys.CONTEXT) -> str:
    """Return what the toy decoder says to a text."""
    prompt = toys.question(text)
    return toys.words(toys.continuation(prompt, min(most, toys.CONTEXT - len(prompt))))


def test_generate(tensors: RunningGateway) -> None:
    """The text is the same whole, in pieces, and over OpenAI's wire, whose cached answer it shares."""
    body = {"text_input": "w3 w5", "parameters": {"max_tokens": 6, "temperature": 0}}
    whole = call(tensors.url, "POST", "/v2/models/chat/generate", body)
    stream = call(tensors.url, "POST", "/v2/models/chat/generate_stream", body, **{"Cache-Control": "no-cache"})
    pieces = [json.loads(line[6:])["text_output"] for line in stream.body.decode().splitlines() if line]
    messages = [{"role": "user", "content": "w3 w5"}]
    openai = {"model": "chat", "messages": messages, "max_tokens": 6, "temperature": 0}
    other = call(tensors.url, "POST", "/v1/chat/completions", openai)

    assert whole.json()["text_output"] == continuation("w3 w5", 6) == "".join(pieces)
    assert len(pieces) > 1
    assert other.json()["choices"][0]["message"]["content"] == whole.json()["text_output"]


def test_repository(tmp_path: Path) -> None:
    """A model is unloaded, gone on every wire, and loaded again: its worker is up when the load returns."""
    model = f"  simple: {{task: infer, onnx: {{path: {toys.simple(tmp_path / 'simple')}}}, pool: {{min: 1}}}}"
    with serving(model) as gateway, triton.InferenceServerClient(address(gateway)) as client:
        assert client.get_model_repository_index() == [
            {"name": "simple", "version": "1", "state": "READY", "reason": ""}
        ]
        client.unload_model("simple")
        assert not client.is_model_ready("simple")
        with pytest.raises(InferenceServerException, match="Request for unknown model"):
            client.infer("simple", pair())
        until(lambda: client.get_model_repository_index()[0]["state"] == "UNAVAILABLE", "the worker has ended")
        assert call(gateway.url, "GET", "/v1/models").json()["data"] == []
        assert call(gateway.url, "GET", "/v1/models/simple").status == 404
        ready = call(gateway.url, "GET", "/readyz")
        assert (ready.status, ready.json()) == (503, {"ready": False, "waiting_for": [], "unloaded": ["simple"]})
        assert call(gateway.url, "GET", "/admin/pools").json()["pools"]["simple"]["unloaded"]
        question = {"path": "/v1/chat/completions", "body": chat_body("simple", "x")}
        assert call(gateway.url, "POST", "/admin/explain", question).json()["route"]["unloaded"] == ["simple"]
        assert call(gateway.url, "POST", "/admin/explain", question, Origin="http://a.example").status == 403

        client.load_model("simple")
        assert client.is_model_ready("simple")
        assert len(call(gateway.url, "GET", "/admin/pools").json()["pools"]["simple"]["replicas"]) == 1
        assert (client.infer("simple", pair()).as_numpy("OUTPUT0") == FIRST + SECOND).all()
        with pytest.raises(InferenceServerException, match="failed to load 'nobody'"):
            client.load_model("nobody")
        with pytest.raises(InferenceServerException, match="cannot override"):
            client.load_model("simple", config='{"max_batch_size": 16}')


async def test_asynchronous_client(tensors: RunningGateway) -> None:
    """The asynchronous client does the same."""
    async with aio.InferenceServerClient(address(tensors)) as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("simple"))["name"] == "simple"
        answer = await client.infer("simple", pair(), request_id="7")
        assert (answer.as_numpy("OUTPUT0") == FIRST + SECOND).all()
        assert (await client.get_inference_statistics("simple"))["model_stats"][0]["name"] == "simple"
        with pytest.raises(InferenceServerException, match="unknown model"):
            await client.infer("nobody", pair())
