"""OpenAI's wire: chat completions, completions, embeddings and models. Knows no cache and no pool.

Source of the shapes: the `openai` Python client (types/chat, _streaming.py) and OpenAI's API reference.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import orjson

from backends.contract import Job, Message, Sampling, Task
from gateway.errors import Fault, InvalidRequest
from gateway.fields import flag, number, parse_object, refuse, shown, text, whole
from gateway.request import Request
from gateway.surfaces.openai_reply import ChatEncoder, CompletionEncoder, EmbeddingEncoder
from gateway.surfaces.wire import Call, Encoder, Failure

_ROLES = ("system", "developer", "user", "assistant")
_MAX_TOKENS = 2**20
_MAX_STOPS = 4
_MAX_INPUTS = 2048
_MAX_TOKEN_ID = 2**31 - 1
_MAX_SEED = 2**63 - 1

# These shape the reply or describe the client, never the answer: no part of a request's identity.
NOT_IDENTITY = frozenset(
    {
        "model", "stream", "stream_options", "user", "metadata", "store", "safety_identifier", "prompt_cache_key",
        "prompt_cache_retention", "service_tier", "encoding_format",
    }
)  # fmt: skip
_SAMPLING = frozenset({"max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop"})
_UNSTATED = Sampling()
# Read into the job; every other field goes on to an upstream untouched.
_INTERPRETED = NOT_IDENTITY | _SAMPLING | {"messages", "prompt", "input"}
# What an answer here cannot carry yet, and the values that ask for nothing.
_NOT_CARRIED: Mapping[str, tuple[object, ...]] = {
    "n": (1,), "best_of": (1,), "echo": (False,), "suffix": ("",), "logprobs": (False, 0), "top_logprobs": (0,),
    "tools": ([],), "tool_choice": ("none", "auto"), "functions": ([],), "function_call": ("none", "auto"),
    "audio": (), "modalities": (["text"],), "web_search_options": (),
}  # fmt: skip

# What the same bytes mean is remembered for the most recent bodies, since what is asked again is what caches answer.
_REMEMBERED_BODIES = 512
_REMEMBERED_MAX_BYTES = 16 * 2**10

_Decoded = tuple[Request, Callable[[str], Encoder]]
"""A request, and what makes the encoder of its reply from the reply's id."""


class OpenAISurface:
    """Decodes OpenAI's requests and encodes their replies."""

    name = "openai"

    def __init__(self) -> None:
        self._decoders: dict[str, Callable[[dict[str, Any]], _Decoded]] = {
            "/v1/chat/completions": _decode_chat,
            "/v1/completions": _decode_completion,
            "/v1/embeddings": _decode_embedding,
        }
        self.paths = frozenset(self._decoders)
        self._read_small = functools.lru_cache(_REMEMBERED_BODIES)(self._read)

    def decode(self, call: Call, reply_id: str) -> tuple[Request, Encoder]:
        """Read a request of any of this surface's paths."""
        read = self._read_small if len(call.body) <= _REMEMBERED_MAX_BYTES else self._read
        request, encoder = read(call.path, call.body)
        return request, encoder(reply_id)

    def _read(self, path: str, body: bytes) -> _Decoded:
        return self._decoders[path](parse_object(body))

    def failure(self, fault: Fault) -> Failure:
        """Encode an error as a status and a body."""
        return Failure(fault.status, _error(fault))

    def failure_frame(self, fault: Fault) -> bytes:
        """Encode an error in the middle of a stream: the client raises it, since the data has a true `error`."""
        return b"data: " + _error(fault) + b"\n\n"


def _error(fault: Fault) -> bytes:
    return orjson.dumps(
        {"error": {"message": fault.message, "type": fault.kind, "param": fault.param, "code": fault.code}}
    )


def models(names: Sequence[str], created_s: int) -> bytes:
    """Encode the list of `GET /v1/models`."""
    return orjson.dumps({"object": "list", "data": [_model(name, created_s) for name in names]})


def _model(name: str, created_s: int) -> dict[str, object]:
    return {"id": name, "object": "model", "created": created_s, "owned_by": "warmgate"}


def _decode_chat(body: dict[str, Any]) -> _Decoded:
    messages = _messages(body.get("messages"))
    job = Job(Task.CHAT, messages=messages, sampling=_sampling(body), extra=_extra(body), stream=flag(body, "stream"))
    asked = messages[-1].content if messages[-1].role == "user" else None
    request = Request(text(body, "model"), job, _identity(body, Task.CHAT), asked)
    return request, functools.partial(ChatEncoder, streamed=job.stream, include_usage=_include_usage(body))


def _decode_completion(body: dict[str, Any]) -> _Decoded:
    prompt = _prompt(body.get("prompt"))
    job = Job(Task.COMPLETION, prompt=prompt, sampling=_sampling(body), extra=_extra(body), stream=flag(body, "stream"))
    request = Request(text(body, "model"), job, _identity(body, Task.COMPLETION))
    return request, functools.partial(CompletionEncoder, streamed=job.stream, include_usage=_include_usage(body))


def _decode_embedding(body: dict[str, Any]) -> _Decoded:
    encoding = body.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        raise refuse("encoding_format", encoding, "'float' or 'base64'")
    job = Job(Task.EMBED, inputs=inputs(body, "input"), extra=_extra(body))
    request = Request(text(body, "model"), job, _identity(body, Task.EMBED))
    return request, lambda _: EmbeddingEncoder(as_base64=encoding == "base64")  # embeddings have no id


def _identity(body: Mapping[str, Any], task: Task) -> dict[str, object]:
    fields = {name: value for name, value in body.items() if name not in NOT_IDENTITY and value is not None}
    fields["task"] = task
    return fields


def _extra(body: Mapping[str, Any]) -> dict[str, object]:
    extra = {name: value for name, value in body.items() if name not in _INTERPRETED and value is not None}
    for name in sorted(_NOT_CARRIED.keys() & extra.keys()):
        if extra.pop(name) not in _NOT_CARRIED[name]:
            raise InvalidRequest(f"'{name}' is not supported yet, got {shown(body[name])}", name)
    return extra


def _include_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise refuse("stream_options", options, "an object")
    if not flag(body, "stream"):
        raise InvalidRequest("`stream_options` can only be used when `stream` is True", "stream_options")
    return flag(options, "include_usage")


def _sampling(body: Mapping[str, Any]) -> Sampling:
    if _SAMPLING.isdisjoint(body):
        return _UNSTATED
    limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    return Sampling(
        max_tokens=whole(body, limit, 1, _MAX_TOKENS),
        temperature=number(body, "temperature", 0, 2),
        top_p=number(body, "top_p", 0, 1),
        seed=whole(body, "seed", -_MAX_SEED - 1, _MAX_SEED),
        stop=_stops(body.get("stop")),
    )


def _stops(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if (
        not isinstance(stops, list)
        or len(stops) > _MAX_STOPS
        or not all(isinstance(stop, str) and stop for stop in stops)
    ):
        raise refuse("stop", value, f"a non-empty string or a list of at most {_MAX_STOPS} of them")
    return tuple(stops)


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise refuse("messages", value, "a non-empty list of messages")
    return tuple([_message(item, f"messages[{place}]") for place, item in enumerate(value)])


def _message(item: object, name: str) -> Message:
    if not isinstance(item, dict):
        raise refuse(name, item, "an object with 'role' and 'content'")
    role = item.get("role")
    if role not in _ROLES:
        raise refuse(f"{name}.role", role, f"one of {', '.join(_ROLES)}")
    if item.get("tool_calls"):
        raise InvalidRequest("'tool_calls' is not supported yet", f"{name}.tool_calls")
    return Message(role, _content(item.get("content"), f"{name}.content"))


def _content(value: object, name: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise refuse(name, value, "a string or a non-empty list of text parts")
    return "".join([_part(part, f"{name}[{place}]") for place, part in enumerate(value)])


def _part(part: object, name: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise refuse(name, part, '{"type": "text", "text": "…"}, the one kind that is supported yet')
    content: str = part["text"]
    return content


def _prompt(value: object) -> str | tuple[int, ...]:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        return _prompt(value[0])
    if _is_tokens(value):
        return tuple(value)
    raise refuse("prompt", value, "one string or one non-empty list of token ids")


def inputs(body: Mapping[str, Any], name: str) -> tuple[str | tuple[int, ...], ...]:
    """Read a string, a list of strings, a list of token ids or a list of those."""
    value = body.get(name)
    if isinstance(value, str) and value:
        return (value,)
    if _is_tokens(value):
        return (tuple(value),)
    if not isinstance(value, list) or not 0 < len(value) <= _MAX_INPUTS:
        raise refuse(name, value, f"a non-empty string, or a list of 1 to {_MAX_INPUTS} strings or token lists")
    return tuple([_input(item, f"{name}[{place}]") for place, item in enumerate(value)])


def _input(item: object, name: str) -> str | tuple[int, ...]:
    if isinstance(item, str) and item:
        return item
    if _is_tokens(item):
        return tuple(item)
    raise refuse(name, item, "a non-empty string or a non-empty list of token ids")


def _is_tokens(value: object) -> TypeGuard[list[int]]:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(type(token) is int and 0 <= token <= _MAX_TOKEN_ID for token in value)
    )
