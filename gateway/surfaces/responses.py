"""OpenAI's Responses, stateless: each request is a chat that says all it needs, and nothing of it is kept.

Knows no cache and no pool. What a chat cannot say is refused by name; fields that are not known go on to the backend.
"""

import functools
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from backends.contract import Job, Task
from gateway.errors import Fault, InvalidRequest
from gateway.fields import flag, mapping, parse_object, refuse, said, text, whole
from gateway.request import Request
from gateway.surfaces import openai_fields as fields
from gateway.surfaces.openai import error_of
from gateway.surfaces.openai_chat import asked_of, read_messages
from gateway.surfaces.responses_input import messages_of
from gateway.surfaces.responses_reply import ResponseEncoder, ResponseFrames, Wishes
from gateway.surfaces.roles import CHAT, RESPONSES, outside_key
from gateway.surfaces.wire import Call, Encoder, Failure

_MAX_TOKENS = 2**20
# Each needs something of an earlier request, or goes on after the reply.
_STATEFUL = ("previous_response_id", "conversation", "background", "prompt", "context_management")
# Read under chat's names, or not at all; every other field goes on to the backend as it is.
_NOT_CHAT = outside_key(RESPONSES) | {
    "input", "instructions", "tools", "tool_choice", "text", "max_output_tokens", "reasoning", "include",
    "top_logprobs", "parallel_tool_calls",
}  # fmt: skip
# Names of chat's fields that this wire has other words for.
_WORDS: Mapping[str, str] = {
    "messages": "'input'",
    "max_tokens": "'max_output_tokens'",
    "max_completion_tokens": "'max_output_tokens'",
    "response_format": "'text.format'",
    "reasoning_effort": "'reasoning.effort'",
    "verbosity": "'text.verbosity'",
    "logprobs": "'include'",
}
_LOGPROBS = "message.output_text.logprobs"

_REMEMBERED_BODIES = 512
_REMEMBERED_MAX_BYTES = 16 * 2**10

_Decoded = tuple[Request, Callable[[str], ResponseEncoder]]


class ResponsesSurface:
    """`POST /v1/responses`."""

    name = "responses"
    paths = frozenset({"/v1/responses"})

    def __init__(self) -> None:
        self._read_small = functools.lru_cache(_REMEMBERED_BODIES)(_read)
        # An error is told with what came before it; the frames of each stream that is open, by its reply's id.
        self._open: weakref.WeakValueDictionary[str, ResponseFrames] = weakref.WeakValueDictionary()

    def decode(self, call: Call, reply_id: str) -> tuple[Request, Encoder]:
        """Read a request."""
        read = self._read_small if len(call.body) <= _REMEMBERED_MAX_BYTES else _read
        request, encoder_for = read(call.body)
        encoder = encoder_for(reply_id)
        if encoder.numbered is not None:
            self._open[reply_id] = encoder.numbered
        return request, encoder

    def failure(self, fault: Fault) -> Failure:
        """Encode an error as a status and a body."""
        return Failure(fault.status, error_of(fault))

    def failure_frame(self, fault: Fault) -> bytes:
        """Encode an error in the middle of a stream, which is the one that the request's id names."""
        return self._open[fault.request_id].failing(fault)


def _read(raw: bytes) -> _Decoded:
    body = parse_object(raw)
    for name in _STATEFUL:
        if body.get(name):
            raise InvalidRequest(f"'{name}' is not supported: nothing is kept from one request to the next", name)
    if body.get("truncation") not in (None, "disabled"):
        raise refuse("truncation", body["truncation"], "'disabled': models here say that an input is too long")
    chat = _as_chat(body)
    messages = read_messages(chat["messages"])
    streamed = flag(body, "stream")
    job = Job(
        Task.CHAT,
        messages=messages,
        sampling=fields.sampling(chat),
        extra=fields.others(chat, CHAT),
        stream=streamed,
    )
    request = Request(text(body, "model"), job, fields.identity(chat, CHAT), asked_of(messages))
    return request, functools.partial(ResponseEncoder, Wishes(body, streamed, "logprobs" in chat))


def _as_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the request says as the fields of OpenAI's chat."""
    chat = {name: value for name, value in body.items() if name not in _NOT_CHAT and value is not None}
    fields.check_words(chat, _WORDS)
    fields.check_one_choice(chat)
    chat["messages"] = messages_of(body.get("input"), said(body, "instructions"))
    if tools := [_tool(tool, f"tools[{place}]") for place, tool in enumerate(fields.listed(body, "tools"))]:
        chat["tools"] = tools
    if body.get("tool_choice") is not None:
        chat["tool_choice"] = _tool_choice(body["tool_choice"])
    if body.get("parallel_tool_calls") is not None:
        chat["parallel_tool_calls"] = flag(body, "parallel_tool_calls")
    if (limit := whole(body, "max_output_tokens", 1, _MAX_TOKENS)) is not None:
        chat["max_tokens"] = limit
    chat |= _text(mapping(body, "text") or {})
    if effort := said(mapping(body, "reasoning") or {}, "effort"):
        chat["reasoning_effort"] = effort
    return chat | _logprobs(body)


def _tool(tool: object, name: str) -> dict[str, Any]:
    """Turn a flat tool into chat's."""
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise refuse(f"{name}.type", tool.get("type") if isinstance(tool, dict) else tool, "'function'")
    function = {key: tool[key] for key in ("name", "description", "parameters", "strict") if tool.get(key) is not None}
    fields.function(function, name)
    return {"type": "function", "function": function}


def _tool_choice(value: object) -> object:
    """Turn a choice of tool into chat's."""
    if isinstance(value, str):
        return value
    match value:
        case {"type": "function", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "mode": str(mode), "tools": list(tools)}:
            allowed = [_tool_choice(tool) for tool in tools]
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": allowed}}
    raise refuse("tool_choice", value, "'none', 'auto', 'required', or an object that names a function")


def _text(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Turn `text` into chat's `response_format` and `verbosity`."""
    chat: dict[str, Any] = {}
    if (verbosity := said(asked, "verbosity")) is not None:
        chat["verbosity"] = verbosity
    form = mapping(asked, "format")
    if form is None or form.get("type") == "text":
        return chat
    if form.get("type") == "json_schema":
        form = {"type": "json_schema", "json_schema": {key: form[key] for key in form if key != "type"}}
    fields.response_format({"text.format": form}, "text.format")
    return {**chat, "response_format": form}


def _logprobs(body: Mapping[str, Any]) -> dict[str, Any]:
    top = fields.top_logprobs(body, "top_logprobs")
    if _LOGPROBS not in fields.listed(body, "include") and not top:
        return {}
    return {"logprobs": True, "top_logprobs": top or 0}
