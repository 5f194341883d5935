"""Encoders of Anthropic's messages, whole and streamed. Knows no request format.

Both are made of the same blocks, so that a stream, put together by a client, is the whole message.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from backends.contract import Event, Finish, Refusal, Text, Usage
from gateway.answer import Answer, Head
from gateway.surfaces.anthropic_blocks import Blocks, delta_opening, sse
from gateway.surfaces.passed import PassedFrames, passed_on
from gateway.surfaces.wire import SSE, Frames, Whole

_REASONS: Mapping[str, str] = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_UNCOUNTED = Usage(0, 0)
_PING = sse({"type": "ping"})
_STOP = sse({"type": "message_stop"})


class MessageEncoder:
    """A message and its events. `kind` is that of the bytes that the client may be given as they come.

    `tokens_in` is what the request is thought to have until the model has counted.
    """

    def __init__(self, kind: str, tokens_in: int, reply_id: str, *, streamed: bool) -> None:
        self._kind = kind
        self._id = f"msg_{reply_id}"
        inner = MessageFrames(self._id, tokens_in)
        self.frames: Frames | None = PassedFrames(kind, self._id, inner) if streamed else None

    def whole(self, answer: Answer) -> Whole:
        """Encode a complete answer as one body."""
        if (passed := passed_on(answer, self._kind, self._id)) is not None:
            return passed
        blocks, ending = Blocks(self._id), Ending()
        for event in answer.events:
            blocks.take(event)
            ending.take(event)
        message = _message(self._id, answer.head, answer.usage())
        message["content"] = [block.whole() for block in blocks.all]
        return Whole(orjson.dumps(message | ending.reasons(called=blocks.called)))


class MessageFrames:
    """The events of one streamed message.

    Blocks are told one after the other: nothing of a later one before the earlier is known to be complete.
    """

    def __init__(self, message_id: str, tokens_in: int) -> None:
        self._id = message_id
        self._tokens_in = tokens_in
        self._blocks = Blocks(message_id)
        self._ending = Ending()
        self._place = 0
        self._begun = False
        self._before_text = b""

    def content_type(self, head: Head) -> str:
        """Name what the stream consists of."""
        del head
        return SSE

    def opening(self, head: Head) -> bytes:
        """Begin the message; its tokens are an estimate until it ends."""
        return sse({"type": "message_start", "message": _message(self._id, head, Usage(self._tokens_in))}) + _PING

    def frame(self, event: Event) -> bytes:
        """Encode what an event adds to the blocks."""
        if self._before_text and type(event) is Text and event.index == 0 and event.text:
            return self._before_text + orjson.dumps(event.text) + b"}}\n\n"
        self._ending.take(event)
        self._blocks.take(event)
        return self._tell()

    def closing(self) -> bytes:
        """End what is open, say why, and what was counted."""
        told = self._tell(ended=True)
        reasons = self._ending.reasons(called=self._blocks.called)
        return told + sse({"type": "message_delta", "delta": reasons, "usage": _usage(self._ending.usage)}) + _STOP

    def _tell(self, *, ended: bool = False) -> bytes:
        parts: list[bytes] = []
        blocks = self._blocks.all
        while self._place < len(blocks):
            block = blocks[self._place]
            if not self._begun:
                self._begun = True
                parts.append(sse({"type": "content_block_start", "index": self._place, "content_block": block.start()}))
            parts.append(block.untold(self._place))
            if not ended and (block is blocks[-1] or not block.is_complete()):
                break
            parts.append(block.end(self._place))
            self._place += 1
            self._begun = False
        # What follows in a text that is the last block is the next delta, and needs no look at the blocks.
        is_text = self._begun and blocks[-1].kind == "text" and self._place + 1 == len(blocks)
        self._before_text = delta_opening(self._place, "text") if is_text else b""
        return b"".join(parts)


class Ending:
    """Why a message ends, and what was counted."""

    def __init__(self) -> None:
        self.usage = _UNCOUNTED
        self._finish: Finish | None = None
        self._refused = False

    def take(self, event: Event) -> None:
        """Note what an event says of the end."""
        if type(event) is Usage:
            self.usage = event
        elif type(event) is Finish and event.index == 0:
            self._finish = event
        elif type(event) is Refusal:
            self._refused = True

    def reasons(self, *, called: bool) -> dict[str, str | None]:
        """Return the fields that tell why; a call that was asked for by name ends with `stop` on OpenAI's wire."""
        stop = None if self._finish is None else self._finish.stop
        if self._finish is None:
            reason = None
        elif self._refused:
            reason = "refusal"
        elif self._finish.reason == "stop":
            reason = "stop_sequence" if stop is not None else "tool_use" if called else "end_turn"
        else:
            reason = _REASONS.get(self._finish.reason, "end_turn")
        return {"stop_reason": reason, "stop_sequence": stop if reason == "stop_sequence" else None}


def _message(message_id: str, head: Head, usage: Usage) -> dict[str, Any]:
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(usage),
    }


def _usage(usage: Usage) -> dict[str, Any]:
    """Count as Anthropic does, where tokens from a prompt cache are not among the others."""
    counts: dict[str, Any] = {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }
    if usage.reasoning_tokens:
        counts["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return counts
