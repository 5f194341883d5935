"""`infer` over HTTP: a question in JSON with binary tensors behind it, or one raw tensor; and its reply likewise.

Knows no cache and no pool. Source of the shapes: the protocol's text and its binary tensor extension.
"""

import math
from collections.abc import Mapping
from typing import Any

import orjson

from backends.contract import Tensor, TensorSpec
from gateway.answer import Answer
from gateway.catalog import ModelInfo
from gateway.errors import Fault, InvalidRequest, Unsupported
from gateway.fields import cut, refuse
from gateway.request import Request
from gateway.surfaces.oip import tensors
from gateway.surfaces.oip.answers import outputs_of, reply_head
from gateway.surfaces.oip.generate import GENERATE, GENERATE_STREAM, decode_generate
from gateway.surfaces.oip.json_body import id_of, parameters_of, parse
from gateway.surfaces.oip.questions import Lookup, Question, Wanted, known, to_request
from gateway.surfaces.wire import JSON, Call, Encoder, Failure, Whole

HEADER_LENGTH = "inference-header-content-length"
_BINARY = "application/octet-stream"
_MODEL = "/v2/models/{model}"
_VERSION = f"{_MODEL}/versions/{{version}}"
_MAX_CLASSES = 2**20
_MAX_DIGITS = 18
_MAX_TENSORS = 2**10


class OipSurface:
    """Decodes the protocol's requests and encodes their replies."""

    name = "oip"
    paths = frozenset(f"{base}/{verb}" for base in (_MODEL, _VERSION) for verb in ("infer", GENERATE, GENERATE_STREAM))

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def decode(self, call: Call, reply_id: str) -> tuple[Request, Encoder]:
        """Read a request of any of this surface's paths."""
        del reply_id  # a reply has the id that its request brought, or none
        version = call.names.get("version", "")
        info = known(self._lookup, call.names["model"], version)
        verb = call.path.rpartition("/")[2]
        if verb != "infer":
            return decode_generate(info, call.body, streamed=verb == GENERATE_STREAM)
        header = call.headers.get(HEADER_LENGTH)
        length = len(call.body) if header is None else _header_length(header, len(call.body))
        if length == 0 and header is not None:
            question = _raw_question(info, version, call.body)
        else:
            question = _question(info, version, call.body, length)
        return to_request(question, info), InferEncoder(question)

    def failure(self, fault: Fault) -> Failure:
        """Encode an error as a status and a body."""
        return Failure(fault.status, _error(fault))

    def failure_frame(self, fault: Fault) -> bytes:
        """Encode an error in the middle of a stream."""
        return b"data: " + _error(fault) + b"\n\n"


class InferEncoder:
    """The reply to `infer`: JSON, with those outputs behind it that the client wants as bytes."""

    frames = None

    def __init__(self, question: Question) -> None:
        self._question = question

    def whole(self, answer: Answer) -> Whole:
        """Encode a complete answer as one body. Raises `InvalidRequest` for an output that JSON cannot write."""
        question = self._question
        by_default = question.parameters.get("binary_data_output") is True
        binary = {wanted.name: by_default if wanted.binary is None else wanted.binary for wanted in question.outputs}
        outputs: list[dict[str, object]] = []
        behind: list[bytes] = []
        for tensor in outputs_of(answer, question.outputs):
            described: dict[str, object] = {
                "name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape
            }  # fmt: skip
            if binary.get(tensor.name, by_default):
                described["parameters"] = {"binary_data_size": len(tensor.data)}
                behind.append(tensor.data)
            else:
                described["data"] = tensors.to_json(tensor)
            outputs.append(described)
        body = orjson.dumps({**reply_head(question.model, question.id), "outputs": outputs})
        if not behind:
            return Whole(body, JSON)
        return Whole(b"".join([body, *behind]), _BINARY, {"Inference-Header-Content-Length": str(len(body))})


def _error(fault: Fault) -> bytes:
    return orjson.dumps({"error": fault.message})


def _header_length(header: str, received: int) -> int:
    """Read how long the JSON is; what follows it are tensors."""
    if not header.isascii() or not header.isdigit() or len(header) > _MAX_DIGITS or int(header) > received:
        raise InvalidRequest(
            f"Inference-Header-Content-Length must be a whole number from 0 to {received},"
            f" the length of the body, got '{cut(header)}'"
        )
    return int(header)


def _question(info: ModelInfo, version: str, body: bytes, length: int) -> Question:
    fields = parse(body[:length])
    inputs, behind = [], memoryview(body)[length:]
    for item in _objects(fields, "inputs"):
        tensor, behind = _input(item, behind)
        inputs.append(tensor)
    if len(behind):
        raise InvalidRequest(f"unexpected additional input data for model '{info.name}': {len(behind)} bytes")
    outputs = tuple([_wanted(item) for item in _objects(fields, "outputs")])
    return Question(info.name, version, id_of(fields), parameters_of(fields), tuple(inputs), outputs)


def _objects(fields: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    value = fields.get(name)
    if value is None and name == "outputs":
        return []
    if not isinstance(value, list) or len(value) > _MAX_TENSORS or not all(isinstance(item, dict) for item in value):
        raise refuse(name, value, f"a list of at most {_MAX_TENSORS} objects")
    return value


def _input(item: dict[str, Any], behind: memoryview) -> tuple[Tensor, memoryview]:
    """Read one input; return it with the bytes that are left for those after it."""
    name, shape = tensors.check_name(item.get("name")), item.get("shape")
    if not isinstance(shape, list):
        raise refuse("shape", shape, f"a list of whole numbers for input '{cut(name)}'")
    datatype = tensors.check_datatype(name, item.get("datatype"))
    parameters = parameters_of(item)
    _refuse_shared_memory(parameters, name)
    if (size := parameters.get("binary_data_size")) is None:
        return tensors.from_json(name, datatype, shape, item.get("data")), behind
    if item.get("data") is not None:
        raise InvalidRequest(f"input '{cut(name)}' has both 'data' and 'binary_data_size'", "data")
    if type(size) is not int or not 0 <= size <= len(behind):
        raise refuse("binary_data_size", size, f"a whole number from 0 to {len(behind)}, the bytes that are left")
    return tensors.from_raw(name, datatype, shape, bytes(behind[:size])), behind[size:]


def _wanted(item: dict[str, Any]) -> Wanted:
    name, parameters = tensors.check_name(item.get("name")), parameters_of(item)
    _refuse_shared_memory(parameters, name)
    binary, classes = parameters.get("binary_data"), parameters.get("classification", 0)
    if not isinstance(binary, bool | None):
        raise refuse("binary_data", binary, "true or false")
    if type(classes) is not int or not 0 <= classes <= _MAX_CLASSES:
        raise refuse("classification", classes, f"a whole number from 0 to {_MAX_CLASSES}")
    return Wanted(name, binary, classes)


def _refuse_shared_memory(parameters: Mapping[str, Any], name: str) -> None:
    if "shared_memory_region" in parameters:
        raise Unsupported(f"'{cut(name)}' lies in shared memory, which is not shared with this server")


def _raw_question(info: ModelInfo, version: str, body: bytes) -> Question:
    """Read a body that is the one input of a batch of one; all outputs then come as bytes."""
    if len(info.inputs) != 1:
        raise InvalidRequest(
            f"raw input must only have 1 input (found {len(info.inputs)}) to be deduced but model '{info.name}'"
        )
    spec = info.inputs[0]
    if spec.datatype == tensors.BYTES:
        body = tensors.pack_strings([body])
    shape = _raw_shape(info, spec, len(body))
    tensor = tensors.from_raw(spec.name, spec.datatype, shape, body)
    return Question(info.name, version, "", {"binary_data_output": True}, (tensor,))


def _raw_shape(info: ModelInfo, spec: TensorSpec, size: int) -> list[int]:
    """Deduce the one size that the model leaves open."""
    batch, dims = ([1], list(spec.shape[1:])) if info.max_batch > 0 else ([], list(spec.shape))
    if dims.count(-1) > 1:
        raise InvalidRequest(f"the shape of input '{spec.name}' has more than one size open: it cannot be deduced")
    if -1 in dims:
        row = tensors.width(spec.datatype) * math.prod(each for each in dims if each != -1)
        dims[dims.index(-1)] = 1 if spec.datatype == tensors.BYTES else size // row if row else 0
    return [*batch, *dims]
