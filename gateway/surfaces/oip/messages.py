"""Questions and answers as messages of gRPC. Pure: knows no server."""

from collections.abc import Mapping, Sequence
from typing import Any

from backends.contract import Tensor
from gateway.answer import Answer
from gateway.catalog import VERSION, ModelInfo
from gateway.errors import InvalidRequest, Unsupported
from gateway.fields import cut
from gateway.surfaces.oip import tensors
from gateway.surfaces.oip.answers import outputs_of
from gateway.surfaces.oip.proto.inference_pb2 import InferParameter, ModelInferRequest, ModelInferResponse
from gateway.surfaces.oip.questions import Question, Wanted

FINAL = "triton_final_response"
"""Tells the client of a stream whether this was the last reply to its request."""

# Where the elements of each datatype are, if they are not sent as bytes; what is not here is only sent as bytes.
_CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def question_of(request: ModelInferRequest, info: ModelInfo) -> Question:
    """Read a request. Raises `InvalidRequest`."""
    raw = request.raw_input_contents
    if raw and any(each.HasField("contents") for each in request.inputs):
        raise InvalidRequest("contents field must not be specified when using raw_input_contents")
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest(
            f"expected one entry of raw_input_contents for each of {len(request.inputs)} inputs, got {len(raw)}"
        )
    inputs = [_input(each, raw[place] if raw else None) for place, each in enumerate(request.inputs)]
    outputs = [_wanted(each) for each in request.outputs]
    parameters = {name: _value(value) for name, value in request.parameters.items()}
    return Question(info.name, request.model_version, request.id, parameters, tuple(inputs), tuple(outputs))


def _input(sent: ModelInferRequest.InferInputTensor, raw: bytes | None) -> Tensor:
    name, shape = tensors.check_name(sent.name), list(sent.shape)
    _refuse_shared_memory(name, sent.parameters)
    datatype = tensors.check_datatype(name, sent.datatype)
    if raw is not None:
        return tensors.from_raw(name, datatype, shape, raw)
    if datatype not in _CONTENTS:
        raise InvalidRequest(f"{datatype} data of input '{cut(name)}' can only be sent in raw_input_contents")
    values = getattr(sent.contents, _CONTENTS[datatype])
    elements = tensors.count(name, shape)
    if len(values) != elements:
        raise InvalidRequest(
            f"input '{cut(name)}' has {elements} elements by its shape {shape},"
            f" and its contents have {len(values)} in {_CONTENTS[datatype]}"
        )
    return tensors.from_values(name, datatype, shape, list(values))


def _wanted(sent: ModelInferRequest.InferRequestedOutputTensor) -> Wanted:
    _refuse_shared_memory(tensors.check_name(sent.name), sent.parameters)
    classes = sent.parameters["classification"].int64_param if "classification" in sent.parameters else 0
    if classes < 0:
        raise InvalidRequest(f"'classification' of output '{cut(sent.name)}' must be 0 or more, got {classes}")
    return Wanted(sent.name, classes=classes)


def _refuse_shared_memory(name: str, parameters: Mapping[str, InferParameter]) -> None:
    if "shared_memory_region" in parameters:
        raise Unsupported(f"'{cut(name)}' lies in shared memory, which is not shared with this server")


def _value(parameter: InferParameter) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


def response_of(question: Question, answer: Answer) -> ModelInferResponse:
    """Write the whole reply, its tensors as bytes. Raises `InvalidRequest` for an output that cannot be had."""
    return response(question, outputs_of(answer, question.outputs))


def response(question: Question, outputs: Sequence[Tensor], *, final: bool | None = None) -> ModelInferResponse:
    """Write a reply of these tensors; `final` is told to the client of a stream."""
    made = ModelInferResponse(
        model_name=question.model,
        model_version=VERSION,
        id=question.id,
        outputs=[
            ModelInferResponse.InferOutputTensor(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            for tensor in outputs
        ],
        raw_output_contents=[tensor.data for tensor in outputs],
    )
    if final is not None:
        made.parameters[FINAL].bool_param = final
    return made
