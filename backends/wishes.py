"""Which of a client's fields our own workers honour, and which they refuse by name. Knows no wire and no model.

A field that is neither honoured nor asks for nothing is refused: an answer as if it had not been there would be wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.contract import BadJob, Job, Message, Task

MOST_CHOICES = 16
MOST_SEQUENCES = 256
"""Choices of all prompts of one job together."""

_MOST_LOGPROBS = {Task.CHAT: 20, Task.COMPLETION: 5}
_MOST_BIAS = 100
_MOST_PENALTY = 2

_GENERATION = frozenset({"n", "logprobs", "logit_bias", "frequency_penalty", "presence_penalty"})
_HONOURED: Mapping[Task, frozenset[str]] = {
    Task.CHAT: _GENERATION | {"top_logprobs"},
    Task.COMPLETION: _GENERATION | {"best_of", "echo"},
}
# Fields that clients send with these values to say what holds anyway.
_ASKS_NOTHING: Mapping[str, tuple[object, ...]] = {
    "audio": (None,),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
}
# Fields of a message that hold what the text does not.
_MORE_THAN_TEXT = ("tool_calls", "tool_call_id", "function_call", "audio")


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a text is to be made, beyond `Sampling`.

    `logprobs` is how many alternatives to tell of each token, None for no log probabilities at all; `bias` maps token
    ids to what is added to their logits.
    """

    n: int = 1
    logprobs: int | None = None
    bias: Mapping[int, float] = field(default_factory=dict)
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    echo: bool = False


def honoured(job: Job) -> dict[str, object]:
    """Return the fields of a job that a worker must be told of. Raises BadJob for one that it cannot honour."""
    for message in job.messages:
        _refuse_more_than_text(message)
    known = _HONOURED.get(job.task, frozenset())
    for name, value in job.extra.items():
        if name not in known and not any(_same(value, harmless) for harmless in _ASKS_NOTHING.get(name, ())):
            raise BadJob(f"this model cannot honour '{name}'", name)
    return {name: value for name, value in job.extra.items() if name in known}


def read_wishes(job: Job) -> Wishes:
    """Read the fields that `honoured` lets through. Raises BadJob for a value that is not one of those allowed."""
    extra = job.extra
    n = _whole(extra, "n", 1, MOST_CHOICES, default=1)
    if "best_of" in extra and _whole(extra, "best_of", 1, MOST_CHOICES, default=1) != n:
        raise BadJob(f"best_of is {extra['best_of']}; only n, which is {n}, is supported", "best_of")
    wishes = Wishes(
        n,
        _chat_logprobs(extra) if job.task is Task.CHAT else _completion_logprobs(extra),
        _bias(extra.get("logit_bias", {})),
        _penalty(extra, "frequency_penalty"),
        _penalty(extra, "presence_penalty"),
        _flag(extra, "echo"),
    )
    if wishes.echo and wishes.logprobs is not None:
        raise BadJob("echo together with logprobs is not supported: the prompt's tokens are not scored", "echo")
    return wishes


def _refuse_more_than_text(message: Message) -> None:
    for name in _MORE_THAN_TEXT:
        if message.extra.get(name):
            raise BadJob(f"this model reads text only; a message of the role {message.role} has '{name}'", "messages")
    parts = message.extra.get("content")
    for part in parts if isinstance(parts, Sequence) else ():
        kind = part.get("type") if isinstance(part, Mapping) else part
        if kind != "text":
            raise BadJob(f"this model reads text only; a message has a part of the type {kind!r}", "messages")


def _same(value: object, harmless: object) -> bool:
    """Tell whether two JSON values are equal, where true is not 1."""
    return value == harmless and isinstance(value, bool) == isinstance(harmless, bool)


def _chat_logprobs(extra: Mapping[str, Any]) -> int | None:
    top = _whole(extra, "top_logprobs", 0, _MOST_LOGPROBS[Task.CHAT], default=0)
    if _flag(extra, "logprobs"):
        return top
    if top:
        raise BadJob(f"top_logprobs is {top}; it needs logprobs to be true", "top_logprobs")
    return None


def _completion_logprobs(extra: Mapping[str, Any]) -> int | None:
    if extra.get("logprobs") is None:
        return None
    return _whole(extra, "logprobs", 0, _MOST_LOGPROBS[Task.COMPLETION], default=0)


def _bias(value: object) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise BadJob(f"logit_bias is {value!r}; a map of token ids to numbers is needed", "logit_bias")
    bias: dict[int, float] = {}
    for token, each in value.items():
        if not (isinstance(token, str) and token.isascii() and token.isdigit()):
            raise BadJob(f"logit_bias has the key {token!r}; a token id is needed", "logit_bias")
        if not _is_number(each) or not -_MOST_BIAS <= each <= _MOST_BIAS:
            raise BadJob(
                f"logit_bias of token {token} is {each!r}; -{_MOST_BIAS} to {_MOST_BIAS} is allowed", "logit_bias"
            )
        bias[int(token)] = each
    return bias


def _penalty(extra: Mapping[str, Any], name: str) -> float:
    value = extra.get(name, 0)
    if not _is_number(value) or not -_MOST_PENALTY <= value <= _MOST_PENALTY:
        raise BadJob(f"{name} is {value!r}; -{_MOST_PENALTY} to {_MOST_PENALTY} is allowed", name)
    return float(value)


def _whole(extra: Mapping[str, Any], name: str, least: int, most: int, *, default: int) -> int:
    value = extra.get(name, default)
    if type(value) is not int or not least <= value <= most:
        raise BadJob(f"{name} is {value!r}; {least} to {most} is allowed", name)
    return value


def _flag(extra: Mapping[str, Any], name: str) -> bool:
    value = extra.get(name, False)
    if not isinstance(value, bool):
        raise BadJob(f"{name} is {value!r}; true or false is needed", name)
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
