"""The native wire under `/api/v1`: predict, generate and embed. Knows no cache and no pool.

It is our own wire, so a field that it does not know is refused by name. The canonical fields are OpenAI's: the same
question over both wires shares one cached answer.
"""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from backends.contract import Job, Message, Task
from gateway.errors import Fault, InvalidRequest
from gateway.fields import cut, parse_object, refuse, text, whole
from gateway.request import Request
from gateway.surfaces.native_reply import EmbeddingEncoder, GenerationEncoder, PredictionEncoder
from gateway.surfaces.openai_fields import identity, sampling
from gateway.surfaces.roles import CHAT, EMBED, GENERATE, PREDICT
from gateway.surfaces.wire import Call, Encoder, Failure

_ROLES = ("system", "developer", "user", "assistant")
_MAX_INPUTS = 2048
_MAX_TOKENS = 2**20
SAMPLING = ("max_tokens", "temperature", "top_p", "seed", "stop")


class NativeSurface:
    """`POST /api/v1/predict`, `/api/v1/generate` and `/api/v1/embed`."""

    name = "native"
    paths = frozenset({"/api/v1/predict", "/api/v1/generate", "/api/v1/embed"})

    def decode(self, call: Call, reply_id: str) -> tuple[Request, Encoder]:
        """Read a request of any of this surface's paths."""
        del reply_id  # the replies have no id
        return OPERATIONS[call.path.rpartition("/")[2]](parse_object(call.body))

    def failure(self, fault: Fault) -> Failure:
        """Encode an error as a status and a body."""
        return Failure(fault.status, _error(fault))

    def failure_frame(self, fault: Fault) -> bytes:
        """Encode an error in the middle of a stream."""
        return b"data: " + _error(fault) + b"\n\n"


def _error(fault: Fault) -> bytes:
    return orjson.dumps({"error": error_value(fault)})


def error_value(fault: Fault) -> dict[str, str | None]:
    """Return an error as a JSON value."""
    return {"message": fault.message, "type": fault.kind, "code": fault.code, "param": fault.param}


def only(body: Mapping[str, Any], *known: str) -> None:
    """Refuse a field that is none of these."""
    for name in body:
        if name not in known:
            raise InvalidRequest(f"'{cut(name)}' is no field of this request; there are: {', '.join(known)}", cut(name))


def _predict(body: Mapping[str, Any]) -> tuple[Request, Encoder]:
    only(body, *PREDICT)
    asked = text(body, "input")
    job = Job(Task.PREDICT, inputs=(asked,))
    return Request(text(body, "model"), job, {"input": asked}, asked), PredictionEncoder()


def _embed(body: Mapping[str, Any]) -> tuple[Request, Encoder]:
    only(body, *EMBED)
    inputs = _inputs(body.get("inputs"))
    job = Job(Task.EMBED, inputs=inputs)
    return Request(text(body, "model"), job, {"input": inputs[0] if len(inputs) == 1 else inputs}), EmbeddingEncoder()


def _generate(body: Mapping[str, Any]) -> tuple[Request, Encoder]:
    only(body, *GENERATE)
    streamed = body.get("stream", True)
    if not isinstance(streamed, bool):
        raise refuse("stream", streamed, "true or false")
    whole(body, "max_tokens", 1, _MAX_TOKENS)
    messages = _asked(body)
    job = Job(Task.CHAT, messages=messages, sampling=sampling(body), stream=streamed)
    spoken = [{"role": message.role, "content": message.content} for message in messages]
    fields = identity({"messages": spoken, **{name: body.get(name) for name in SAMPLING}}, CHAT)
    last = messages[-1]
    request = Request(text(body, "model"), job, fields, asked=last.content if last.role == "user" else None)
    return request, GenerationEncoder(streamed=streamed)


OPERATIONS: Mapping[str, Callable[[Mapping[str, Any]], tuple[Request, Encoder]]] = {
    "predict": _predict,
    "generate": _generate,
    "embed": _embed,
}
"""What reads a body, by the last part of the path."""


def _inputs(value: object) -> tuple[str, ...]:
    if isinstance(value, str) and value:
        return (value,)
    if not isinstance(value, list) or not 0 < len(value) <= _MAX_INPUTS:
        raise refuse("inputs", value, f"a non-empty string, or a list of 1 to {_MAX_INPUTS} of them")
    for place, item in enumerate(value):
        if not isinstance(item, str) or not item:
            raise refuse(f"inputs[{place}]", item, "a non-empty string")
    return tuple(value)


def _asked(body: Mapping[str, Any]) -> tuple[Message, ...]:
    """Read `prompt`, which is one message of the user's, or `messages`."""
    if (body.get("prompt") is None) == (body.get("messages") is None):
        raise InvalidRequest("give either 'prompt' or 'messages'", "prompt")
    if body.get("prompt") is not None:
        return (Message("user", text(body, "prompt")),)
    value = body["messages"]
    if not isinstance(value, list) or not value:
        raise refuse("messages", value, "a non-empty list of messages")
    return tuple([_message(item, f"messages[{place}]") for place, item in enumerate(value)])


def _message(item: object, name: str) -> Message:
    if not isinstance(item, dict) or item.keys() != {"role", "content"}:
        raise refuse(name, item, "an object with 'role' and 'content' alone")
    if item["role"] not in _ROLES:
        raise refuse(f"{name}.role", item["role"], f"one of {', '.join(_ROLES)}")
    if not isinstance(item["content"], str):
        raise refuse(f"{name}.content", item["content"], "a string")
    return Message(item["role"], item["content"])
