"""Encoders of the native wire's replies, whole and streamed. Knows no request format."""

import time
from typing import TypeVar

import numpy as np
import orjson

from backends.contract import Event, Finish, Reasoning, Refusal, Scores, Text, Usage, Vectors
from gateway.answer import Answer, Head
from gateway.errors import InvalidRequest
from gateway.surfaces.wire import SSE, Whole

_E = TypeVar("_E", Scores, Vectors)


class PredictionEncoder:
    """The most likely label and its probability; `latency_ms` counts from the encoder's making."""

    frames = None

    def __init__(self) -> None:
        self._since_s = time.perf_counter()

    def whole(self, answer: Answer) -> Whole:
        """Encode a complete answer as one body."""
        scores = _one(answer, Scores, "predict")
        row = np.frombuffer(scores.data, dtype="<f4")[: scores.shape[1]]
        best = int(row.argmax())
        body = {
            "prediction": scores.labels[best],
            "confidence": round(float(row[best]), 6),
            "model_version": answer.head.version,
            "latency_ms": round((time.perf_counter() - self._since_s) * 1000, 3),
        }
        return Whole(orjson.dumps(body))


class EmbeddingEncoder:
    """The embeddings in the order of their inputs."""

    frames = None

    def whole(self, answer: Answer) -> Whole:
        """Encode a complete answer as one body."""
        vectors = _one(answer, Vectors, "embed")
        rows = np.frombuffer(vectors.data, dtype="<f4").reshape(vectors.shape)
        body = {"embeddings": rows, "dimensions": vectors.shape[1], "model_version": answer.head.version}
        return Whole(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))


class GenerationEncoder:
    """The text that a model wrote, in pieces or as one."""

    def __init__(self, *, streamed: bool) -> None:
        self.frames = TokenFrames() if streamed else None

    def whole(self, answer: Answer) -> Whole:
        """Encode a complete answer as one body; reasoning and a refusal are there where the model gave them."""
        body: dict[str, object] = {"text": answer.text()}
        if reasoning := "".join([event.text for event in answer.events if type(event) is Reasoning]):
            body["reasoning"] = reasoning
        if refusal := "".join([event.text for event in answer.events if type(event) is Refusal]):
            body["refusal"] = refusal
        body |= _end(answer.finish(), answer.usage(), answer.head)
        return Whole(orjson.dumps(body))


class TokenFrames:
    """`{"token": …}` for each piece of text, then one frame that says how it ended."""

    def __init__(self) -> None:
        self._head: Head | None = None
        self._reason: str | None = None
        self._usage = Usage(0, 0)

    def content_type(self, head: Head) -> str:
        """Name what the stream consists of."""
        del head
        return SSE

    def opening(self, head: Head) -> bytes:
        """Say nothing yet, and keep who answers for the end."""
        self._head = head
        return b""

    def frame(self, event: Event) -> bytes:
        """Encode one event; how it ended is said in the last frame."""
        match event:
            case Text(text):
                return _data({"token": text})
            case Reasoning(text):
                return _data({"reasoning": text})
            case Refusal(text):
                return _data({"refusal": text})
            case Finish(reason):
                self._reason = reason
            case Usage():
                self._usage = event
        return b""

    def closing(self) -> bytes:
        """Encode the last frame."""
        assert self._head is not None, "a stream is opened before it is closed"
        return _data({"done": True, **_end(self._reason, self._usage, self._head)})


def _data(value: dict[str, object]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def _end(reason: str | None, usage: Usage, head: Head) -> dict[str, object]:
    counted = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    return {"finish_reason": reason, "usage": counted, "model_version": head.version}


def _one(answer: Answer, kind: type[_E], operation: str) -> _E:
    """Return the event that an answer of this kind consists of; a model of another task has given something else."""
    for event in answer.events:
        if type(event) is kind:
            return event
    raise InvalidRequest(f"'{answer.head.model}' does not {operation}", "model")
