"""Anthropic's wire as a client sees it: chats to requests for messages, refusals to errors.

Conversations are put into its words in `anthropic_messages`, its answers read in `anthropic_answers`. Pure: bytes and
values in, values out. Knows nothing of connections, and never sees a key's use.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from backends.anthropic_answers import WIRE, StreamDecoder, error_of, misshapen, parsed
from backends.anthropic_messages import conversation
from backends.contract import BackendError, BadJob, Event, Job, Sampling, Task
from backends.upstream_wire import refusal
from backends.wire import Asking, as_it_came, written

VERSION = "2023-06-01"
"""The version of the API that our own requests are written for; later ones take no temperature."""

DEFAULT_MAX_TOKENS = 4096
"""Anthropic demands a limit; this is it where the client named none."""

_PATH = "/messages"
_JSON: Mapping[str, str] = {"Content-Type": "application/json", "anthropic-version": VERSION}
_MAX_TEMPERATURE = 1

# Fields that Anthropic has no words for, with the values that ask for nothing.
_NO_WORDS: Mapping[str, tuple[object, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "prediction": (),
    "presence_penalty": (0,),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
_TRANSLATED = frozenset(
    {"tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "max_completion_tokens"}
)
_CHOICES: Mapping[str, str] = {"auto": "auto", "required": "any", "none": "none"}
_EFFORTS = ("low", "medium", "high", "xhigh", "max")


class AnthropicWire:
    """The Messages API."""

    name = WIRE

    def credentials(self, key: str) -> Mapping[str, str]:
        """Return the header that carries the key."""
        return {"x-api-key": key}

    def request_of(self, job: Job, model: str) -> Asking:
        """Return what asks for a job: the client's own words where they are Anthropic's, else the job in such words.

        Raises `BadJob` for what the wire has no words for.
        """
        if job.verbatim is not None and job.verbatim.wire == self.name:
            path, headers, body = as_it_came(job.verbatim, model)
            return Asking(path, {"anthropic-version": VERSION, **headers}, body)
        if job.task is not Task.CHAT:
            raise BadJob(f"an upstream of Anthropic's wire does not {job.task}; it does chat", "model")
        return Asking(_PATH, _JSON, written(_body(job, model)))

    def decoder(self, job: Job) -> StreamDecoder:
        """Return what reads the job's streamed answer."""
        return StreamDecoder(job)

    def answer_events(self, job: Job, body: bytes) -> list[Event]:
        """Return the events of a whole (not streamed) answer. Raises `UpstreamFailed` where it is none."""
        message = parsed(body)
        try:
            return StreamDecoder(job).message(message)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise misshapen(body, error) from error

    def refusal_of(self, status: int, headers: Mapping[str, str], body: bytes) -> BackendError:
        """Return the error for an answer with a status other than 2xx."""
        return refusal(status, headers, body, told=_error_object(body), names=("type",))


def _error_object(body: bytes) -> Mapping[str, Any]:
    try:
        return error_of(orjson.loads(body))
    except orjson.JSONDecodeError:
        return {}


def _body(job: Job, model: str) -> dict[str, Any]:
    extra = job.extra
    for name, harmless in _NO_WORDS.items():
        if name in extra and extra[name] not in harmless:
            raise BadJob(f"an upstream of Anthropic's wire cannot honour '{name}'", name)
    rest = {name: value for name, value in extra.items() if name not in _NO_WORDS and name not in _TRANSLATED}
    body = {**rest, "model": model, **conversation(job.messages), **_sampling(job.sampling)}
    if tools := extra.get("tools"):
        body["tools"] = [_tool(tool) for tool in _objects(tools)]
        body |= _choice(extra)
    if output := _output(extra):
        body["output_config"] = output
    if job.stream:
        body["stream"] = True
    return body


def _sampling(sampling: Sampling) -> dict[str, Any]:
    if sampling.seed is not None:
        raise BadJob("an upstream of Anthropic's wire takes no 'seed'", "seed")
    if sampling.temperature is not None and sampling.temperature > _MAX_TEMPERATURE:
        raise BadJob(
            f"temperature is {sampling.temperature:g}; an upstream of Anthropic's wire takes 0 to 1", "temperature"
        )
    limit = DEFAULT_MAX_TOKENS if sampling.max_tokens is None else sampling.max_tokens
    said = {"temperature": sampling.temperature, "top_p": sampling.top_p, "stop_sequences": sampling.stop or None}
    return {"max_tokens": limit, **{name: value for name, value in said.items() if value is not None}}


def _objects(tools: object) -> list[Mapping[str, Any]]:
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadJob("'tools' must be a list of objects", "tools")
    return tools


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a function in Anthropic's words; one of its own tools is in them already."""
    if tool.get("type") == "custom":
        raise BadJob("an upstream of Anthropic's wire has no tools of type 'custom'", "tools")
    described = tool.get("function")
    if not isinstance(described, dict):
        return tool
    function = {name: value for name, value in described.items() if value is not None}
    schema = function.pop("parameters", None) or {"type": "object", "properties": {}}
    return {**function, "input_schema": schema}


def _choice(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a tool is chosen; that there be but one call at a time is part of it."""
    choice = extra.get("tool_choice")
    said: dict[str, Any] = {"type": "auto"}
    if isinstance(choice, str) and choice in _CHOICES:
        said["type"] = _CHOICES[choice]
    elif isinstance(choice, dict) and isinstance(function := choice.get("function"), dict):
        said = {"type": "tool", "name": function.get("name")}
    elif choice is not None:
        raise BadJob("'tool_choice' must be auto, required, none, or name a function", "tool_choice")
    if extra.get("parallel_tool_calls") is False and said["type"] != "none":
        said["disable_parallel_tool_use"] = True
    return {} if said == {"type": "auto"} else {"tool_choice": said}


def _output(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the output: its schema, and how hard to think."""
    output: dict[str, Any] = {}
    form = extra.get("response_format") or {"type": "text"}
    described = form.get("json_schema") if isinstance(form, dict) else None
    if isinstance(described, dict):
        output["format"] = {"type": "json_schema", "schema": described.get("schema") or {"type": "object"}}
    elif form != {"type": "text"}:
        raise BadJob("an upstream of Anthropic's wire has the response formats text and json_schema", "response_format")
    effort = extra.get("reasoning_effort")
    if effort is not None:
        if effort not in _EFFORTS:
            raise BadJob(f"'reasoning_effort' must be one of {', '.join(_EFFORTS)}", "reasoning_effort")
        output["effort"] = effort
    return output
