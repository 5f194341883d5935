"""OpenAI's wire as a client sees it: jobs to request bodies, answers and streams to events, refusals to errors.

Pure: bytes and values in, values out. Knows nothing of connections, and never sees a key.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from backends.contract import (
    BackendError,
    BadJob,
    Event,
    Finish,
    Job,
    Sampling,
    Task,
    Text,
    UpstreamFailed,
    Usage,
    Vectors,
)

PATHS = {Task.CHAT: "/chat/completions", Task.COMPLETION: "/completions", Task.EMBED: "/embeddings"}

# What servers call the reasons to stop; whatever is not here ended of itself.
_REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "max_tokens": "length",
    "model_length": "length",
}

# Parts of an answer that no event stands for yet. Serving the rest would change what the model said.
_UNKNOWN_PARTS = ("tool_calls", "function_call", "audio", "refusal")

DONE = b"[DONE]"

_SHOWN = 200

_OURS_TO_BLAME = frozenset({401, 403})
_NOT_THE_CLIENT = frozenset({401, 403, 404, 408, 409, 429})
_CLIENT_ERROR, _SERVER_ERROR = 400, 500


def request_of(job: Job, model: str) -> tuple[str, bytes]:
    """Return the path (below the base URL) and the JSON body that ask an upstream's `model` to do `job`.

    Raises `BadJob` for a task that the wire has no request for.
    """
    path = PATHS.get(job.task)
    if path is None:
        raise BadJob(f"an upstream does not {job.task}; it does {', '.join(PATHS)}")
    body: dict[str, Any] = {**job.extra, "model": model}
    if job.task is Task.EMBED:
        body |= {"input": job.inputs, "encoding_format": "base64"}
        return path, orjson.dumps(body)
    if job.task is Task.CHAT:
        body["messages"] = [{"role": message.role, "content": message.content} for message in job.messages]
    else:
        body["prompt"] = job.prompt
    body |= _sampling(job.sampling)
    if job.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return path, orjson.dumps(body)


def _sampling(sampling: Sampling) -> dict[str, Any]:
    said = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stop": sampling.stop or None,
    }
    return {name: value for name, value in said.items() if value is not None}


def answer_events(job: Job, body: bytes) -> list[Event]:
    """Return the events of a whole (not streamed) answer. Raises `UpstreamFailed` where it is none."""
    answer = _parse(body)
    try:
        if job.task is Task.EMBED:
            return [_vectors(answer["data"], len(job.inputs)), *_usage(answer), Finish("stop")]
        decoder = StreamDecoder(job.task)
        return [*decoder.take(answer, part="message"), *decoder.end()]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _misshapen(body, error) from error


class StreamDecoder:
    """Turns the data of a stream's events into ours; what ends the answer is held back until the stream ended."""

    def __init__(self, task: Task) -> None:
        self._chat = task is Task.CHAT
        self._seen: set[int] = set()
        self._finishes: dict[int, Finish] = {}
        self._last: list[Event] = []

    def feed(self, data: bytes) -> list[Event]:
        """Return the events of one chunk. Raises `UpstreamFailed` for an error or for what is no chunk."""
        if data.startswith(DONE):
            return []
        chunk = _parse(data)
        try:
            return self.take(chunk, part="delta")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise _misshapen(data, error) from error

    def take(self, answer: dict[str, Any], part: str) -> list[Event]:
        """Return the text events of a chunk or of a whole answer, and keep its usage and reasons."""
        if answer.get("usage"):
            self._last = _usage(answer)
        events: list[Event] = []
        for choice in answer["choices"]:
            index = choice.get("index", 0)
            self._seen.add(index)
            text = self._text(choice.get(part) or {}) if self._chat else choice.get("text")
            if text:
                events.append(Text(text, index))
            if reason := choice.get("finish_reason"):
                self._finishes[index] = Finish(_REASONS.get(reason, "stop"), index)
        return events

    def end(self) -> list[Event]:
        """Return the events that close the answer. Raises `UpstreamFailed` where it was cut off."""
        if not self._seen or self._seen != self._finishes.keys():
            raise UpstreamFailed("the upstream's answer ended before it was complete (no finish_reason)")
        return [*self._last, *(self._finishes[index] for index in sorted(self._finishes))]

    def _text(self, message: dict[str, Any]) -> str | None:
        for name in _UNKNOWN_PARTS:
            if message.get(name):
                raise UpstreamFailed(f"the upstream answered with {name}, which this gateway cannot pass on yet")
        content: str | None = message.get("content")
        return content


def refusal_of(status: int, headers: Mapping[str, str], body: bytes, where: str) -> BackendError:
    """Return the error for an answer with a status other than 200; `where` names the upstream.

    A status that is the client's doing becomes `BadJob` with the upstream's words; 401 and 403 are about our own
    key, so the upstream's words (which may quote it) are left out.
    """
    if status in _OURS_TO_BLAME:
        return UpstreamFailed(f"{where} refused this gateway's credentials with status {status}", status)
    error = _error_object(body)
    message = str(error.get("message") or body[:_SHOWN].decode("utf-8", "replace") or "(empty answer)")
    if _CLIENT_ERROR <= status < _SERVER_ERROR and status not in _NOT_THE_CLIENT:
        param = error.get("param")
        return BadJob(message, param if isinstance(param, str) else None)
    return UpstreamFailed(f"{where} answered with status {status}: {message}", status, _retry_after_s(headers))


def _parse(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _misshapen(data, error) from error
    if not isinstance(value, dict):
        raise _misshapen(data, TypeError("it is no JSON object"))
    if value.get("error"):
        refusal = _error_object(data)
        status = refusal.get("code")
        message = f"the upstream broke off with an error: {refusal.get('message')}"
        raise UpstreamFailed(message, status if isinstance(status, int) else None)
    return value


def _error_object(body: bytes) -> dict[str, Any]:
    """Find the error in OpenAI's shape or in its usual variations; empty where there is none."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(value, dict):
        return {}
    error = value.get("error") or value.get("detail") or value
    return error if isinstance(error, dict) else {"message": str(error)}


def _misshapen(data: bytes, error: Exception) -> UpstreamFailed:
    shown = data[:_SHOWN].decode("utf-8", "replace")
    return UpstreamFailed(f"the upstream sent what is no answer of OpenAI's API ({error}): {shown!r}")


def _usage(answer: dict[str, Any]) -> list[Event]:
    usage = answer.get("usage")
    if not usage:
        return []
    return [Usage(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))]


def _vectors(items: list[dict[str, Any]], count: int) -> Vectors:
    """Put the embeddings in the order of their inputs; each came as base64 or as a list of numbers."""
    rows = [_vector(item["embedding"]) for item in sorted(items, key=lambda item: item.get("index", 0))]
    sizes = {len(row) for row in rows}
    if len(rows) != count or len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"{count} inputs, and {len(rows)} embeddings of {sorted(sizes)} bytes")
    return Vectors(b"".join(rows), (count, sizes.pop() // 4))


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


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read `Retry-After-Ms` or `Retry-After` in seconds; a date counts as nothing said."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "")
        if value.replace(".", "", 1).isdecimal():
            return float(value) * scale
    return None
