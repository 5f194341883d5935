"""Streams of OpenAI's chunks. Knows no request format.

A stream's chunks share their beginning and end, so the frame of a text is one small JSON string between two pieces.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import orjson

from backends.contract import Event, Finish, Logprobs, Reasoning, Refusal, Text, ToolCall, Usage
from gateway.answer import Head
from gateway.surfaces.openai_shapes import call_id, chat_logprobs, envelope, legacy_logprobs, usage_of
from gateway.surfaces.wire import SSE, Frames

_DONE = b"data: [DONE]\n\n"


class Chunks:
    """What chats and completions have in common: the envelope, the usage chunk last, then `[DONE]`."""

    kind = ""
    prefix = ""
    # The one choice of a chunk that has nothing but text, around that text.
    around_text = (b"", b"")

    def __init__(self, reply_id: str, *, include_usage: bool) -> None:
        self.reply_id = reply_id
        self._include_usage = include_usage
        self._usage = Usage(0, 0)
        self._before = b""
        self._after = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._before_text = b""
        self._after_text = self.around_text[1] + self._after

    def content_type(self, head: Head) -> str:
        """Name what the stream consists of."""
        del head
        return SSE

    def opening(self, head: Head) -> bytes:
        """Prepare what all chunks share."""
        shared = orjson.dumps(envelope(self.prefix + self.reply_id, self.kind, head))
        self._before = b"data: " + shared[:-1] + b',"choices":'
        self._before_text = self._before + self.around_text[0]
        return b""

    def closing(self) -> bytes:
        """End with the usage, if it was asked for, and `[DONE]`."""
        if not self._include_usage:
            return _DONE
        return self._before + b'[],"usage":' + orjson.dumps(usage_of(self._usage)) + b"}\n\n" + _DONE

    def frame(self, event: Event) -> bytes:
        """Encode one event as a chunk."""
        if type(event) is Text and event.index == 0:
            return self._before_text + orjson.dumps(event.text) + self._after_text
        if type(event) is Usage:
            self._usage = event
            return b""
        choice = self.choice(event)
        return b"" if choice is None else self.opened(choice) + self.chunk(choice)

    def choice(self, event: Event) -> dict[str, object] | None:
        """Return the choice of an event's chunk, or None where the wire says nothing of it."""
        raise NotImplementedError

    def opened(self, choice: Mapping[str, object]) -> bytes:
        """Return what must come before the first chunk of a choice."""
        del choice
        return b""

    def chunk(self, choice: object) -> bytes:
        """Encode a chunk with one choice."""
        return self._before + orjson.dumps([choice]) + self._after

    def scored(self, text: str, tokens: Sequence[Mapping[str, object]], index: int) -> bytes:
        """Encode a text with the log probabilities of its tokens."""
        raise NotImplementedError


class ChatFrames(Chunks):
    """The chunks of a chat: each choice says its role first."""

    kind = "chat.completion.chunk"
    prefix = "chatcmpl-"
    around_text = (b'[{"index":0,"delta":{"content":', b'},"finish_reason":null}]')

    def __init__(self, reply_id: str, *, include_usage: bool) -> None:
        super().__init__(reply_id, include_usage=include_usage)
        self._opened = 1
        self._calls: set[tuple[int, int]] = set()

    def opening(self, head: Head) -> bytes:
        """Prepare what all chunks share, and say the role."""
        super().opening(head)
        return self.chunk(_delta(0, {"role": "assistant", "content": ""}))

    def opened(self, choice: Mapping[str, object]) -> bytes:
        """Say the role of a further choice, and of those before it, since clients count choices as they come."""
        index = choice["index"]
        assert type(index) is int
        fresh = range(self._opened, index + 1)
        self._opened = max(self._opened, index + 1)
        return b"".join([self.chunk(_delta(each, {"role": "assistant", "content": ""})) for each in fresh])

    def choice(self, event: Event) -> dict[str, object] | None:
        """Return the choice of an event's chunk."""
        match event:
            case Text(text, index):
                return _delta(index, {"content": text})
            case Finish():
                return {**_delta(event.index, {}), "finish_reason": event.reason}
            case Reasoning() if event.text:
                return _delta(event.index, {"reasoning_content": event.text})
            case ToolCall():
                return _delta(event.index, {"tool_calls": [self._call(event)]})
            case Refusal(text, index):
                return _delta(index, {"refusal": text})
        return None

    def scored(self, text: str, tokens: Sequence[Mapping[str, object]], index: int) -> bytes:
        """Encode a text with the log probabilities of its tokens."""
        choice = {**_delta(index, {"content": text}), "logprobs": chat_logprobs(tokens)}
        return self.opened(choice) + self.chunk(choice)

    def _call(self, event: ToolCall) -> dict[str, object]:
        """Return a piece of a call: only the first tells id and name."""
        if (event.index, event.place) in self._calls:
            return {"index": event.place, "function": {"arguments": event.arguments}}
        self._calls.add((event.index, event.place))
        made = event.id or call_id(self.reply_id, event.index, event.place)
        function = {"name": event.name, "arguments": event.arguments}
        return {"index": event.place, "id": made, "type": "function", "function": function}


class CompletionFrames(Chunks):
    """The chunks of a completion."""

    kind = "text_completion"
    prefix = "cmpl-"
    around_text = (b'[{"index":0,"text":', b',"logprobs":null,"finish_reason":null}]')

    def __init__(self, reply_id: str, *, include_usage: bool) -> None:
        super().__init__(reply_id, include_usage=include_usage)
        self._offsets: dict[int, int] = {}

    def choice(self, event: Event) -> dict[str, object] | None:
        """Return the choice of an event's chunk."""
        match event:
            case Text(text, index):
                return {"index": index, "text": text, "logprobs": None, "finish_reason": None}
            case Finish():
                return {"index": event.index, "text": "", "logprobs": None, "finish_reason": event.reason}
        return None

    def scored(self, text: str, tokens: Sequence[Mapping[str, object]], index: int) -> bytes:
        """Encode a text with the log probabilities of its tokens, whose offsets go on from chunk to chunk."""
        offset = self._offsets.get(index, 0)
        self._offsets[index] = offset + sum(len(str(token["token"])) for token in tokens)
        logprobs = legacy_logprobs(tokens, offset)
        return self.chunk({"index": index, "text": text, "logprobs": logprobs, "finish_reason": None})


def _delta(index: int, delta: Mapping[str, object]) -> dict[str, object]:
    return {"index": index, "delta": delta, "finish_reason": None}


class ScoredFrames(Frames, Protocol):
    """Frames that can say a text and its log probabilities in one."""

    def scored(self, text: str, tokens: Sequence[Mapping[str, object]], index: int) -> bytes:
        """Encode a text with the log probabilities of its tokens."""
        ...


class PairedFrames:
    """Holds each text back until its log probabilities come, which is at once, so that both go out in one chunk."""

    def __init__(self, inner: ScoredFrames) -> None:
        self._inner = inner
        self._held: Text | None = None

    def content_type(self, head: Head) -> str:
        """Name what the stream consists of."""
        return self._inner.content_type(head)

    def opening(self, head: Head) -> bytes:
        """Encode what the stream begins with."""
        return self._inner.opening(head)

    def frame(self, event: Event) -> bytes:
        """Encode one event, after the text that was held back."""
        if type(event) is Logprobs and self._held is not None and self._held.index == event.index:
            text, self._held = self._held.text, None
            return self._inner.scored(text, event.tokens, event.index)
        released = self._release()
        if type(event) is Text:
            self._held = event
            return released
        if type(event) is Logprobs:
            return released + self._inner.scored("", event.tokens, event.index)
        return released + self._inner.frame(event)

    def closing(self) -> bytes:
        """Encode what a complete stream ends with."""
        return self._release() + self._inner.closing()

    def _release(self) -> bytes:
        held, self._held = self._held, None
        return b"" if held is None else self._inner.frame(held)
