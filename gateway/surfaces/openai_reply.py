"""Encoders of OpenAI's whole replies. Knows no request format."""

import base64
from typing import NamedTuple

import numpy as np
import orjson

from backends.contract import Vectors
from gateway.answer import Answer
from gateway.surfaces.choices import Called, Choice, choices_of
from gateway.surfaces.openai_chunks import ChatFrames, CompletionFrames, PairedFrames
from gateway.surfaces.openai_shapes import call_id, chat_logprobs, envelope, legacy_logprobs, usage_of
from gateway.surfaces.passed import PassedFrames, passed_on
from gateway.surfaces.wire import Frames, Whole


class Wanted(NamedTuple):
    """What a client wants of its reply; `kind` is that of the bytes that it may be given as they come."""

    kind: str
    streamed: bool
    include_usage: bool
    logprobs: bool


class ChatEncoder:
    """`chat.completion` and its chunks."""

    def __init__(self, wanted: Wanted, reply_id: str) -> None:
        self._wanted = wanted
        self._reply_id = reply_id
        self._own_id = f"chatcmpl-{reply_id}"
        self.frames: Frames | None = None
        if wanted.streamed:
            chunks = ChatFrames(reply_id, include_usage=wanted.include_usage)
            inner = PairedFrames(chunks) if wanted.logprobs else chunks
            self.frames = PassedFrames(wanted.kind, self._own_id, inner)

    def whole(self, answer: Answer) -> Whole:
        """Encode a complete answer as one body."""
        if (passed := passed_on(answer, self._wanted.kind, self._own_id)) is not None:
            return passed
        body = envelope(self._own_id, "chat.completion", answer.head)
        body["choices"] = [self._choice(index, choice) for index, choice in choices_of(answer.events).items()]
        body["usage"] = usage_of(answer.usage())
        return Whole(orjson.dumps(body))

    def _choice(self, index: int, choice: Choice) -> dict[str, object]:
        message: dict[str, object] = {
            "role": "assistant",
            "content": choice.text or (None if choice.calls or choice.refusal else ""),
            "refusal": choice.refusal or None,
        }
        if choice.reasoning:
            message["reasoning_content"] = choice.reasoning
        if choice.calls:
            message["tool_calls"] = [self._call(index, call) for call in choice.calls]
        logprobs = chat_logprobs(choice.tokens) if choice.tokens else None
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": choice.finish}

    def _call(self, index: int, call: Called) -> dict[str, object]:
        made = call.id or call_id(self._reply_id, index, call.place)
        return {"id": made, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


class CompletionEncoder:
    """`text_completion`, whole and in chunks."""

    def __init__(self, wanted: Wanted, reply_id: str) -> None:
        self._wanted = wanted
        self._own_id = f"cmpl-{reply_id}"
        self.frames: Frames | None = None
        if wanted.streamed:
            chunks = CompletionFrames(reply_id, include_usage=wanted.include_usage)
            inner = PairedFrames(chunks) if wanted.logprobs else chunks
            self.frames = PassedFrames(wanted.kind, self._own_id, inner)

    def whole(self, answer: Answer) -> Whole:
        """Encode a complete answer as one body."""
        if (passed := passed_on(answer, self._wanted.kind, self._own_id)) is not None:
            return passed
        body = envelope(self._own_id, "text_completion", answer.head)
        body["choices"] = [
            {
                "index": index,
                "text": choice.text,
                "logprobs": legacy_logprobs(choice.tokens) if choice.tokens else None,
                "finish_reason": choice.finish,
            }
            for index, choice in choices_of(answer.events).items()
        ]
        body["usage"] = usage_of(answer.usage())
        return Whole(orjson.dumps(body))


class EmbeddingEncoder:
    """The list of embeddings, as numbers or as base64 of little-endian float32."""

    frames = None

    def __init__(self, kind: str, *, as_base64: bool) -> None:
        self._kind = kind
        self._as_base64 = as_base64

    def whole(self, answer: Answer) -> Whole:
        """Encode a complete answer as one body."""
        if (passed := passed_on(answer, self._kind)) is not None:
            return passed
        vectors = next(event for event in answer.events if type(event) is Vectors)
        rows = np.frombuffer(vectors.data, dtype="<f4").reshape(vectors.shape)
        embeddings = [base64.b64encode(row.tobytes()).decode() for row in rows] if self._as_base64 else list(rows)
        data = [{"object": "embedding", "index": place, "embedding": item} for place, item in enumerate(embeddings)]
        prompt_tokens = answer.usage().prompt_tokens
        usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
        body = {"object": "list", "data": data, "model": answer.head.model, "usage": usage}
        return Whole(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))
