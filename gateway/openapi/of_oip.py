"""What is served of the Open Inference Protocol over HTTP."""

from gateway.openapi.shapes import (
    ANY_OBJECT,
    ASKED_HEADERS,
    EVENTS,
    FLAG,
    MODEL,
    TEXT,
    WHOLE,
    WORDS,
    Operations,
    Schema,
    answer,
    either,
    errors,
    in_path,
    listed,
    nullable,
    one_of,
    operation,
    record,
    whole,
)  # fmt: skip

WIRE = "Oip"
_TAG = "Open Inference Protocol"

ERROR = record({"error": TEXT})
_DATATYPE = one_of(
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
)  # fmt: skip
_SHAPE = listed(whole(0, 2**63 - 1))
_PARAMETERS = nullable(ANY_OBJECT)
_DATA = listed(either({"type": "number"}, TEXT, FLAG, listed(either({"type": "number"}, TEXT, FLAG))))
_INPUT = record({"name": WORDS, "datatype": _DATATYPE, "shape": _SHAPE, "data": _DATA}, {"parameters": _PARAMETERS})
_WANTED = record({"name": WORDS}, {"parameters": _PARAMETERS})
_INFER = record({"inputs": listed(_INPUT)}, {"id": TEXT, "outputs": listed(_WANTED), "parameters": _PARAMETERS})
_OUTPUT = record(
    {"name": TEXT, "datatype": TEXT, "shape": _SHAPE}, {"data": {"type": "array"}, "parameters": ANY_OBJECT}
)
_INFERRED = record({"model_name": TEXT, "model_version": TEXT, "outputs": listed(_OUTPUT)}, {"id": TEXT})
_GENERATE = record({"text_input": WORDS}, {"id": TEXT, "parameters": _PARAMETERS})
_GENERATED = record({"model_name": TEXT, "model_version": TEXT, "text_output": TEXT}, {"id": TEXT})
_TENSOR = record({"name": TEXT, "datatype": TEXT, "shape": listed(WHOLE)})
_DESCRIBED = record(
    {"name": TEXT, "versions": listed(TEXT), "platform": TEXT, "inputs": listed(_TENSOR), "outputs": listed(_TENSOR)}
)
_SERVER = record({"name": TEXT, "version": TEXT, "extensions": listed(TEXT)})
_STATS = record({"model_stats": listed(record({"name": TEXT, "version": TEXT, "inference_stats": ANY_OBJECT}))})
_INDEX = listed(record({"name": TEXT, "version": TEXT, "state": TEXT, "reason": TEXT}))
_MODEL_READY = record({"name": TEXT, "ready": FLAG})
_NAME = in_path("model", MODEL)
_NAMES = (_NAME, in_path("version", one_of("1")))
_REGION = in_path("region")


def _get(summary: str, made: Schema, *names: Schema) -> dict[str, Schema]:
    responses = {**errors(WIRE, 501), "200": answer(made, "What was asked for.")}
    return {"get": operation(summary, responses, parameters=names, tag=_TAG)}


def _post(summary: str, made: Schema, body: Schema, *names: Schema, required: bool = True) -> dict[str, Schema]:
    responses = {**errors(WIRE, 501), "200": made}
    return {"post": operation(summary, responses, body=body, parameters=names, required=required, tag=_TAG)}


def _ready(summary: str, made: Schema, *names: Schema) -> dict[str, Schema]:
    """Describe a page that says with 400 that something is not ready."""
    responses = {**errors(WIRE), "200": answer(made, "Ready."), "400": answer(either(made, ERROR), "Not ready.")}
    return {"get": operation(summary, responses, parameters=names, tag=_TAG)}


def _inference(base: str, *names: Schema) -> Operations:
    inferred = {
        "description": "The outputs; as bytes behind the JSON where they were asked for so.",
        "content": {"application/json": {"schema": _INFERRED}, "application/octet-stream": {"schema": TEXT}},
    }
    events = {"description": "The pieces.", "content": EVENTS}
    return {
        f"{base}/infer": _post("Run a model on tensors.", inferred, _INFER, *names, *ASKED_HEADERS),
        f"{base}/generate": _post("Write a text.", answer(_GENERATED, "The text."), _GENERATE, *names, *ASKED_HEADERS),
        f"{base}/generate_stream": _post("Write a text in pieces.", events, _GENERATE, *names, *ASKED_HEADERS),
        base: _get("Describe a model.", _DESCRIBED, *names),
        f"{base}/ready": _ready("Tell whether a model is ready.", _MODEL_READY, *names),
        f"{base}/config": _get("Describe a model's configuration.", record({"name": TEXT}), *names),
        f"{base}/stats": _get("Tell what a model has done.", _STATS, *names),
    }


def _settings(path: str, *names: Schema) -> Operations:
    """Describe settings that are read-only here: an empty change is taken, any other refused."""
    empty = _post("Change settings.", answer(ANY_OBJECT, "Nothing was changed."), ANY_OBJECT, *names, required=False)
    return {path: {**_get("Read settings.", ANY_OBJECT, *names), **empty}}


def _shared_memory(base: str) -> Operations:
    nothing = {"description": "Nothing was registered."}
    return {
        f"{base}/status": _get("List shared memory, of which there is none.", listed({}, 0, 0)),
        f"{base}/region/{{region}}/status": _get("List shared memory.", listed({}, 0, 0), _REGION),
        f"{base}/region/{{region}}/register": _post("Refused.", nothing, ANY_OBJECT, _REGION, required=False),
        f"{base}/region/{{region}}/unregister": _post("Forget.", nothing, ANY_OBJECT, _REGION, required=False),
        f"{base}/unregister": _post("Forget.", nothing, ANY_OBJECT, required=False),
    }


_DONE = {"description": "Done."}

OPERATIONS: Operations = {
    "/v2": _get("Describe the server.", _SERVER),
    "/v2/": _get("Describe the server.", _SERVER),
    "/v2/health/live": _get("Tell that the server lives.", record({"live": FLAG})),
    "/v2/health/ready": _ready("Tell whether all models are ready.", record({"ready": FLAG})),
    "/v2/models/stats": _get("Tell what all models have done.", _STATS),
    **_inference("/v2/models/{model}", _NAME),
    **_inference("/v2/models/{model}/versions/{version}", *_NAMES),
    "/v2/repository/index": _post(
        "List the models.", answer(_INDEX, "The models."), record({}, {"ready": FLAG}), required=False
    ),
    "/v2/repository/models/{model}/load": _post("Bring a model up.", _DONE, ANY_OBJECT, _NAME, required=False),
    "/v2/repository/models/{model}/unload": _post("Take a model down.", _DONE, ANY_OBJECT, _NAME, required=False),
    **_settings("/v2/trace/setting"),
    **_settings("/v2/models/{model}/trace/setting", _NAME),
    **_settings("/v2/logging"),
    **_shared_memory("/v2/systemsharedmemory"),
    **_shared_memory("/v2/cudasharedmemory"),
}
