"""Pieces of OpenAI's replies that whole ones and chunks share. Pure."""

from collections.abc import Mapping, Sequence

from backends.contract import Usage
from gateway.answer import Head


def envelope(reply_id: str, kind: str, head: Head) -> dict[str, object]:
    """Return what every reply and every chunk begins with."""
    return {"id": reply_id, "object": kind, "created": int(head.created_s), "model": head.model}


def usage_of(usage: Usage) -> dict[str, object]:
    """Return the counted tokens; details only where there is something to say."""
    counted: dict[str, object] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if usage.cached_tokens:
        counted["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens:
        counted["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return counted


def call_id(reply_id: str, index: int, place: int) -> str:
    """Name a call that its model left without an id."""
    return f"call_{reply_id}{index:02x}{place:02x}"


def chat_logprobs(tokens: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return the log probabilities of a chat."""
    return {"content": list(tokens), "refusal": None}


def legacy_logprobs(tokens: Sequence[Mapping[str, object]], offset: int = 0) -> dict[str, list[object]]:
    """Return the log probabilities of a completion, whose text so far has `offset` characters."""
    offsets: list[object] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(str(token["token"]))
    return {
        "tokens": [token["token"] for token in tokens],
        "token_logprobs": [token["logprob"] for token in tokens],
        "top_logprobs": [_alternatives(token.get("top_logprobs")) for token in tokens],
        "text_offset": offsets,
    }


def _alternatives(top: object) -> dict[str, object]:
    return {item["token"]: item["logprob"] for item in top} if isinstance(top, list | tuple) else {}
