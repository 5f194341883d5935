"""Encoders of OpenAI's replies, whole and streamed. Knows no request format.

A stream's chunks share their beginning and end, so each frame is one small JSON string between two prepared pieces.
"""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from backends.contract import Event, Finish, Text, Usage, Vectors
from gateway.answer import Answer, Head
from gateway.surfaces.wire import SSE, Whole

_DONE = b"data: [DONE]\n\n"


class ChatEncoder:
    """`chat.completion` and its chunks."""

    def __init__(self, reply_id: str, *, streamed: bool, include_usage: bool) -> None:
        self._id = f"chatcmpl-{reply_id}"
        self.frames = (
            ChunkFrames(self._id, "chat.completion.chunk", _chat_delta, include_usage=include_usage)
            if streamed
            else None
        )

    def whole(self, answer: Answer) -> Whole:
        """Encode a complete answer as one body."""
        message = {"role": "assistant", "content": answer.text(), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish()}
        body = _envelope(self._id, "chat.completion", answer.head)
        return Whole(orjson.dumps({**body, "choices": [choice], "usage": _usage(answer.usage())}))


class CompletionEncoder:
    """`text_completion`, whole and in chunks."""

    def __init__(self, reply_id: str, *, streamed: bool, include_usage: bool) -> None:
        self._id = f"cmpl-{reply_id}"
        self.frames = (
            ChunkFrames(self._id, "text_completion", _completion_delta, include_usage=include_usage)
            if streamed
            else None
        )

    def whole(self, answer: Answer) -> Whole:
        """Encode a complete answer as one body."""
        choice = {"index": 0, "text": answer.text(), "logprobs": None, "finish_reason": answer.finish()}
        body = _envelope(self._id, "text_completion", answer.head)
        return Whole(orjson.dumps({**body, "choices": [choice], "usage": _usage(answer.usage())}))


class EmbeddingEncoder:
    """The list of embeddings, as numbers or as base64 of little-endian float32."""

    frames = None

    def __init__(self, *, as_base64: bool) -> None:
        self._as_base64 = as_base64

    def whole(self, answer: Answer) -> Whole:
        """Encode a complete answer as one body."""
        vectors = next(event for event in answer.events if type(event) is Vectors)
        rows = np.frombuffer(vectors.data, dtype="<f4").reshape(vectors.shape)
        embeddings = [base64.b64encode(row.tobytes()).decode() for row in rows] if self._as_base64 else list(rows)
        data = [{"object": "embedding", "index": place, "embedding": item} for place, item in enumerate(embeddings)]
        prompt_tokens = answer.usage().prompt_tokens
        usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
        body = {"object": "list", "data": data, "model": answer.head.model, "usage": usage}
        return Whole(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))


class ChunkFrames:
    """A stream of chunks: a shared envelope, the usage chunk last where it was asked for, then `[DONE]`.

    `delta(text, index, finish_reason)` makes the one choice of a chunk; a text of None opens a chat message.
    """

    def __init__(
        self, chunk_id: str, kind: str, delta: Callable[[str | None, int, str | None], Any], *, include_usage: bool
    ) -> None:
        self._id = chunk_id
        self._kind = kind
        self._delta = delta
        self._include_usage = include_usage
        self._usage = Usage(0, 0)
        self._before = b""
        self._after = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def content_type(self, head: Head) -> str:
        """Name what the stream consists of."""
        del head
        return SSE

    def opening(self, head: Head) -> bytes:
        """Prepare the envelope; a chat says its role first."""
        self._before = b"data: " + orjson.dumps(_envelope(self._id, self._kind, head))[:-1] + b',"choices":'
        return self._chunk(self._delta(None, 0, None)) if self._delta is _chat_delta else b""

    def frame(self, event: Event) -> bytes:
        """Encode one event as a chunk."""
        match event:
            case Text(text, index):
                return self._chunk(self._delta(text, index, None))
            case Finish(reason, index):
                return self._chunk(self._delta("", index, reason))
            case Usage():
                self._usage = event
        return b""

    def closing(self) -> bytes:
        """End with the usage, if it was asked for, and `[DONE]`."""
        if not self._include_usage:
            return _DONE
        return self._before + b'[],"usage":' + orjson.dumps(_usage(self._usage)) + b"}\n\n" + _DONE

    def _chunk(self, choice: object) -> bytes:
        return self._before + orjson.dumps([choice]) + self._after


def _chat_delta(text: str | None, index: int, finish: str | None) -> dict[str, object]:
    if text is None:
        return {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    return {"index": index, "delta": {} if finish else {"content": text}, "finish_reason": finish}


def _completion_delta(text: str | None, index: int, finish: str | None) -> dict[str, object]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


def _envelope(reply_id: str, kind: str, head: Head) -> dict[str, object]:
    return {"id": reply_id, "object": kind, "created": int(head.created_s), "model": head.model}


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
