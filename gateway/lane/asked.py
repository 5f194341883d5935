"""What a request of OpenAI's wire asks, as far as passing it on needs it; read in few steps where it is plain. Pure.

A plain one is a chat of texts with the fields that nearly all have. Every other is for its surface to read, which alone
says what is wrong with a request.
"""

from typing import Any, NamedTuple

import orjson

PATH = "/v1/chat/completions"
_ROLES = frozenset({"system", "developer", "user", "assistant"})
_DRAWN = frozenset(
    {"max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "user", "stream", "stream_options"}
)
_FIELDS = _DRAWN | {"model", "messages"}
_MAX_TOKENS = 2**20
_MAX_SEED = 2**63 - 1
_MAX_MESSAGES = 2**12
_BYTES_PER_TOKEN = 4
# Names and strings of a message, and of what stands around the messages at least, with two quotes each.
_QUOTES_A_MESSAGE = 8
_QUOTES_A_STRING = 2
_MAX_TEMPERATURE = 2
_TEXT, _WHOLE, _NUMBER, _FLAG = (str, type(None)), (int, type(None)), (int, float, type(None)), (bool, type(None))


class Asked(NamedTuple):
    """The model, about how many tokens are read, and made at most, what says how they are drawn, and how they come."""

    model: str
    tokens: int
    most: int = 0
    temperature: float | None = None
    seeded: bool = False
    streamed: bool = False


def asked_by(body: bytes) -> Asked | None:
    """Return what a plain chat asks; None for what is not plain, or no chat at all."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(fields) is not dict or not fields.keys() <= _FIELDS:
        return None
    model, messages = fields.get("model"), fields.get("messages")
    if type(model) is not str or not model or type(messages) is not list or not (tokens := _tokens_of(messages)):
        return None
    options = fields.get("stream_options")
    if options is not None and not _is_plain(options):
        return None
    strings = len(fields) + 1 + (fields.get("user") is not None) + (len(options) if options else 0)
    if not _named_once(body, strings * _QUOTES_A_STRING + len(messages) * _QUOTES_A_MESSAGE):
        return None
    asked = Asked(model, tokens - len(messages))
    return asked if _DRAWN.isdisjoint(fields) else _with_drawing(fields, asked)


def _tokens_of(messages: list[Any]) -> int:
    """Return about how many tokens the messages have, and one more for each of them; 0 where they are not plain."""
    tokens = 0
    for message in messages:
        if type(message) is not dict or len(message) != 2:  # noqa: PLR2004 - a role and a content
            return 0
        role, content = message.get("role"), message.get("content")
        if type(role) is not str or role not in _ROLES or type(content) is not str:
            return 0
        tokens += len(content) // _BYTES_PER_TOKEN + 2 if content else 1
    return tokens if len(messages) <= _MAX_MESSAGES else 0


def _named_once(body: bytes, quotes: int) -> bool:
    """Tell whether the body has no more quotes than the strings that were read: no name is in it twice."""
    return b"\\\\" not in body and body.count(b'"') - body.count(b'\\"') == quotes


def _is_plain(options: object) -> bool:
    """Tell whether the options of a stream say no more than whether its usage is told."""
    return (
        type(options) is dict
        and options.keys() <= {"include_usage"}
        and all(type(said) is bool for said in options.values())
    )


def _with_drawing(fields: dict[str, Any], asked: Asked) -> Asked | None:
    temperature, top_p, seed = fields.get("temperature"), fields.get("top_p"), fields.get("seed")
    most, stream = fields.get("max_tokens"), fields.get("stream")
    if fields.get("stream_options") is not None and not stream:  # the surface refuses it
        return None
    if "max_completion_tokens" in fields:
        if most is not None:
            return None
        most = fields["max_completion_tokens"]
    if (
        type(stream) not in _FLAG
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
    return Asked(asked.model, asked.tokens, most or 0, temperature, seed is not None, bool(stream))
