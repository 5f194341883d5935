"""Answers of Anthropic's Messages API as events: a stream's events, whole messages. Pure; knows no connection."""

from collections.abc import Mapping
from typing import Any

import orjson

from backends.contract import Event, Finish, Job, Reasoning, Text, ToolCall, UpstreamFailed, Usage
from backends.upstream_answers import tokens

WIRE = "anthropic"

# A turn that was paused, or that filled the model's window, is not complete. Any other reason is told as it came.
_REASONS: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
# What the errors in the midst of a stream would have had as a status.
_STATUSES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_SHOWN = 200


class StreamDecoder:
    """Turns the data of a stream's events into ours; what ends the answer is held back until the stream ended."""

    def __init__(self, job: Job) -> None:
        self.complete = False
        self._as_it_came = job.verbatim is not None and job.verbatim.wire == WIRE
        self._untold = False
        self._usage: dict[str, Any] = {}
        self._reason: str | None = None
        self._stop: str | None = None
        self._places: dict[int, int] = {}
        self._silent: set[int] = set()

    def feed(self, data: bytes) -> list[Event]:
        """Return the events of one event. Raises `UpstreamFailed` for an error or for what is no event."""
        event = parsed(data)
        try:
            return self._take(event)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise misshapen(data, error) from error

    def message(self, message: dict[str, Any]) -> list[Event]:
        """Return the events of a whole message."""
        events: list[Event] = []
        for place, block in enumerate(message["content"]):
            events += [*self._started(place, block), *self._stopped(place)]
        self._count(message["usage"])
        self._reason, self._stop = message["stop_reason"], message.get("stop_sequence")
        self.complete = True
        return [*events, *self.end()]

    def end(self) -> list[Event]:
        """Return the events that close the answer. Raises `UpstreamFailed` where it was cut off.

        An answer that is more than events can tell gets no `Finish`: nothing may take it for whole.
        """
        if not self.complete or self._reason is None:
            raise UpstreamFailed(
                "the upstream's answer ended before it was complete (no message_stop)", cause="cut off"
            )
        try:
            usage = _usage_of(self._usage)
            finish = Finish(_REASONS.get(self._reason, self._reason), stop=self._stop)
        except (TypeError, AttributeError, ValueError) as error:
            raise misshapen(orjson.dumps(self._usage), error) from error
        return [usage] if self._untold else [usage, finish]

    def _take(self, event: dict[str, Any]) -> list[Event]:
        match event["type"]:
            case "content_block_delta":
                return self._added(event["index"], event["delta"])
            case "content_block_start":
                return self._started(event["index"], event["content_block"])
            case "content_block_stop":
                return self._stopped(event["index"])
            case "message_start":
                self._count(event["message"]["usage"])
            case "message_delta":
                self._count(event["usage"])
                self._reason = event["delta"]["stop_reason"]
                self._stop = event["delta"].get("stop_sequence")
            case "message_stop":
                self.complete = True
        return []  # pings, and whatever may come to be sent besides

    def _started(self, index: int, block: dict[str, Any]) -> list[Event]:
        match block["type"]:
            case "text":
                if block.get("citations"):
                    self._leave_out()
                return [Text(block["text"])] if block["text"] else []
            case "thinking":
                signature = block.get("signature") or ""
                return [Reasoning(block["thinking"], signature=signature)] if block["thinking"] or signature else []
            case "tool_use":
                place = self._places[index] = len(self._places)
                arguments = orjson.dumps(block["input"]).decode() if block.get("input") else ""
                if not arguments:
                    self._silent.add(index)
                return [ToolCall(place, block["id"], block["name"], arguments)]
            case "redacted_thinking":
                self._leave_out()  # sealed: nobody but Anthropic can read it
            case kind:
                self._cannot_tell(f"a block of type {kind}")
        return []

    def _added(self, index: int, delta: dict[str, Any]) -> list[Event]:
        match delta["type"]:
            case "text_delta":
                return [Text(delta["text"])] if delta["text"] else []
            case "thinking_delta":
                return [Reasoning(delta["thinking"])] if delta["thinking"] else []
            case "signature_delta":
                return [Reasoning("", signature=delta["signature"])]
            case "input_json_delta":
                if index in self._places and delta["partial_json"]:
                    self._silent.discard(index)
                    return [ToolCall(self._places[index], arguments=delta["partial_json"])]
            case "citations_delta":
                self._leave_out()
            case kind:
                self._cannot_tell(f"a delta of type {kind}")
        return []

    def _stopped(self, index: int) -> list[Event]:
        """Give a call that was given no arguments `{}`, as the canonical form has it."""
        if index not in self._silent:
            return []
        self._silent.discard(index)
        return [ToolCall(self._places[index], arguments="{}")]

    def _count(self, usage: dict[str, Any]) -> None:
        """Note what was counted: the counts of later events are of the whole so far."""
        self._usage |= {name: value for name, value in usage.items() if value is not None}

    def _leave_out(self) -> None:
        """Pass over what a client of another wire can do without; one of this wire has had it in a frame."""
        self._untold |= self._as_it_came

    def _cannot_tell(self, what: str) -> None:
        if not self._as_it_came:
            raise UpstreamFailed(f"the upstream answered with {what}, which this gateway cannot pass on")
        self._untold = True


def parsed(data: bytes) -> dict[str, Any]:
    """Read one JSON object. Raises `UpstreamFailed` where it is none, or tells of an error."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise misshapen(data, error) from error
    if not isinstance(value, dict):
        raise misshapen(data, TypeError("it is no JSON object"))
    if value.get("type") == "error":
        words = error_of(value)
        kind = str(words.get("type"))
        message = f"the upstream broke off with {kind}: {words.get('message')}"
        raise UpstreamFailed(message, _STATUSES.get(kind), cause="it broke off with an error")
    return value


def error_of(value: object) -> Mapping[str, Any]:
    """Find what an answer says of an error; empty where it says nothing."""
    error = value.get("error") if isinstance(value, dict) else None
    return error if isinstance(error, dict) else {}


def misshapen(data: bytes, error: Exception) -> UpstreamFailed:
    """Return the error for what is no answer; it shows the beginning."""
    shown = data[:_SHOWN].decode("utf-8", "replace")
    cause = "what it sent is no answer of Anthropic's API"
    return UpstreamFailed(f"the upstream sent what is no answer of Anthropic's API ({error}): {shown!r}", cause=cause)


def _usage_of(usage: Mapping[str, Any]) -> Usage:
    """Count as OpenAI does, where tokens from a prompt cache are among those read."""
    cached = tokens(usage.get("cache_read_input_tokens"))
    read = tokens(usage.get("input_tokens")) + tokens(usage.get("cache_creation_input_tokens")) + cached
    made = usage.get("output_tokens_details") or {}
    return Usage(read, tokens(usage.get("output_tokens")), cached, tokens(made.get("thinking_tokens")))
