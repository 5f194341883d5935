"""Whatever bytes come as a request of the Open Inference Protocol, it is read or refused; nothing else is raised."""

import json
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import event, given, settings
from hypothesis import strategies as st

from backends.contract import Task, TensorSpec
from gateway.caching.identity import fingerprint
from gateway.catalog import ModelInfo
from gateway.errors import RequestRefused
from gateway.surfaces.oip.messages import question_of
from gateway.surfaces.oip.proto.inference_pb2 import ModelInferRequest
from gateway.surfaces.oip.questions import to_request
from gateway.surfaces.oip.surface import HEADER_LENGTH, OipSurface
from gateway.surfaces.oip.tensors import DATATYPES
from gateway.surfaces.wire import Call

TEXT = TensorSpec("text_input", "BYTES", (1,)), TensorSpec("text_output", "BYTES", (1,))
SUM = [TensorSpec(name, "INT32", (-1, 2)) for name in ("INPUT0", "INPUT1", "OUTPUT0")]
SAME = [TensorSpec(name, "FP32", (-1, -1)) for name in ("INPUT0", "OUTPUT0")]


def info(name: str, task: Task, inputs: list[TensorSpec], outputs: list[TensorSpec], max_batch: int = 0) -> ModelInfo:
    """Describe a model."""
    return ModelInfo(name, task, "v", "", tuple(inputs), tuple(outputs), max_batch, cached=False)


MODELS = {
    "sum": info("sum", Task.INFER, SUM[:2], SUM[2:], 8),
    "same": info("same", Task.INFER, SAME[:1], SAME[1:]),
    "chat": info("chat", Task.CHAT, [TEXT[0]], [TEXT[1]]),
}
SURFACE = OipSurface(MODELS.get)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.sampled_from(["INPUT0", "INPUT1", "OUTPUT0", "text_input", "text_output"]) | VALUES


def often(*values: Any) -> st.SearchStrategy[Any]:
    """Draw what fits, or anything."""
    return st.sampled_from(values) | VALUES


PARAMETERS = often(None, {}) | st.fixed_dictionaries(
    {},
    optional={
        "binary_data_size": often(0, 8, 4, -1, 2**64),
        "binary_data": often(True, False),
        "classification": often(0, 1, 2**40),
        "binary_data_output": often(True),
        "max_tokens": often(1, 0),
        "stop": often("x", ["x"]),
        "sequence_id": often(0),
    },
)
TENSORS = st.fixed_dictionaries(
    {"name": NAMES, "shape": often([1, 2], [1], [0, 2], [2**64], [-1], [1, [1]], [{}])},
    optional={
        "datatype": often("INT32", "FP32", "BYTES", *DATATYPES),
        "data": often([1, 2], [[1, 2]], ["a"], [1.5, 2.5]),
        "parameters": PARAMETERS,
    },
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "id": often("7", None),
        "inputs": st.lists(TENSORS, max_size=3) | VALUES,
        "outputs": st.lists(st.fixed_dictionaries({"name": NAMES}, optional={"parameters": PARAMETERS}), max_size=2)
        | VALUES,
        "parameters": PARAMETERS,
        "text_input": often("hi"),
    },
)


def written(value: Any) -> bytes:
    """Write JSON as Python's clients do."""
    return json.dumps(value).encode(errors="replace")


@settings(max_examples=400)
@given(
    st.sampled_from(["sum", "same", "chat"]),
    st.sampled_from(["infer", "generate", "generate_stream"]),
    BODIES.map(written) | st.binary(max_size=60),
    st.binary(max_size=24),
    st.none() | st.integers(-1, 40).map(str) | st.text(max_size=5) | st.just("true"),
)
def test_any_body(model: str, verb: str, head: bytes, tail: bytes, header: str | None) -> None:
    """A body is a request whose identity can be told, or a refusal whose words can be written."""
    headers = {} if header is None else {HEADER_LENGTH: str(len(head)) if header == "true" else header}
    tail = b"" if header is None else tail
    call = Call("POST", f"/v2/models/{model}/{verb}", headers, head + tail, None, names={"model": model})
    try:
        request, _ = SURFACE.decode(call, "")
    except RequestRefused:
        event("refused")
        return
    event("read")
    assert len(fingerprint(request)) == 32


@given(st.sampled_from(["sum", "same", "chat"]), st.binary(max_size=80))
def test_any_message(model: str, data: bytes) -> None:
    """So is a message of gRPC, where it is one at all."""
    try:
        message = ModelInferRequest.FromString(data)
    except DecodeError:
        return
    try:
        request = to_request(question_of(message, MODELS[model]), MODELS[model])
    except RequestRefused:
        return
    assert len(fingerprint(request)) == 32


@given(
    st.sampled_from(["sum", "same"]),
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3), max_size=3),
    st.sampled_from(DATATYPES) | st.text(max_size=4),
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
    st.lists(st.binary(max_size=8), max_size=2),
)
def test_any_tensor_in_a_message(
    model: str, shape: list[int], datatype: str, typed: list[int], raw: list[bytes]
) -> None:
    """Shapes, contents and datatypes that do not belong together are refused."""
    message = ModelInferRequest(raw_input_contents=raw)
    for name in ("INPUT0", "INPUT1")[: 2 if model == "sum" else 1]:
        message.inputs.add(name=name, datatype=datatype, shape=shape).contents.int_contents.extend(typed)
    try:
        question = question_of(message, MODELS[model])
    except RequestRefused:
        return
    for tensor in question.inputs:
        assert tensor.shape == tuple(shape)


@pytest.mark.parametrize("size", [10, 10_000])
def test_long_names_are_cut_short_in_the_words(size: int) -> None:
    """What a client wrote is told back in few words, however long it was."""
    body = written({"inputs": [{"name": "x" * size, "datatype": "INT32", "shape": [1], "data": [1]}]})
    with pytest.raises(RequestRefused) as caught:
        SURFACE.decode(Call("POST", "/v2/models/sum/infer", {}, body, None, names={"model": "sum"}), "")
    assert len(str(caught.value)) < 300


def test_numbers_that_json_has_not_open_no_other_way_for_a_body_too_large_to_read() -> None:
    """Only then is the body read by what knows `NaN`, where it could have been read at all."""
    body = b'{"inputs":[' + b"[NaN]," * 2**17 + b"[NaN]]}"
    with pytest.raises(RequestRefused, match="more than 131072 objects and lists"):
        SURFACE.decode(Call("POST", "/v2/models/sum/infer", {}, body, None, names={"model": "sum"}), "")
