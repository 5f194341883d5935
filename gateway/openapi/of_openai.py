"""What is served of OpenAI's API, Responses and relays included."""

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
    in_path,
    listed,
    nullable,
    number,
    one_of,
    operation,
    record,
    streamed,
    whole,
)  # fmt: skip

WIRE = "OpenAI"
_TAG = "OpenAI"

ERROR = record({"error": record({"message": TEXT, "type": TEXT, "param": nullable(TEXT), "code": nullable(TEXT)})})

_USAGE = record({"prompt_tokens": WHOLE, "total_tokens": WHOLE}, {"completion_tokens": WHOLE})
_FUNCTION = record({"name": WORDS}, {"description": TEXT, "parameters": ANY_OBJECT})
_TOOL = either(record({"type": one_of("function"), "function": _FUNCTION}))
_CALL = record({"id": TEXT, "type": one_of("function"), "function": record({"name": TEXT, "arguments": TEXT})})
_PART = either(
    record({"type": one_of("text"), "text": TEXT}),
    record({"type": one_of("image_url"), "image_url": record({"url": TEXT})}),
)
_MESSAGE = either(
    record({"role": one_of("system", "developer", "user"), "content": either(TEXT, listed(_PART, 1))}),
    record({"role": one_of("assistant"), "content": TEXT}, {"tool_calls": listed(_CALL)}),
    record({"role": one_of("tool"), "content": TEXT, "tool_call_id": TEXT}),
)
_SAMPLING: dict[str, Schema] = {
    "max_tokens": whole(0, 2**20), "temperature": number(0, 2), "top_p": number(0, 1),
    "seed": whole(-(2**63), 2**63 - 1), "stop": either(WORDS, listed(WORDS, 0, 4)),
}  # fmt: skip
_SHARED: dict[str, Schema] = {
    **_SAMPLING, "n": whole(1, 128), "stream": FLAG, "user": TEXT, "metadata": ANY_OBJECT,
    "frequency_penalty": number(-2, 2), "presence_penalty": number(-2, 2),
    "logit_bias": {"type": "object", "additionalProperties": number(-100, 100)},
}  # fmt: skip
_FORMAT = either(
    record({"type": one_of("text", "json_object")}),
    record({"type": one_of("json_schema"), "json_schema": record({"name": TEXT, "schema": ANY_OBJECT})}),
)
_CHAT = asked(
    {"model": MODEL, "messages": listed(_MESSAGE, 1)},
    {
        **_SHARED, "max_completion_tokens": whole(0, 2**20), "tools": listed(_TOOL), "response_format": _FORMAT,
        "tool_choice": either(one_of("none", "auto", "required"), ANY_OBJECT), "parallel_tool_calls": FLAG,
        "logprobs": FLAG, "top_logprobs": whole(0, 20),
    },
)  # fmt: skip
_CHAT_CHOICE = record(
    {"index": WHOLE, "message": record({"role": TEXT, "content": nullable(TEXT)}), "finish_reason": nullable(TEXT)}
)
_TOKENS = listed(whole(0, 2**31 - 1), 1)
_PROMPT = either(TEXT, _TOKENS, listed(either(TEXT, _TOKENS), 1, 2048))
_COMPLETION = asked(
    {"model": MODEL, "prompt": _PROMPT},
    {**_SHARED, "best_of": whole(0, 128), "echo": FLAG, "suffix": TEXT, "logprobs": whole(0, 1000)},
)
_TEXT_CHOICE = record({"index": WHOLE, "text": TEXT, "finish_reason": nullable(TEXT)})
_INPUTS = either(WORDS, _TOKENS, listed(either(WORDS, _TOKENS), 1, 2048))
_EMBEDDING = asked(
    {"model": MODEL, "input": _INPUTS},
    {"encoding_format": one_of("float", "base64"), "dimensions": whole(1, 2**20), "user": TEXT},
)
_VECTOR = record({"object": TEXT, "index": WHOLE, "embedding": either(listed(NUMBER), TEXT)})
_MODEL = record({"id": TEXT, "object": one_of("model"), "created": WHOLE, "owned_by": TEXT})

_ITEM = either(
    record({"role": one_of("user", "system", "developer", "assistant"), "content": TEXT}, {"type": one_of("message")}),
    record({"type": one_of("function_call"), "call_id": TEXT, "name": TEXT, "arguments": TEXT}),
    record({"type": one_of("function_call_output"), "call_id": TEXT, "output": TEXT}),
)
_RESPONSE = asked(
    {"model": MODEL, "input": either(TEXT, listed(_ITEM, 1))},
    {
        "instructions": TEXT, "max_output_tokens": whole(1, 2**20), "stream": FLAG, "temperature": number(0, 2),
        "top_p": number(0, 1), "metadata": ANY_OBJECT, "parallel_tool_calls": FLAG,
        "tools": listed(record({"type": one_of("function"), "name": WORDS}, {"parameters": ANY_OBJECT})),
        "tool_choice": one_of("none", "auto", "required"), "truncation": one_of("disabled"),
    },
)  # fmt: skip
_RESPONSE_MADE = record(
    {"id": TEXT, "object": one_of("response"), "created_at": NUMBER, "model": TEXT, "status": TEXT,
     "output": listed(ANY_OBJECT)},
    {"usage": nullable(ANY_OBJECT)},
)  # fmt: skip


def _made(kind: str, choice: Schema) -> Schema:
    return record(
        {"id": TEXT, "object": one_of(kind), "created": WHOLE, "model": TEXT, "choices": listed(choice)},
        {"usage": nullable(_USAGE)},
    )


def _listed(item: Schema, more: dict[str, Schema]) -> Schema:
    return record({"object": one_of("list"), "data": listed(item), **more})


def _post(summary: str, body: Schema, made: Schema, content_type: str = "application/json") -> dict[str, Schema]:
    responses = {"200": made, **errors(WIRE)}
    return {
        "post": operation(summary, responses, body=body, content_type=content_type, parameters=ASKED_HEADERS, tag=_TAG)
    }


# The gateway reads of a relay what it must; the rest is between the client and the upstream.
_RELAYED = {"200": {"description": "The upstream's reply, as it came."}, **errors(WIRE)}
_FORM = record({"model": MODEL})


def _relay(summary: str, content_type: str = "application/json") -> dict[str, Schema]:
    body = asked({"model": MODEL}, {"stream": FLAG}) if content_type == "application/json" else _FORM
    return {
        "post": operation(summary, _RELAYED, body=body, content_type=content_type, parameters=ASKED_HEADERS, tag=_TAG)
    }


OPERATIONS: Operations = {
    "/v1/chat/completions": _post(
        "Answer a chat.", _CHAT, streamed(_made("chat.completion", _CHAT_CHOICE), "The answer.")
    ),
    "/v1/completions": _post(
        "Go on with a text.", _COMPLETION, streamed(_made("text_completion", _TEXT_CHOICE), "The text.")
    ),
    "/v1/embeddings": _post(
        "Turn texts into vectors.",
        _EMBEDDING,
        answer(_listed(_VECTOR, {"model": TEXT, "usage": _USAGE}), "The vectors."),
    ),
    "/v1/responses": _post("Answer a chat, statelessly.", _RESPONSE, streamed(_RESPONSE_MADE, "The response.")),
    "/v1/models": {
        "get": operation(
            "List what the key may call.",
            {"200": answer(_listed(_MODEL, {}), "The models."), **errors(WIRE)},
            tag=_TAG,
        )
    },
    "/v1/models/{model}": {
        "get": operation(
            "Describe one model.",
            {"200": answer(_MODEL, "The model."), **errors(WIRE)},
            parameters=[in_path("model", MODEL)],
            tag=_TAG,
        )
    },
    "/v1/moderations": _relay("Judge a text."),
    "/v1/rerank": _relay("Order documents by a question."),
    "/v2/rerank": _relay("Order documents by a question."),
    "/rerank": _relay("Order documents by a question."),
    "/v1/audio/speech": _relay("Speak a text."),
    "/v1/audio/transcriptions": _relay("Write down what is spoken.", "multipart/form-data"),
    "/v1/audio/translations": _relay("Write down in English what is spoken.", "multipart/form-data"),
    "/v1/images/generations": _relay("Draw an image."),
    "/v1/images/edits": _relay("Change an image.", "multipart/form-data"),
    "/v1/images/variations": _relay("Draw variations of an image.", "multipart/form-data"),
}
