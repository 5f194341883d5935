"""What a whole answer of OpenAI's wire took, seen at a glance where it is as plain as nearly all are. Pure.

Whatever is not plain is for `upstream_answers` to read, which alone says what is wrong with an answer.
"""

from typing import Any

import orjson

# A message that says nothing else is of text alone.
_SPOKEN = frozenset({"role", "content"})
_DETAILS = ("prompt_tokens_details", "completion_tokens_details")
_MOST_TOKENS = 2**40


def tokens_of(body: bytes) -> tuple[int, int] | None:
    """Return the tokens that a plain chat's answer tells to have read and made, 0 where it tells none; else None.

    A plain one has one text or several (of chats or completions), each with the reason of its end.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(answer) is not dict or answer.get("error"):
        return None
    choices = answer.get("choices")
    if type(choices) is not list or not choices:
        return None
    for choice in choices:
        if type(choice) is not dict or not _is_plain(choice):
            return None
    usage = answer.get("usage")
    return _told(usage) if usage else (0, 0)


def _is_plain(choice: dict[str, Any]) -> bool:
    message = choice.get("message")
    if message is None:
        is_text = type(choice.get("text")) is str
    else:
        is_text = type(message) is dict and type(message.get("content")) is str
        if is_text and (len(message) > len(_SPOKEN) or "role" not in message):
            is_text = not any(message[name] for name in message.keys() - _SPOKEN)
    reason, index = choice.get("finish_reason"), choice.get("index", 0)
    return is_text and type(reason) is str and reason != "" and type(index) is int and not choice.get("logprobs")


def _told(usage: object) -> tuple[int, int] | None:
    if type(usage) is not dict:
        return None
    read, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(read) is not int or type(made) is not int or not (0 <= read <= _MOST_TOKENS and 0 <= made <= _MOST_TOKENS):
        return None
    for name in _DETAILS:
        details = usage.get(name)
        if details and not (type(details) is dict and all(type(count) is int for count in details.values())):
            return None
    return read, made
