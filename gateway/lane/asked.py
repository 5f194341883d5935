"""What a request of OpenAI's wire asks, as far as passing it on needs it; read in few steps where it is plain. Pure.

A plain one is a chat of texts with the fields that nearly all have. Every other is for its surface to read, which alone
says what is wrong with a request.
"""

from typing import Any, NamedTuple

import orjson

PATH = "/v1/chat/completions"
_ROLES = frozenset({"system", "developer", "user", "assistant"})
_DRAWN = frozenset({"max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "user", "stream"})
_FIELDS = _DRAWN | {"model", "messages"}
_MAX_TOKENS = 2**20
_MAX_SEED = 2**63 - 1
_MAX_MESSAGES = 2**12
_BYTES_PER_TOKEN = 4
# Names and strings of a message, and of what stands around the messages at least, with two quotes each.
_QUOTES_A_MESSAGE = 8
_QUOTES_A_STRING = 2
_MAX_TEMPERATURE = 2
_TEXT, _WHOLE, _NUMBER = (str, type(None)), (int, type(None)), (int, float, type(None))


class Asked(NamedTuple):
    """The model, about how many tokens are read and made at most, and what says how they are drawn."""

    model: str
    tokens: int
    temperature: float | None = None
    seeded: bool = False


def asked_by(body: bytes) -> Asked | None:
    """Return what a plain chat asks; None for what is not plain, or streamed, or no chat at all."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(fields) is not dict or not fields.keys() <= _FIELDS:
        return None
    model, messages = fields.get("model"), fields.get("messages")
    if type(model) is not str or not model or type(messages) is not list or not 0 < len(messages) <= _MAX_MESSAGES:
        return None
    tokens = 0
    for message in messages:
        if type(message) is not dict or len(message) != 2 or message.get("role") not in _ROLES:  # noqa: PLR2004
            return None
        content = message.get("content")
        if type(content) is not str:
            return None
        if content:
            tokens += len(content) // _BYTES_PER_TOKEN + 1
    strings = len(fields) + 1 + (fields.get("user") is not None)
    if not _named_once(body, strings * _QUOTES_A_STRING + len(messages) * _QUOTES_A_MESSAGE):
        return None
    return Asked(model, tokens) if _DRAWN.isdisjoint(fields) else _with_drawing(fields, model, tokens)


def _named_once(body: bytes, quotes: int) -> bool:
    """Tell whether the body has no more quotes than the strings that were read: no name is in it twice."""
    return b"\\\\" not in body and body.count(b'"') - body.count(b'\\"') == quotes


def _with_drawing(fields: dict[str, Any], model: str, tokens: int) -> Asked | None:
    temperature, top_p, seed = fields.get("temperature"), fields.get("top_p"), fields.get("seed")
    most = fields.get("max_tokens")
    if "max_completion_tokens" in fields:
        if most is not None:
            return None
        most = fields["max_completion_tokens"]
    if (
        (stream := fields.get("stream")) is not None
        and stream is not False
        or type(fields.get("user")) not in _TEXT
        or type(most) not in _WHOLE
        or type(seed) not in _WHOLE
        or type(temperature) not in _NUMBER
        or type(top_p) not in _NUMBER
        or not 0 <= (most or 0) <= _MAX_TOKENS
        or not -_MAX_SEED - 1 <= (seed or 0) <= _MAX_SEED
        or not 0 <= (temperature or 0) <= _MAX_TEMPERATURE
        or not 0 <= (top_p or 0) <= 1
    ):
        return None
    return Asked(model, tokens + (most or 0), temperature, seed is not None)
