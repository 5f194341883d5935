"""What can be told of a request before any model sees it. Pure: a request and a route's policy in, features out."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import orjson

from backends.contract import Event, Finish, Job, Reasoning, Refusal, Task, Text, ToolCall, Usage
from backends.value import value
from gateway.caching.identity import fingerprint
from gateway.request import Caller, Directives, Request

_REMEMBERED = 1024
# English text averages about four bytes a token; a model's own count corrects the estimate once it has answered.
_BYTES_PER_TOKEN = 4
# A text longer than this is not worth the reading: it is beyond the window of any usual embedder, which says so itself.
_MEANING_MAX_CHARS = 4096


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """What a route lets the caches keep: nothing unless `enabled`, and of answers that are not pinned down as it says.

    `sampled`: the client asked for a temperature above 0 and gave no seed. `unstated`: it said nothing of either.
    `truncated`: the answer ended at its limit of tokens. `ttl_s` is how long they are served, where that is not as for
    all; `tags` go with them. `fallback`: a repeat is served what a fallback answered. `items`: what has several inputs
    is kept by each of them. `semantic`: a question may be answered by its meaning. `obey_upstream`: nothing is kept of
    which its upstream said `no-store`.
    """

    enabled: bool = True
    sampled: bool = False
    unstated: bool = True
    truncated: bool = False
    ttl_s: float | None = None
    tags: tuple[str, ...] = ()
    fallback: bool = True
    items: bool = True
    semantic: bool = True
    obey_upstream: bool = False


@value
class Keeping:
    """How an answer is kept: for how long, where that is not as for all, and as one of which groups.

    `obey_upstream`: not at all, where its upstream says so.
    """

    ttl_s: float | None = None
    groups: tuple[str, ...] = ()
    obey_upstream: bool = False


@value
class Features:
    """What routing and caching need to know. `cacheable` goes with its `reason`; both reach the client's headers.

    `wanted` is what the request says of the answer's form, and `truncated` whether one cut off at its limit is kept.
    `streamed`: the client reads the answer as it is made.
    """

    task: Task
    tokens_in: int
    max_tokens_out: int | None
    deterministic: bool
    cacheable: bool
    reason: str
    by_meaning: bool
    scope: str
    fingerprint: bytes
    deadline_s: float
    wanted: Mapping[str, object] = field(default_factory=dict)
    truncated: bool = False
    keeping: Keeping = Keeping()
    streamed: bool = False


# What a request says of its answer's form: such as breaks with that is not kept.
_WANTED = ("tools", "tool_choice", "response_format")
# The same input always gives the same output.
_FUNCTIONS = (Task.EMBED, Task.PREDICT, Task.INFER)

Determinism = Literal["pinned", "unstated", "sampled"]


def analyze(
    request: Request, caller: Caller, directives: Directives, policy: CachePolicy, deadline_s: float
) -> Features:
    """Describe a request. `deadline_s` is the moment (monotonic seconds) by which it must be answered."""
    sampling: Determinism = "pinned" if request.is_function else determinism(request.job)
    is_relay = request.job.task is Task.RELAY and not request.is_function
    cacheable, reason = _cacheability(sampling, directives, policy, is_relay=is_relay)
    return Features(
        task=request.job.task,
        tokens_in=estimate_tokens(request.job),
        max_tokens_out=request.job.sampling.max_tokens,
        deterministic=sampling == "pinned",
        cacheable=cacheable,
        reason=reason,
        by_meaning=cacheable and policy.semantic and _is_meant(request.asked),
        scope=caller.scope,
        fingerprint=fingerprint(request),
        deadline_s=deadline_s,
        wanted=_wanted(request.job.extra),
        truncated=policy.truncated,
        keeping=_keeping(
            request.model,
            caller.scope,
            policy.ttl_s,
            (policy.tags, directives.tags),
            obey_upstream=policy.obey_upstream,
        ),
        streamed=request.job.stream,
    )


@functools.lru_cache(_REMEMBERED)
def _keeping(
    route: str, scope: str, ttl_s: float | None, tags: tuple[tuple[str, ...], tuple[str, ...]], *, obey_upstream: bool
) -> Keeping:
    """Return how a request's answer is kept; the groups of its model are known later."""
    tagged = [f"tag:{tag}" for tag in dict.fromkeys((*tags[0], *tags[1]))]
    return Keeping(ttl_s, (f"scope:{scope}", f"route:{route}", *tagged), obey_upstream)


def _wanted(extra: Mapping[str, object]) -> Mapping[str, object]:
    return {name: extra[name] for name in _WANTED if name in extra} if extra else extra


def determinism(job: Job) -> Determinism:
    """Tell whether the same job gives the same answer: pinned by the client, left open by it, or sampled."""
    if job.task in _FUNCTIONS or job.sampling.seed is not None or job.sampling.temperature == 0:
        return "pinned"
    return "unstated" if job.sampling.temperature is None else "sampled"


def _is_meant(asked: str | None) -> bool:
    return asked is not None and 0 < len(asked) <= _MEANING_MAX_CHARS


def _cacheability(
    sampling: Determinism, directives: Directives, policy: CachePolicy, *, is_relay: bool
) -> tuple[bool, str]:
    if directives.no_store:
        return False, "no-store"
    if is_relay:
        return False, "relay"
    if not policy.enabled:
        return False, "route"
    if sampling == "sampled" and not policy.sampled:
        return False, "temperature"
    if sampling == "unstated" and not policy.unstated:
        return False, "unstated-temperature"
    return True, sampling


def tokens_made(event: object) -> int:
    """Guess how many tokens a piece of an answer is, for models that do not tell; what is no piece is none."""
    if type(event) is tuple:
        return max(1, len(event[1]) // _BYTES_PER_TOKEN) if event[1] else 0
    match event:
        case Text(text=text) | Reasoning(text=text) | Refusal(text=text) | ToolCall(arguments=text):
            return max(1, len(text) // _BYTES_PER_TOKEN)
        case _:
            return 0


def counted(events: Sequence[Event], tokens_in: int) -> tuple[Event, ...]:
    """Return the events of an answer with its usage: a guess where its model told none, as in many streams."""
    made = sum(map(tokens_made, events))
    if not made or any(type(event) is Usage for event in events):
        return tuple(events)
    ends = [event for event in events if type(event) is Finish]
    return (*[event for event in events if type(event) is not Finish], Usage(tokens_in, made), *ends)


def estimate_tokens(job: Job) -> int:
    """Guess how many tokens a job has; the tools that it offers are read by the model too."""
    tools = job.extra.get("tools")
    tokens = len(orjson.dumps(tools)) // _BYTES_PER_TOKEN + 1 if tools else 0
    for message in job.messages:
        if message.content:
            tokens += len(message.content) // _BYTES_PER_TOKEN + 1
    for text in (job.prompt, *job.inputs):
        if text:
            tokens += len(text) // _BYTES_PER_TOKEN + 1 if isinstance(text, str) else len(text)
    return tokens
