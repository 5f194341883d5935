"""The fields that OpenAI's requests share: what identifies a request, how tokens are drawn, what a backend is told.

A field that is not known here goes on to the backend untouched. Knows no path.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from backends.contract import Sampling, Verbatim
from gateway.errors import InvalidRequest
from gateway.fields import flag, mapping, number, refuse, said, whole
from gateway.surfaces.roles import Roles, outside_key, shaping

WIRE = "openai"

_MAX_TOKENS = 2**20
_MAX_STOPS = 4
_MAX_SEED = 2**63 - 1
MAX_CHOICES = 128
_MAX_BIAS = 100
_MAX_BIASES = 2**14
_MAX_LIST = 2**12
_MAX_LOGPROBS = 1000

_SAMPLING = frozenset({"max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop"})
_UNSTATED = Sampling()
# Read into the job, as is what is no part of the key; every other field goes on to the backend.
_INTERPRETED = _SAMPLING | {"messages", "prompt", "input"}

Check = Callable[[Mapping[str, Any], str], object]


def check(body: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    """Run the checks of the fields that are there. Raises `InvalidRequest`."""
    for name in checks.keys() & body.keys():
        checks[name](body, name)


def tools(body: Mapping[str, Any], name: str) -> None:
    """Check the tools' shape; kinds other than functions are the backend's to know."""
    for place, tool in enumerate(listed(body, name)):
        where = f"{name}[{place}]"
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            raise refuse(where, tool, "an object with a 'type'")
        if tool["type"] == "function":
            function(tool.get("function"), f"{where}.function")


def functions(body: Mapping[str, Any], name: str) -> None:
    """Check the functions of the older way to name tools."""
    for place, value in enumerate(listed(body, name)):
        function(value, f"{name}[{place}]")


def function(value: object, where: str) -> None:
    """Check a function that a model may call."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        raise refuse(where, value, "an object with a 'name'")
    if not isinstance(value.get("parameters"), dict | None):
        raise refuse(f"{where}.parameters", value["parameters"], "an object, a JSON Schema")


def choice(body: Mapping[str, Any], name: str) -> None:
    """Check a choice of tool: a word, or an object that names one."""
    if not isinstance(body.get(name), str | dict | None):
        raise refuse(name, body[name], "'none', 'auto', 'required', or an object that names a tool")


def response_format(body: Mapping[str, Any], name: str) -> None:
    """Check the shape of a format; kinds other than OpenAI's are the backend's to know."""
    value = mapping(body, name)
    if value is None:
        return
    if not isinstance(value.get("type"), str):
        raise refuse(f"{name}.type", value.get("type"), "'text', 'json_object' or 'json_schema'")
    if value["type"] == "json_schema":
        schema = value.get("json_schema")
        if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict | None):
            raise refuse(f"{name}.json_schema", schema, "an object with 'name' and 'schema'")


def logit_bias(body: Mapping[str, Any], name: str) -> None:
    """Check the biases: numbers by token."""
    biases = mapping(body, name) or {}
    if len(biases) > _MAX_BIASES:
        raise refuse(name, len(biases), f"biases of at most {_MAX_BIASES} tokens")
    for bias in biases.values():
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -_MAX_BIAS <= bias <= _MAX_BIAS:
            raise refuse(name, body[name], f"an object with a number from -{_MAX_BIAS} to {_MAX_BIAS} for each token")


def listed(body: Mapping[str, Any], name: str) -> list[Any]:
    """Return an optional list; absent or null is empty."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _MAX_LIST:
        raise refuse(name, value, f"a list of at most {_MAX_LIST} items")
    return value


def penalty(body: Mapping[str, Any], name: str) -> None:
    """Check a penalty."""
    number(body, name, -2, 2)


def choices(body: Mapping[str, Any], name: str) -> int | None:
    """Return how many choices are asked for."""
    return whole(body, name, 1, MAX_CHOICES)


def top_logprobs(body: Mapping[str, Any], name: str) -> int | None:
    """Return how many alternatives of each token are asked for."""
    return whole(body, name, 0, _MAX_LOGPROBS)


CHECKS: Mapping[str, Check] = {
    "n": choices, "frequency_penalty": penalty, "presence_penalty": penalty, "logit_bias": logit_bias,
    "user": said, "metadata": mapping, "store": flag, "service_tier": said,
}  # fmt: skip
"""The checks of the fields that chats and completions share."""


def identity(body: Mapping[str, Any], roles: Roles) -> dict[str, object]:
    """Return everything that the answer depends on, one way to say it each."""
    outside = outside_key(roles)
    fields = {name: value for name, value in body.items() if name not in outside and value is not None}
    if "max_completion_tokens" in fields and "max_tokens" not in fields:
        fields["max_tokens"] = fields.pop("max_completion_tokens")
    if type(stop := fields.get("stop")) is str:
        fields["stop"] = [stop]
    return fields


def check_words(body: Mapping[str, Any], words: Mapping[str, str]) -> None:
    """Refuse a canonical field that another wire has other words for: beside those, one of the two would get lost."""
    for name, ours in words.items():
        if body.get(name) is not None:
            raise InvalidRequest(f"'{name}' is no field of this request: say it with {ours}", name)


def check_one_choice(body: Mapping[str, Any]) -> None:
    """Refuse what a reply of one choice has no place for: more choices, and how likely each token was."""
    if choices(body, "n") not in (None, 1):
        raise refuse("n", body["n"], "1: a reply has one choice here")
    for name in ("logprobs", "top_logprobs"):
        value = body.get(name)
        if value is not None and value is not False and (name, value) != ("top_logprobs", 0):
            raise refuse(name, value, "left out: a reply has none here")


def others(body: Mapping[str, Any], roles: Roles) -> dict[str, object]:
    """Return the fields that are not read into the job."""
    read = outside_key(roles) | _INTERPRETED
    return {name: value for name, value in body.items() if name not in read and value is not None}


def verbatim(path: str, raw: bytes, body: Mapping[str, Any], roles: Roles, *, streamed: bool = False) -> Verbatim:
    """Keep a request as it came. What shapes the reply alone is its form: two such requests may share an answer."""
    form = {name: body[name] for name in shaping(roles) & body.keys() if body[name] is not None}
    return Verbatim(WIRE, path, raw, streamed=streamed, form=_digest(form) if form else "")


def _digest(value: object) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def include_usage(body: Mapping[str, Any]) -> bool:
    """Tell whether a stream is to end with its usage."""
    options = mapping(body, "stream_options")
    if options is None:
        return False
    if not flag(body, "stream"):
        raise InvalidRequest("`stream_options` can only be used when `stream` is True", "stream_options")
    return flag(options, "include_usage")


def sampling(body: Mapping[str, Any]) -> Sampling:
    """Read how tokens are drawn."""
    if _SAMPLING.isdisjoint(body):
        return _UNSTATED
    limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    return Sampling(
        max_tokens=whole(body, limit, 0, _MAX_TOKENS),  # 0 with `echo` scores a prompt
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
