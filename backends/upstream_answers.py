"""Answers of OpenAI's wire as events: chunks of a stream, whole answers, embeddings. Pure; knows no connection."""

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from backends.contract import (
    Event,
    Finish,
    Job,
    Logprobs,
    Reasoning,
    Refusal,
    Task,
    Text,
    ToolCall,
    UpstreamFailed,
    Usage,
    Vectors,
)

# What servers call the reasons to stop. Any other is told in the server's own word, which nothing takes for a whole
# answer: among them are `abort`, `error` and `insufficient_system_resource`.
_REASONS = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "max_tokens": "length",
    "model_length": "length",
}

# Parts of an answer that no event stands for: only a client of the same wire can be given them, as they came.
_UNKNOWN_PARTS = ("function_call", "audio", "images")

# What has nothing else is a piece of text, as nearly all are.
_PLAIN = frozenset({"role", "content"})

DONE = b"[DONE]"

_SHOWN = 200
_MOST_TOKENS = 2**40


class StreamDecoder:
    """Turns the data of a stream's events into ours; what ends the answer is held back until the stream ended."""

    def __init__(self, job: Job) -> None:
        self.complete = False
        self._chat = job.task is not Task.COMPLETION
        self._as_it_came = job.verbatim is not None and job.verbatim.wire == "openai"
        self._seen: set[int] = set()
        self._untold: set[int] = set()
        self._finishes: dict[int, Finish] = {}
        self._last: list[Event] = []

    def feed(self, data: bytes) -> list[Event]:
        """Return the events of one chunk; none after the last. Raises `UpstreamFailed` for what is no chunk."""
        if self.complete or data.startswith(DONE):
            self.complete = True
            return []
        chunk = parsed(data)
        try:
            return self.take(chunk, part="delta")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise misshapen(data, error) from error

    def take(self, answer: dict[str, Any], part: str) -> list[Event]:
        """Return the events of a chunk or of a whole answer, and keep its usage and reasons."""
        if answer.get("usage"):
            self._last = usage_of(answer)
        events: list[Event] = []
        seen, finishes = self._seen, self._finishes
        for choice in answer["choices"]:
            index = choice.get("index", 0)
            seen.add(index)
            if self._chat:
                message = choice.get(part) or {}
                content = message.get("content")
                if type(content) is not str or (len(message) > 1 and not message.keys() <= _PLAIN):
                    events += self._said(message, index)
                elif content:
                    events.append(Text(content, index))
            elif text := choice.get("text"):
                events.append(Text(text, index))
            if logprobs := choice.get("logprobs"):
                events += _logprobs(logprobs, index)
            if reason := choice.get("finish_reason"):
                finishes[index] = Finish(_REASONS.get(reason) or _text(reason), index)
        return events

    def end(self) -> list[Event]:
        """Return the events that close the answer. Raises `UpstreamFailed` where it was cut off.

        A choice that is more than events can tell gets no `Finish`: nothing may take it for whole.
        """
        finishes = self._finishes
        if not self._seen or self._seen != finishes.keys():
            raise UpstreamFailed(
                "the upstream's answer ended before it was complete (no finish_reason)", cause="cut off"
            )
        if len(finishes) > 1:
            return [*self._last, *[finishes[index] for index in sorted(finishes) if index not in self._untold]]
        return self._last if self._untold else [*self._last, *finishes.values()]

    def _said(self, message: dict[str, Any], index: int) -> Iterator[Event]:
        for name in _UNKNOWN_PARTS:
            if message.get(name):
                self._cannot_tell(name, index)
        if thought := message.get("reasoning_content") or message.get("reasoning"):
            yield Reasoning(_text(thought), index)
        if content := message.get("content"):
            yield Text(_text(content), index)
        if refusal := message.get("refusal"):
            yield Refusal(_text(refusal), index)
        for place, call in enumerate(message.get("tool_calls") or ()):
            function = call.get("function")
            if function is None:
                self._cannot_tell(f"a tool call of type {call.get('type')}", index)
                continue
            place_told = call.get("index")
            yield ToolCall(
                place if place_told is None else place_told,
                call.get("id") or "",
                function.get("name") or "",
                function.get("arguments") or "",
                index,
            )

    def _cannot_tell(self, what: str, index: int) -> None:
        if not self._as_it_came:
            raise UpstreamFailed(f"the upstream answered with {what}, which this gateway cannot pass on")
        self._untold.add(index)


def parsed(data: bytes) -> dict[str, Any]:
    """Read one JSON object. Raises `UpstreamFailed` where it is none, or tells of an error."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise misshapen(data, error) from error
    if not isinstance(value, dict):
        raise misshapen(data, TypeError("it is no JSON object"))
    if refusal := value.get("error"):
        words = refusal if isinstance(refusal, dict) else {"message": refusal}
        status = words.get("code")
        message = f"the upstream broke off with an error: {words.get('message')}"
        raise UpstreamFailed(message, status if isinstance(status, int) else None, cause="it broke off with an error")
    return value


def misshapen(data: bytes, error: Exception) -> UpstreamFailed:
    """Return the error for what is no answer; it shows the beginning."""
    shown = data[:_SHOWN].decode("utf-8", "replace")
    cause = "what it sent is no answer of OpenAI's API"
    return UpstreamFailed(f"the upstream sent what is no answer of OpenAI's API ({error}): {shown!r}", cause=cause)


def usage_of(answer: dict[str, Any]) -> list[Event]:
    """Return the usage that an answer tells, or nothing."""
    usage = answer.get("usage")
    if not usage:
        return []
    read, made = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return [
        Usage(
            tokens(usage.get("prompt_tokens")),
            tokens(usage.get("completion_tokens")),
            tokens(read.get("cached_tokens")) if read else 0,
            tokens(made.get("reasoning_tokens")) if made else 0,
        )
    ]


def tokens(told: Any) -> int:
    """Return a count of tokens, 0 where none is told. Raises `ValueError` for what no answer can have taken."""
    count = int(told or 0)
    if not 0 <= count <= _MOST_TOKENS:
        raise ValueError("its usage is beyond all measure")
    return count


def vectors_of(items: list[dict[str, Any]], count: int) -> Vectors:
    """Put the embeddings in the order of their inputs; each came as base64 or as a list of numbers."""
    rows = [_vector(item["embedding"]) for item in sorted(items, key=lambda item: item.get("index", 0))]
    sizes = {len(row) for row in rows}
    if len(rows) != count or len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"{count} inputs, and {len(rows)} embeddings of {sorted(sizes)} bytes")
    return Vectors(b"".join(rows), (count, sizes.pop() // 4))


def _text(content: object) -> str:
    """Return a text, or the text of those of its parts that are."""
    if isinstance(content, list):
        return "".join([part.get("text") or "" for part in content])
    if not isinstance(content, str):
        raise TypeError(f"{type(content).__name__} is no text")
    return content


def _logprobs(logprobs: dict[str, Any], index: int) -> list[Event]:
    """Return the log probabilities of a piece; those of completions, which come in columns, in chat's shape."""
    rows = logprobs.get("content")
    if rows is None and "token_logprobs" in logprobs:
        tops = logprobs.get("top_logprobs") or [None] * len(logprobs["tokens"])
        columns = zip(logprobs["tokens"], logprobs["token_logprobs"], tops, strict=True)
        rows = [
            {**_token(token, logprob), "top_logprobs": [_token(*pair) for pair in (top or {}).items()]}
            for token, logprob, top in columns
        ]
    return [Logprobs(tuple(rows), index)] if rows else []


def _token(token: str, logprob: float | None) -> dict[str, object]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _vector(embedding: object) -> bytes:
    if isinstance(embedding, str):
        try:
            row = base64.b64decode(embedding, validate=True)
        except binascii.Error as error:
            raise ValueError(f"an embedding is no base64: {error}") from error
        if len(row) % 4:
            raise ValueError(f"an embedding of {len(row)} bytes is no float32")
        return row
    return np.asarray(embedding, dtype="<f4").reshape(-1).tobytes()
