"""What is served of the native API, batches included."""

from gateway.openapi.shapes import (
    ANY_OBJECT,
    ASKED_HEADERS,
    FLAG,
    MODEL,
    NUMBER,
    TEXT,
    WHOLE,
    WORDS,
    Operations,
    Schema,
    answer,
    asked,
    either,
    errors,
    in_header,
    in_path,
    in_query,
    listed,
    nullable,
    number,
    one_of,
    operation,
    record,
    streamed,
    whole,
)  # fmt: skip

WIRE = "Native"
_TAG = "Native"

ERROR = record({"error": record({"message": TEXT, "type": TEXT, "code": nullable(TEXT), "param": nullable(TEXT)})})
_SAMPLING: dict[str, Schema] = {
    "max_tokens": whole(1, 2**20), "temperature": number(0, 2), "top_p": number(0, 1),
    "seed": whole(-(2**63), 2**63 - 1), "stop": either(WORDS, listed(WORDS, 0, 4)),
}  # fmt: skip
_MESSAGE = record({"role": one_of("system", "developer", "user", "assistant"), "content": TEXT}, closed=True)
# No null for `stream`: left out it is true.
_GENERATE_OPTIONS = {name: nullable(schema) for name, schema in _SAMPLING.items()} | {"stream": FLAG}
_GENERATE = either(
    record({"model": MODEL, "prompt": WORDS}, _GENERATE_OPTIONS, closed=True),
    record({"model": MODEL, "messages": listed(_MESSAGE, 1)}, _GENERATE_OPTIONS, closed=True),
)
_USAGE = record({"prompt_tokens": WHOLE, "completion_tokens": WHOLE, "total_tokens": WHOLE})
_GENERATED = record({"text": TEXT, "finish_reason": nullable(TEXT), "usage": _USAGE, "model_version": TEXT})
_STREAM = (
    "The text. Unless `stream` is false it comes as server-sent events, each a line `data:` with a JSON object:"
    ' `{"token": …}` for each piece, `{"reasoning": …}` or `{"refusal": …}` where the model says such apart, and last'
    ' `{"done": true, "finish_reason", "usage", "model_version"}`, or `{"error": {…}}` where it broke off.'
)
_INPUTS = either(WORDS, listed(WORDS, 1, 2048))
_EMBEDDED = record({"embeddings": listed(listed(NUMBER)), "dimensions": WHOLE, "model_version": TEXT})
_PREDICTED = record({"prediction": TEXT, "confidence": NUMBER, "model_version": TEXT, "latency_ms": NUMBER})

_ITEM = either(WORDS, ANY_OBJECT)
_ORDER = asked(
    {"model": MODEL, "inputs": either(WORDS, listed(_ITEM, 1))},
    {
        "task": one_of("predict", "generate", "embed"),
        "callback_url": TEXT,
        "parameters": asked({}, _SAMPLING, closed=True),
    },
    closed=True,
)
_STATE: dict[str, Schema] = {
    "batch_id": TEXT, "status": TEXT, "total": WHOLE, "done": WHOLE, "failed": WHOLE, "estimated_time": nullable(NUMBER)
}  # fmt: skip
_PROGRESS: dict[str, Schema] = {
    **_STATE, "model": TEXT, "task": TEXT, "created_at": NUMBER, "finished_at": nullable(NUMBER)
}  # fmt: skip
_CALLBACK = record({"status": one_of("pending", "delivered", "given_up"), "tries": WHOLE, "trouble": nullable(TEXT)})
_TOLD = {"callback": _CALLBACK}
_RESULT = record({"index": WHOLE, "status": TEXT}, {"output": {}, "error": {}})
_RESULTS: dict[str, Schema] = {"results": listed(_RESULT), "next_offset": nullable(WHOLE)}
_PAGE = (in_query("offset", whole(0, 2**31)), in_query("limit", whole(0, 1000)))
_ID = in_path("id")
_KEY = in_header(
    "Idempotency-Key",
    {"type": "string", "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    "Names the order: a repeat of it is answered with the batch that the first one made.",
)


def _post(path: str, summary: str, body: Schema, made: Schema) -> Operations:
    return {
        path: {"post": operation(summary, {"200": made, **errors(WIRE)}, body=body, parameters=ASKED_HEADERS, tag=_TAG)}
    }


OPERATIONS: Operations = {
    **_post(
        "/api/v1/predict",
        "Find the label of a text.",
        record({"model": MODEL, "input": WORDS}, closed=True),
        answer(_PREDICTED, "The label."),
    ),
    **_post("/api/v1/generate", "Write a text.", _GENERATE, streamed(_GENERATED, _STREAM)),
    **_post(
        "/api/v1/embed",
        "Turn texts into vectors.",
        record({"model": MODEL, "inputs": _INPUTS}, closed=True),
        answer(_EMBEDDED, "The vectors."),
    ),
    "/api/v1/batch": {
        "post": operation(
            "Order work that no client waits for.",
            {"202": answer(record(_STATE), "It is accepted."), **errors(WIRE, 409, 501)},
            body=_ORDER,
            parameters=(_KEY,),
            tag=_TAG,
        )
    },
    "/api/v1/batch/{id}": {
        "get": operation(
            "Look at a batch and its results.",
            {"200": answer(record(_PROGRESS | _RESULTS, _TOLD), "The batch."), **errors(WIRE, 501)},
            parameters=(_ID, *_PAGE),
            tag=_TAG,
        ),
        "delete": operation(
            "Cancel what waits of a batch.",
            {"200": answer(record(_PROGRESS, _TOLD), "The batch."), **errors(WIRE, 501)},
            parameters=(_ID,),
            tag=_TAG,
        ),
    },
}
