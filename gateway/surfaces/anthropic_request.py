"""Reads requests of Anthropic's Messages API into the canonical form, which is OpenAI's. Knows no reply.

Only what is malformed is refused here; what a model cannot do is for its backend to say.
Source of the shapes: the `anthropic` Python client (types/message_create_params.py).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from backends.contract import Job, Sampling, Task, Verbatim
from gateway.fields import flag, number, refuse, text, whole
from gateway.request import Request
from gateway.surfaces import anthropic_messages
from gateway.surfaces.anthropic_unsaid import unsaid
from gateway.surfaces.openai_fields import check_one_choice, check_words
from gateway.surfaces.roles import MESSAGES, outside_key

WIRE = "anthropic"

_MAX_TOKENS = 2**20
_MAX_STOPS = 256
_MAX_TOP_K = 2**31 - 1

# Read into the job, or under another name in OpenAI's vocabulary; every other field goes on to the backend.
_INTERPRETED = outside_key(MESSAGES) | {
    "messages", "system", "max_tokens", "temperature", "top_p", "stop_sequences", "tools", "tool_choice",
    "output_config",
}  # fmt: skip
# What identifies a request besides, by its name here and in the canonical form.
_SAME_MEANING = {"temperature": "temperature", "top_p": "top_p", "stop_sequences": "stop", "thinking": "thinking"}
# Canonical names that this wire has other words for.
_WORDS: Mapping[str, str] = {
    "stop": "'stop_sequences'",
    "response_format": "'output_config.format'",
    "reasoning_effort": "'output_config.effort'",
    "parallel_tool_calls": "'tool_choice.disable_parallel_tool_use'",
}
# A version of the wire says what a reply looks like, and not what is answered.
_VERSION = "anthropic-version"
_CHOICES: Mapping[str, str] = {"auto": "auto", "any": "required", "none": "none"}


class Asked(NamedTuple):
    """Where a request came to, and the headers of it that belong to the wire."""

    path: str
    headers: tuple[tuple[str, str], ...] = ()


def read(body: Mapping[str, Any], raw: bytes, asked: Asked) -> Request:
    """Read a request for a message. Raises `InvalidRequest`."""
    conversation = anthropic_messages.read(body)
    streamed = flag(body, "stream")
    extra = _extra(body)
    headers = dict(asked.headers)
    job = Job(
        Task.CHAT,
        messages=conversation.messages,
        sampling=_sampling(body),
        extra=extra,
        verbatim=Verbatim(WIRE, asked.path, raw, headers=headers, streamed=streamed, form=headers.get(_VERSION, "")),
        stream=streamed,
    )
    last = conversation.identity[-1]
    blank = last["content"] if last["role"] == "user" and isinstance(last["content"], str) else None
    fields = _identity(body, conversation.identity, extra)
    return Request(text(body, "model"), job, fields, blank, _beside(body, asked))


def read_count(body: Mapping[str, Any], raw: bytes, asked: Asked) -> tuple[Request, Job]:
    """Read a request to count tokens: as it goes on to Anthropic, and as the chat whose tokens are to be counted."""
    conversation = anthropic_messages.read(body)
    extra = _extra(body)
    relay = Job(Task.RELAY, verbatim=Verbatim(WIRE, asked.path, raw, headers=dict(asked.headers)))
    request = Request(
        text(body, "model"), relay, {**extra, "messages": conversation.identity}, beside={"path": asked.path}
    )
    return request, Job(Task.CHAT, conversation.messages, extra=extra)


def _identity(body: Mapping[str, Any], messages: object, extra: Mapping[str, object]) -> dict[str, object]:
    """Return everything that the answer depends on, as the same question over OpenAI's wire would have it."""
    fields = {**extra, "messages": messages, "max_tokens": body["max_tokens"]}
    return fields | {ours: body[name] for name, ours in _SAME_MEANING.items() if body.get(name) is not None}


def _beside(body: Mapping[str, Any], asked: Asked) -> dict[str, object]:
    """Return what another wire cannot say."""
    beside: dict[str, object] = {name: value for name, value in asked.headers if name != _VERSION}
    if query := asked.path.partition("?")[2]:
        beside["query"] = query
    more = unsaid(body)
    return {**beside, "unsaid": more} if more else beside


def _sampling(body: Mapping[str, Any]) -> Sampling:
    limit = whole(body, "max_tokens", 0, _MAX_TOKENS)
    if limit is None:
        raise refuse("max_tokens", None, f"a whole number from 0 to {_MAX_TOKENS}")
    return Sampling(
        max_tokens=limit,
        temperature=number(body, "temperature", 0, 1),
        top_p=number(body, "top_p", 0, 1),
        stop=_stops(body.get("stop_sequences")),
    )


def _stops(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if (
        not isinstance(value, list)
        or len(value) > _MAX_STOPS
        or not all(isinstance(stop, str) and stop for stop in value)
    ):
        raise refuse("stop_sequences", value, f"a list of at most {_MAX_STOPS} non-empty strings")
    return tuple(value)


def _extra(body: Mapping[str, Any]) -> dict[str, object]:
    extra = {name: value for name, value in body.items() if name not in _INTERPRETED and value is not None}
    check_words(extra, _WORDS)
    check_one_choice(extra)
    whole(body, "top_k", 0, _MAX_TOP_K)
    if (thinking := _mapping(body, "thinking")) is not None:
        if not isinstance(thinking.get("type"), str):
            raise refuse("thinking.type", thinking.get("type"), "a string")
        if thinking["type"] == "disabled":  # asks for nothing, and most upstreams know no such field
            del extra["thinking"]
    if body.get("tools") is not None:
        extra["tools"] = _tools(body["tools"])
    if (choice := _mapping(body, "tool_choice")) is not None:
        extra |= _choice(choice)
    if (output := _mapping(body, "output_config")) is not None:
        extra |= _output(output)
    return extra


def _mapping(body: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise refuse(name, value, "an object")
    return value


def _tools(value: object) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        raise refuse("tools", value, "a list of tools")
    return [_tool(tool, f"tools[{place}]") for place, tool in enumerate(value)]


def _tool(tool: object, name: str) -> Mapping[str, Any]:
    """Return a tool of the client's as a function; one of Anthropic's own goes on as it came."""
    if not isinstance(tool, dict):
        raise refuse(name, tool, "an object with 'name' and 'input_schema'")
    if tool.get("type") not in (None, "custom"):
        return tool
    if not isinstance(tool.get("name"), str) or not tool["name"]:
        raise refuse(f"{name}.name", tool.get("name"), "a non-empty string")
    if not isinstance(tool.get("input_schema"), dict):
        raise refuse(f"{name}.input_schema", tool.get("input_schema"), "an object, a JSON Schema")
    function = {"name": tool["name"]}
    function |= {key: value for key, value in tool.items() if key not in ("type", "input_schema", "cache_control")}
    return {"type": "function", "function": {**function, "parameters": tool["input_schema"]}}


def _choice(choice: Mapping[str, Any]) -> dict[str, object]:
    extra: dict[str, object] = {}
    kind = choice.get("type")
    if not isinstance(kind, str):
        raise refuse("tool_choice.type", kind, "auto, any, tool or none")
    if kind == "tool" and isinstance(choice.get("name"), str):
        extra["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif kind == "tool":
        raise refuse("tool_choice.name", choice.get("name"), "a string")
    else:
        extra["tool_choice"] = _CHOICES.get(kind, choice)
    if flag(choice, "disable_parallel_tool_use"):
        extra["parallel_tool_calls"] = False
    return extra


def _output(output: Mapping[str, Any]) -> dict[str, object]:
    """Return what OpenAI calls the settings of the output; one that it has no word for goes on as it came."""
    rest = {name: value for name, value in output.items() if value is not None}
    extra: dict[str, object] = {}
    form = rest.get("format")
    if isinstance(form, dict) and form.get("type") == "json_schema" and isinstance(form.get("schema"), dict):
        del rest["format"]
        schema = {"name": "output", "schema": form["schema"], "strict": True}
        extra["response_format"] = {"type": "json_schema", "json_schema": schema}
    if isinstance(rest.get("effort"), str):
        extra["reasoning_effort"] = rest.pop("effort")
    return {**extra, "output_config": rest} if rest else extra
