"""Replies of OpenAI's Responses, whole and as a stream of numbered events. Knows no request format.

One state machine makes both: a whole reply is what the stream's last event tells.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from backends.contract import Event, Finish, Logprobs, Reasoning, Refusal, Text, ToolCall, Usage
from gateway.answer import Answer, Head
from gateway.errors import Fault
from gateway.surfaces.openai_chunks import PairedFrames
from gateway.surfaces.responses_items import CallItem, Item, PartsItem, Tokens, Told
from gateway.surfaces.wire import SSE, Frames, Whole

# Why an answer is not whole, by the reason that it ended.
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
# The codes that clients know for a response that failed, by status; all others are the server's.
_CODES: Mapping[int, str] = {400: "invalid_prompt", 429: "rate_limit_exceeded"}
# What the reply repeats of the request, and what it says where that said nothing.
_REPEATED: Mapping[str, object] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": None,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_BASES: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "message": ("msg", {"role": "assistant"}),
    "reasoning": ("rs", {"summary": []}),
}


class Wishes(NamedTuple):
    """What a client asked for, as far as its reply depends on it."""

    body: Mapping[str, Any]
    streamed: bool
    logprobs: bool


class ResponseEncoder:
    """A `response`, and the events that build it up."""

    def __init__(self, wishes: Wishes, reply_id: str) -> None:
        self._progress = Progress(wishes.body, reply_id)
        self.frames: Frames | None = None
        self.numbered: ResponseFrames | None = None
        """The frames themselves, where `frames` holds a text back for its tokens' log probabilities."""
        if wishes.streamed:
            self.numbered = ResponseFrames(self._progress)
            self.frames = PairedFrames(self.numbered) if wishes.logprobs else self.numbered

    def whole(self, answer: Answer) -> Whole:
        """Encode a complete answer as one body."""
        self._progress.begin(answer.head)
        for event in answer.events:
            self._progress.take(event)
        self._progress.end()
        return Whole(orjson.dumps(self._progress.response))


class ResponseFrames:
    """The events as server-sent events, numbered."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._number = 0

    def content_type(self, head: Head) -> str:
        """Name what the stream consists of."""
        del head
        return SSE

    def opening(self, head: Head) -> bytes:
        """Tell that work has begun."""
        return self._written(self._progress.begin(head))

    def frame(self, event: Event) -> bytes:
        """Encode one event."""
        return self._written(self._progress.take(event))

    def scored(self, text: str, tokens: Tokens, index: int) -> bytes:
        """Encode a text with the log probabilities of its tokens."""
        return self._written(self._progress.say("message", "output_text", text, tokens)) if index == 0 else b""

    def closing(self) -> bytes:
        """Close what is open, and tell the whole response."""
        return self._written(self._progress.end())

    def failing(self, fault: Fault) -> bytes:
        """Tell of an error, and the response as far as it came.

        The official client raises the `error`, since it has a true field of that name; others read what comes last.
        """
        progress = self._progress
        begun = [] if progress.response else progress.begin(Head(progress.asked_model, "", time.time()))
        told = {"code": fault.code, "message": fault.message, "param": fault.param}
        error = {"type": "error", **told, "error": {**told, "type": fault.kind}}
        return self._written([*begun, error, *progress.fail(fault)])

    def _written(self, events: Sequence[Told]) -> bytes:
        lines = []
        for event in events:
            data = orjson.dumps({**event, "sequence_number": self._number})
            lines.append(b"event: " + event["type"].encode() + b"\ndata: " + data + b"\n\n")
            self._number += 1
        return b"".join(lines)


class Progress:
    """A response as it comes to be; every step returns the events of the stream that it makes."""

    def __init__(self, asked: Mapping[str, Any], reply_id: str) -> None:
        self._asked = asked
        self.asked_model = str(asked["model"])
        self._reply_id = reply_id
        self.response: dict[str, Any] = {}
        self._items: list[Item] = []
        self._texts: PartsItem | None = None  # the message or thought that is open
        self._calls: dict[int, CallItem] = {}  # open until the end, since their pieces may come in turns
        self._usage: Usage | None = None
        self._reason = "stop"

    def begin(self, head: Head) -> list[Told]:
        """Say that work is in progress."""
        asked = self._asked
        repeated = {name: usual if asked.get(name) is None else asked[name] for name, usual in _REPEATED.items()}
        self.response = {
            "id": f"resp_{self._reply_id}",
            "object": "response",
            "created_at": int(head.created_s),
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": head.model,
            "output": [],
            "previous_response_id": None,
            "store": False,
            **repeated,
            "usage": None,
        }
        return [{"type": f"response.{name}", "response": self.response} for name in ("created", "in_progress")]

    def take(self, event: Event) -> list[Told]:
        """Take in one event of the answer; a response has one choice."""
        match event:
            case Text(text, 0) if text:
                return self.say("message", "output_text", text)
            case Refusal(text, 0) if text:
                return self.say("message", "refusal", text)
            case Reasoning(text, 0) if text:
                return self.say("reasoning", "reasoning_text", text)
            case ToolCall(index=0):
                return self._call(event)
            case Logprobs(tokens, 0) if self._texts is not None:
                self._texts.score(tokens)
            case Usage():
                self._usage = event
            case Finish(reason, 0):
                self._reason = reason
        return []

    def say(self, item_type: str, part_type: str, text: str, tokens: Tokens = ()) -> list[Told]:
        """Add text to the open item of a type, or to a new one."""
        told: list[Told] = []
        if self._texts is None or self._texts.type != item_type:
            told = self._close_texts()
            prefix, more = _BASES[item_type]
            base = {"id": self._fresh_id(prefix), "type": item_type, **more}
            self._texts = PartsItem(base, len(self._items))
            self._items.append(self._texts)
            told += self._texts.open()
        return told + self._texts.add(part_type, text, tokens)

    def end(self) -> list[Told]:
        """Close what is open, and tell the whole response."""
        why = _INCOMPLETE.get(self._reason)
        status = "incomplete" if why else "completed"
        told = self._close(status)
        self.response |= {
            "status": status,
            "incomplete_details": {"reason": why} if why else None,
            "output": [item.value() for item in self._items],
            "usage": None if self._usage is None else _usage(self._usage),
        }
        return [*told, {"type": f"response.{status}", "response": self.response}]

    def fail(self, fault: Fault) -> list[Told]:
        """Tell that the response ends in an error; what had come of it stands in it."""
        self._close("incomplete")
        error = {"code": _CODES.get(fault.status, "server_error"), "message": fault.message}
        self.response |= {"status": "failed", "error": error, "output": [item.value() for item in self._items]}
        return [{"type": "response.failed", "response": self.response}]

    def _call(self, event: ToolCall) -> list[Told]:
        told: list[Told] = []
        if event.place not in self._calls:
            told = self._close_texts()
            call_id = event.id or self._fresh_id("call")
            call = CallItem(self._fresh_id("fc"), call_id, event.name, len(self._items))
            self._items.append(call)
            self._calls[event.place] = call
            told += call.open()
        return told + self._calls[event.place].add(event.arguments)

    def _close(self, status: str) -> list[Told]:
        """Close whatever is open."""
        return [*self._close_texts(status), *[event for call in self._calls.values() for event in call.close(status)]]

    def _close_texts(self, status: str = "completed") -> list[Told]:
        item, self._texts = self._texts, None
        return [] if item is None else item.close(status)

    def _fresh_id(self, prefix: str) -> str:
        return f"{prefix}_{self._reply_id}{len(self._items):02x}"


def _usage(usage: Usage) -> dict[str, object]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
