"""The Open Inference Protocol over HTTP, on fakes: what is read, what is answered, what is refused."""

import json
import math
from typing import Any

import numpy as np
import pytest

from backends.contract import QueueFull, Task
from gateway.callers.auth import Key
from tests.fakes import FakeEngine
from tests.oip_house import echo, oip_house, simple

ONES, ROW = [1] * 16, list(range(16))
INFER = "/v2/models/simple/infer"
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def question(**more: object) -> dict[str, Any]:
    """Make a question to `simple`."""
    inputs = [
        {"name": name, "datatype": "INT32", "shape": [1, 16], "data": data}
        for name, data in (("INPUT0", ROW), ("INPUT1", [ONES]))
    ]
    return {"inputs": inputs, **more}


def one(datatype: str, data: Any, shape: list[int], **more: Any) -> dict[str, Any]:
    """Make a question of one input."""
    return {"inputs": [{"name": "INPUT0", "datatype": datatype, "shape": shape, "data": data}], **more}


def binary(fields: dict[str, Any], *raw: bytes) -> tuple[bytes, dict[str, str]]:
    """Make a body of JSON and tensors, and its header."""
    head = json.dumps(fields).encode()
    return b"".join([head, *raw]), {"inference_header_content_length": str(len(head))}


async def test_a_question_in_json_is_answered_in_json():
    """Nested and flat data mean the same; the id comes back, and all outputs where none is named."""
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        answer = await house.json("POST", INFER, question(id="42"))

    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", "simple", "1")
    sums, differences = answer["outputs"]
    assert sums == {"name": "OUTPUT0", "datatype": "INT32", "shape": [1, 16], "data": [n + 1 for n in ROW]}
    assert differences["data"] == [n - 1 for n in ROW]


async def test_what_is_null_is_absent():
    """Clients that write every field, some of them as null, mean what is not there."""
    asked = question(id=None, parameters=None, outputs=None)
    asked["inputs"][0]["parameters"] = None
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        answer = await house.json("POST", INFER, asked)

    assert "id" not in answer
    assert len(answer["outputs"]) == 2


async def test_binary_tensors_both_ways():
    """Inputs lie behind the JSON in their order, and so do those outputs that are wanted as bytes."""
    first, second = np.arange(16, dtype="<i4"), np.ones(16, "<i4")
    inputs = [
        {"name": name, "datatype": "INT32", "shape": [1, 16], "parameters": {"binary_data_size": 64}}
        for name in ("INPUT0", "INPUT1")
    ]
    outputs = [{"name": "OUTPUT1", "parameters": {"binary_data": True}}, {"name": "OUTPUT0"}]
    body, header = binary({"inputs": inputs, "outputs": outputs}, first.tobytes(), second.tobytes())
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        reply = await house.call("POST", INFER, body, **header)

    assert isinstance(reply.body, bytes)
    length = int(reply.headers["Inference-Header-Content-Length"])
    told, in_json = json.loads(reply.body[:length])["outputs"]
    assert reply.headers["Content-Type"] == "application/octet-stream"
    assert (told["name"], told["parameters"]) == ("OUTPUT1", {"binary_data_size": 64})
    assert "data" not in told
    assert reply.body[length:] == (first - second).tobytes()
    assert in_json["data"] == (first + second).tolist()


async def test_all_outputs_as_bytes_save_those_named_otherwise():
    """`binary_data_output` holds for every output that does not say `binary_data` itself."""
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        everything = await house.call("POST", INFER, question(parameters={"binary_data_output": True}))
        outputs = [{"name": "OUTPUT0", "parameters": {"binary_data": False}}, {"name": "OUTPUT1"}]
        partly = await house.call("POST", INFER, question(parameters={"binary_data_output": True}, outputs=outputs))

    assert isinstance(everything.body, bytes)
    assert isinstance(partly.body, bytes)
    assert len(everything.body) - int(everything.headers["Inference-Header-Content-Length"]) == 128
    assert len(partly.body) - int(partly.headers["Inference-Header-Content-Length"]) == 64


async def test_a_reply_without_binary_tensors_has_no_header():
    """Where all outputs are in the JSON the body is JSON."""
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        reply = await house.call("POST", INFER, question())

    assert "Inference-Header-Content-Length" not in reply.headers
    assert reply.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("datatype", "shape", "body", "answered"),
    [
        ("FP32", (-1,), np.ones(3, "<f4").tobytes(), [3]),
        ("INT8", (2, -1), b"\x01" * 6, [2, 3]),
        ("UINT16", (2,), b"\x01\x00\x02\x00", [2]),
        ("BYTES", (1,), b"any bytes \xff", [1]),
    ],
)
async def test_a_raw_body_is_the_one_input(datatype, shape, body, answered):
    """With a header of 0 the body is the tensor, the size that is left open follows, and all outputs are bytes."""
    async with oip_house({"same": (Task.INFER, echo(datatype, shape))}) as house:
        reply = await house.call("POST", "/v2/models/same/infer", body, inference_header_content_length="0")

    assert isinstance(reply.body, bytes)
    length = int(reply.headers["Inference-Header-Content-Length"])
    assert json.loads(reply.body[:length])["outputs"][0]["shape"] == answered
    assert reply.body[length:].endswith(body)


async def test_strings():
    """Strings come and go as JSON, or as bytes with their lengths; bytes that are no text go only so."""
    raw = b"\x01\x00\x00\x00a\x02\x00\x00\x00\xff\xfe"
    inputs = [{"name": "INPUT0", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(raw)}}]
    async with oip_house({"same": (Task.INFER, echo("BYTES"))}) as house:
        path = "/v2/models/same/infer"
        texts = await house.json("POST", path, one("BYTES", ["né", ""], [2]))
        body, header = binary({"inputs": inputs, "parameters": {"binary_data_output": True}}, raw)
        reply = await house.call("POST", path, body, **header)
        body, header = binary({"inputs": inputs}, raw)
        status, words = await house.refused("POST", path, body, **header)

    assert texts["outputs"][0]["data"] == ["né", ""]
    assert isinstance(reply.body, bytes)
    assert reply.body.endswith(raw)
    assert status == 400
    assert "binary_data" in words


async def test_numbers_that_json_does_not_have():
    """NaN and the infinities come in as Python's clients write them, and go out as Python reads them."""
    async with oip_house({"same": (Task.INFER, echo("FP32"))}) as house:
        body = json.dumps(one("FP32", [math.nan, math.inf, -math.inf, 0.5], [4])).encode()
        answer = await house.json("POST", "/v2/models/same/infer", body)

    nan, plus, minus, half = answer["outputs"][0]["data"]
    assert math.isnan(nan)
    assert (plus, minus, half) == (math.inf, -math.inf, 0.5)


async def test_best_classes():
    """An output may be asked for as its best classes, best first, for each row."""
    async with oip_house({"same": (Task.INFER, echo("FP32", (-1, 3)))}) as house:
        asked = one("FP32", [0.1, 0.7, 0.2, 5, 4, 3], [2, 3])
        asked["outputs"] = [{"name": "OUTPUT0", "parameters": {"classification": 2}}]
        answer = await house.json("POST", "/v2/models/same/infer", asked)

    best = answer["outputs"][0]
    assert (best["datatype"], best["shape"]) == ("BYTES", [2, 2])
    assert best["data"] == ["0.700000:1", "0.200000:2", "5.000000:0", "4.000000:1"]


async def test_the_same_tensors_in_another_form_are_the_same_question():
    """Whether the data came as JSON or as bytes, the second answer is a hit, in the form that was asked for."""
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        first = await house.call("POST", INFER, question(id="1"))
        inputs = [
            {"name": name, "datatype": "INT32", "shape": [1, 16], "parameters": {"binary_data_size": 64}}
            for name in ("INPUT1", "INPUT0")
        ]
        raw = np.ones(16, "<i4").tobytes(), np.arange(16, dtype="<i4").tobytes()
        body, header = binary({"inputs": inputs, "id": "2"}, *raw)
        second = await house.call("POST", INFER, body, **header)

    assert "fwd=miss" in first.headers["Cache-Status"]
    assert "hit" in second.headers["Cache-Status"]
    assert isinstance(second.body, bytes)
    assert json.loads(second.body)["id"] == "2"


def changed(**changes: object) -> dict[str, Any]:
    """Make a question to `simple` whose first input is changed."""
    asked = question()
    asked["inputs"][0] |= changes
    return asked


HOSTILE = [
    (changed(shape=[2**64 + 32]), "whole numbers"),
    (changed(shape=[2**62, 2**62]), "more than"),
    (changed(shape=[0] + [2**62] * 2), "has 0 elements"),
    (changed(shape=[-1, 16]), "whole numbers"),
    (changed(shape=[True, 16]), "whole numbers"),
    (changed(shape=[1] * 100), "dimensions"),
    (changed(shape="16"), "'shape'"),
    (changed(shape=[1, 15]), "15 elements"),
    (changed(shape=[2, 8]), "unexpected shape"),
    (changed(datatype="INT31"), "'datatype'"),
    (changed(datatype="INT64"), "data-type"),
    (changed(datatype="FP16"), "binary"),
    (changed(datatype="BYTES"), "strings"),
    (changed(data=[1.5] * 16), "float"),
    (changed(data=[2**31] * 16), "out of bounds"),
    (changed(data=["1"] * 16), "str"),
    (changed(data=[[1] * 8] * 2), "nested"),
    (changed(data=[[1] * 16, 1]), "nested"),
    (changed(data=[[[1] * 16]]), "nested"),
    (changed(data=None), "'data'"),
    (changed(name=""), "'name'"),
    (changed(name="INPUT7"), "unexpected inference input 'INPUT7'"),
    (changed(name="INPUT1"), "input 'INPUT1' already exists in request"),
    (changed(parameters={"binary_data_size": 64}), "both"),
    (changed(parameters=[1]), "'parameters'"),
    (question(outputs=[{"name": "OUTPUT0"}] * 2), "output 'OUTPUT0' already exists in request"),
    (question(outputs=[{"name": "OUTPUT7"}]), "unexpected inference output 'OUTPUT7'"),
    (question(outputs=[{"name": "OUTPUT0", "parameters": {"binary_data": 1}}]), "'binary_data'"),
    (question(outputs=[{"name": "OUTPUT0", "parameters": {"classification": -1}}]), "'classification'"),
    (question(outputs=["OUTPUT0"]), "'outputs'"),
    (question(id=7), "'id'"),
    (question(parameters={"sequence_id": 1}), "sequence_id"),
    ({"inputs": question()["inputs"][:1]}, "expected 2 inputs but got 1 inputs for model 'simple'"),
    ({"inputs": []}, "expected 2 inputs but got 0"),
    ({}, "'inputs'"),
    (b"[" * 100_000, "JSON"),
    (b'{"inputs": ' + b"[" * 500 + b"]" * 500 + b"}", "nested"),
    (b'{"inputs": [NaN' + b"[" * 5000, "JSON"),
    (b'{"inputs": NaN, "n": 1' + b"0" * 5000 + b"}", "JSON"),
    (b'{"inputs": [' + b"[]," * 2**20 + b"[]]}", "lists"),
    (b"\xff\xfe", "JSON"),
    (b"17", "object"),
]


@pytest.mark.parametrize(("body", "words"), HOSTILE, ids=[words + str(n) for n, (_, words) in enumerate(HOSTILE)])
async def test_what_is_wrong_with_a_question_is_told(body, words):
    """Every mistake is a 400 that names it; no model is started for it."""
    engine = simple()
    async with oip_house({"simple": (Task.INFER, engine)}) as house:
        status, told = await house.refused("POST", INFER, body)

    assert (status, engine.starts) == (400, 0)
    assert words in told
    assert len(told) < 1000


async def test_batches_are_bounded():
    """More rows than the model takes are refused in Triton's words, and so are inputs that differ in their rows."""
    nine = [{"name": name, "datatype": "INT32", "shape": [9, 16], "data": [1] * 144} for name in ("INPUT0", "INPUT1")]
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        too_many = await house.refused("POST", INFER, {"inputs": nine})
        unlike = await house.refused("POST", INFER, {"inputs": [nine[0], question()["inputs"][1]]})

    assert too_many == (400, "inference request batch-size must be <= 8 for 'simple'")
    assert "differ in their batch size" in unlike[1]


@pytest.mark.parametrize("header", ["-1", "1e3", "\uff12", "999999999999999999999999", str(2**31), "100000", "x", ""])
async def test_a_header_length_that_lies_is_refused(header):
    """The length of the JSON must be a number within the body."""
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        status, told = await house.refused(
            "POST", INFER, json.dumps(question()).encode(), inference_header_content_length=header
        )

    assert status == 400
    assert "Inference-Header-Content-Length" in told


@pytest.mark.parametrize(
    ("sizes", "raw", "words"),
    [
        ((64, 64), 127, "binary_data_size"),
        ((64, 64), 129, "additional"),
        ((64, 60), 124, "byte size 60"),
        ((2**63, 64), 128, "binary_data_size"),
        ((-64, 64), 128, "binary_data_size"),
    ],
)
async def test_binary_sizes_that_do_not_add_up_are_refused(sizes, raw, words):
    """Each tensor's size must be that of its shape, and all together those of the bytes that came."""
    inputs = [
        {"name": f"INPUT{n}", "datatype": "INT32", "shape": [1, 16], "parameters": {"binary_data_size": size}}
        for n, size in enumerate(sizes)
    ]
    body, header = binary({"inputs": inputs}, b"\x00" * raw)
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        status, told = await house.refused("POST", INFER, body, **header)

    assert status == 400
    assert words in told


@pytest.mark.parametrize(
    ("raw", "shape", "words"),
    [
        (b"\xff\xff\xff\xff", [1], "cut off"),
        (b"\x01\x00\x00", [1], "cut off"),
        (b"\x00\x00\x00\x00" * 2, [1], "unexpected number of string elements 2"),
        (b"", [1], "unexpected number of string elements 0"),
        (b"\x00" * 8, [2**40], "at most"),
    ],
)
async def test_strings_whose_lengths_lie_are_refused(raw, shape, words):
    """The lengths of strings must lead to the end of the tensor, with as many strings as its shape says."""
    inputs = [{"name": "INPUT0", "datatype": "BYTES", "shape": shape, "parameters": {"binary_data_size": len(raw)}}]
    body, header = binary({"inputs": inputs}, raw)
    async with oip_house({"same": (Task.INFER, echo("BYTES"))}) as house:
        status, told = await house.refused("POST", "/v2/models/same/infer", body, **header)

    assert status == 400
    assert words in told


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v2/models/nobody/infer", "Request for unknown model: 'nobody' is not found"),
        ("/v2/models/simple/versions/2/infer", "Request for unknown model: 'simple' version 2 is not found"),
        ("/v2/models/nobody/generate", "Request for unknown model: 'nobody' is not found"),
    ],
)
async def test_unknown_models_and_versions(path, words):
    """What is not there is told in the words that clients look for."""
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        assert await house.refused("POST", path, question()) == (404, words)


async def test_every_name_of_the_one_version():
    """A model is found under no version, under 1, and under the name of its content."""
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        for version in ("1", "simple-1"):
            answer = await house.json("POST", f"/v2/models/simple/versions/{version}/infer", question())
            assert answer["model_version"] == "1"


async def test_shared_memory_is_refused():
    """A tensor that is said to lie in shared memory is refused, not read as nothing."""
    region = {"shared_memory_region": "r", "shared_memory_byte_size": 64}
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        status, told = await house.refused("POST", INFER, changed(parameters=region))

    assert status == 501
    assert "shared memory" in told


async def test_an_error_of_the_model_has_the_protocols_shape():
    """Whatever fails is `{"error": "…"}` under its status."""
    async with oip_house({"chat": (Task.CHAT, FakeEngine((QueueFull("full", 1.0),)))}) as house:
        assert await house.refused("POST", "/v2/models/chat/generate", {"text_input": "a"}) == (429, "full")


async def test_keys():
    """A key sees and asks only its models; who may ask one model may not unload it for everybody."""
    models = {"simple": (Task.INFER, simple()), "other": (Task.INFER, simple())}
    async with oip_house(models, keys=[Key("k", ABC, models=("simple",))]) as house:
        key = {"authorization": "Bearer abc"}
        assert (await house.refused("GET", "/v2/models/simple"))[0] == 401
        assert (await house.json("GET", "/v2/models/simple", **key))["name"] == "simple"
        assert (await house.refused("GET", "/v2/models/other", **key))[0] == 403
        assert (await house.refused("POST", "/v2/models/other/infer", question(), **key))[0] == 403
        assert (await house.refused("POST", "/v2/repository/models/simple/unload", **key))[0] == 403
        assert [each["name"] for each in await house.json("POST", "/v2/repository/index", {}, **key)] == ["simple"]
        assert (await house.call("GET", "/v2/health/live")).status == 200
