"""The Open Inference Protocol over HTTP, on fakes: what is read, what is answered, what is refused."""

import json

import numpy as np

from backends.contract import Task
from tests.oip_house import oip_house, simple

ONES, ROW = [1] * 16, list(range(16))
INFER = "/v2/models/simple/infer"


def question(**more: object) -> dict[str, object]:
    """Make a question to `simple`."""
    inputs = [
        {"name": name, "datatype": "INT32", "shape": [1, 16], "data": data}
        for name, data in (("INPUT0", ROW), ("INPUT1", [ONES]))
    ]
    return {"inputs": inputs, **more}


async def test_a_question_in_json_is_answered_in_json():
    """Nested and flat data mean the same; the id comes back, and all outputs where none is named."""
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        answer = await house.json("POST", INFER, question(id="42"))

    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", "simple", "1")
    sums, differences = answer["outputs"]
    assert sums == {"name": "OUTPUT0", "datatype": "INT32", "shape": [1, 16], "data": [n + 1 for n in ROW]}
    assert differences["data"] == [n - 1 for n in ROW]


async def test_binary_tensors_both_ways():
    """Inputs lie behind the JSON in their order, and so do those outputs that are wanted as bytes."""
    one, other = np.arange(16, dtype="<i4"), np.ones(16, "<i4")
    inputs = [
        {"name": name, "datatype": "INT32", "shape": [1, 16], "parameters": {"binary_data_size": 64}}
        for name in ("INPUT1", "INPUT0")
    ]
    outputs = [{"name": "OUTPUT1", "parameters": {"binary_data": True}}, {"name": "OUTPUT0"}]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        reply = await house.call(
            "POST",
            INFER,
            head + one.tobytes() + other.tobytes(),
            inference_header_content_length=str(len(head)),
        )

    length = int(reply.headers["Inference-Header-Content-Length"])
    assert isinstance(reply.body, bytes)
    first, second = json.loads(reply.body[:length])["outputs"]
    assert reply.headers["Content-Type"] == "application/octet-stream"
    assert (first["name"], first["parameters"]) == ("OUTPUT1", {"binary_data_size": 64})
    assert "data" not in first
    assert reply.body[length:] == (one - other).tobytes()
    assert second["data"] == (one + other).tolist()
