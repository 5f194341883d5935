"""What is served of Anthropic's API."""

from gateway.openapi.shapes import (
    ANY_OBJECT,
    ASKED_HEADERS,
    FLAG,
    MODEL,
    TEXT,
    WHOLE,
    WORDS,
    Operations,
    Schema,
    answer,
    asked,
    either,
    errors,
    listed,
    nullable,
    number,
    one_of,
    operation,
    record,
    streamed,
    whole,
)  # fmt: skip

WIRE = "Anthropic"
_TAG = "Anthropic"

ERROR = record(
    {"type": one_of("error"), "error": record({"type": TEXT, "message": TEXT})}, {"request_id": nullable(TEXT)}
)
_TEXT_BLOCK = record({"type": one_of("text"), "text": TEXT})
_BLOCK = either(
    _TEXT_BLOCK,
    record({"type": one_of("tool_use"), "id": TEXT, "name": TEXT, "input": ANY_OBJECT}),
    record({"type": one_of("tool_result"), "tool_use_id": TEXT}, {"content": TEXT, "is_error": FLAG}),
)
_MESSAGE = record({"role": one_of("user", "assistant"), "content": either(TEXT, listed(_BLOCK))})
_TOOL = record({"name": WORDS, "input_schema": ANY_OBJECT}, {"description": TEXT})
_CHOICE = either(record({"type": one_of("auto", "any", "none")}), record({"type": one_of("tool"), "name": TEXT}))
_ASKED: dict[str, Schema] = {"model": MODEL, "messages": listed(_MESSAGE, 1)}
_SYSTEM: dict[str, Schema] = {
    "system": either(TEXT, listed(_TEXT_BLOCK, 1)), "tools": listed(_TOOL), "tool_choice": _CHOICE
}  # fmt: skip
_REQUEST = asked(
    _ASKED | {"max_tokens": whole(0, 2**20)},
    _SYSTEM
    | {
        "stream": FLAG, "temperature": number(0, 1), "top_p": number(0, 1), "top_k": whole(0, 2**31 - 1),
        "stop_sequences": listed(WORDS, 0, 256), "metadata": ANY_OBJECT,
    },
)  # fmt: skip
_MADE = record(
    {
        "id": TEXT, "type": one_of("message"), "role": one_of("assistant"), "model": TEXT,
        "content": listed(record({"type": TEXT})), "stop_reason": nullable(TEXT), "stop_sequence": nullable(TEXT),
        "usage": record({"input_tokens": WHOLE, "output_tokens": WHOLE}),
    }
)  # fmt: skip

OPERATIONS: Operations = {
    "/v1/messages": {
        "post": operation(
            "Answer a conversation.",
            {"200": streamed(_MADE, "The message."), **errors(WIRE, 529)},
            body=_REQUEST,
            parameters=ASKED_HEADERS,
            tag=_TAG,
        )
    },
    "/v1/messages/count_tokens": {
        "post": operation(
            "Count the tokens of a conversation.",
            {"200": answer(record({"input_tokens": WHOLE}), "The count."), **errors(WIRE, 529)},
            body=asked(_ASKED, _SYSTEM),
            tag=_TAG,
        )
    },
}
