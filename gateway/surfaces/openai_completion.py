"""Reads completion and embedding requests of OpenAI's wire. Knows no reply."""

import functools
from collections.abc import Mapping
from typing import Any, TypeGuard

from backends.contract import Job, Task
from gateway.fields import flag, refuse, said, text, whole
from gateway.request import Request
from gateway.surfaces import openai_fields as fields
from gateway.surfaces.openai_chat import Decoded
from gateway.surfaces.openai_reply import CompletionEncoder, EmbeddingEncoder, Wanted
from gateway.surfaces.roles import COMPLETION, EMBEDDING

_MAX_INPUTS = 2048
_MAX_TOKEN_ID = 2**31 - 1
_MAX_TOKENS = 2**20
_MAX_DIMENSIONS = 2**20

Tokens = tuple[int, ...]


def _best_of(body: Mapping[str, Any], name: str) -> int | None:
    return whole(body, name, 0, fields.MAX_CHOICES)


_CHECKS = {
    **fields.CHECKS,
    "best_of": _best_of,
    "echo": flag,
    "suffix": said,
    "logprobs": fields.top_logprobs,
}


def decode_completion(body: Mapping[str, Any], raw: bytes) -> Decoded:
    """Read a completion request; several prompts have their choices one after the other."""
    fields.check(body, _CHECKS)
    prompts = _prompts(body.get("prompt"))
    streamed = flag(body, "stream")
    verbatim = fields.verbatim("/completions", raw, body, COMPLETION, streamed=streamed)
    job = Job(
        Task.COMPLETION,
        prompt=prompts[0] if len(prompts) == 1 else None,
        inputs=prompts if len(prompts) > 1 else (),
        sampling=fields.sampling(body),
        extra=fields.others(body, COMPLETION),
        verbatim=verbatim,
        stream=streamed,
    )
    identity = fields.identity(body, COMPLETION)
    identity["prompt"] = prompts[0] if len(prompts) == 1 else prompts
    request = Request(text(body, "model"), job, identity)
    wanted = Wanted(verbatim.kind, streamed, fields.include_usage(body), body.get("logprobs") is not None)
    return request, functools.partial(CompletionEncoder, wanted)


def decode_embedding(body: Mapping[str, Any], raw: bytes) -> Decoded:
    """Read an embedding request."""
    encoding = body.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        raise refuse("encoding_format", encoding, "'float' or 'base64'")
    whole(body, "dimensions", 1, _MAX_DIMENSIONS)
    verbatim = fields.verbatim("/embeddings", raw, body, EMBEDDING)
    asked = inputs(body, "input")
    job = Job(Task.EMBED, inputs=asked, extra=fields.others(body, EMBEDDING), verbatim=verbatim)
    identity = fields.identity(body, EMBEDDING)
    identity["input"] = asked[0] if len(asked) == 1 else asked  # one is the same question, whatever list it came in
    request = Request(text(body, "model"), job, identity)
    encoder = EmbeddingEncoder(verbatim.kind, as_base64=encoding == "base64")
    return request, lambda _: encoder  # embeddings have no id


def _prompts(value: object) -> tuple[str | Tokens, ...]:
    """Read a text, a list of token ids, or a list of those."""
    if isinstance(value, str):
        return (value,)
    if _is_tokens(value):
        return (tuple(value),)
    if not isinstance(value, list) or not 0 < len(value) <= _MAX_INPUTS:
        raise refuse("prompt", value, f"a string, a list of token ids, or a list of 1 to {_MAX_INPUTS} of those")
    return tuple([_prompt(item, f"prompt[{place}]") for place, item in enumerate(value)])


def _prompt(item: object, name: str) -> str | Tokens:
    if isinstance(item, str):
        return item
    if _is_tokens(item):
        return tuple(item)
    raise refuse(name, item, "a string or a non-empty list of token ids")


def inputs(body: Mapping[str, Any], name: str) -> tuple[str | Tokens, ...]:
    """Read a string, a list of strings, a list of token ids or a list of those; none of them empty."""
    value = body.get(name)
    if isinstance(value, str) and value:
        return (value,)
    if _is_tokens(value):
        return (tuple(value),)
    if not isinstance(value, list) or not 0 < len(value) <= _MAX_INPUTS:
        raise refuse(name, value, f"a non-empty string, or a list of 1 to {_MAX_INPUTS} strings or token lists")
    return tuple([_input(item, f"{name}[{place}]") for place, item in enumerate(value)])


def _input(item: object, name: str) -> str | Tokens:
    if isinstance(item, str) and item:
        return item
    if _is_tokens(item):
        return tuple(item)
    raise refuse(name, item, "a non-empty string or a non-empty list of token ids")


def _is_tokens(value: object) -> TypeGuard[list[int]]:
    return (
        isinstance(value, list)
        and 0 < len(value) <= _MAX_TOKENS
        and set(map(type, value)) == {int}
        and min(value) >= 0
        and max(value) <= _MAX_TOKEN_ID
    )
