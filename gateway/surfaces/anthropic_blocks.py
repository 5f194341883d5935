"""The content blocks of an Anthropic message, put together from the events of an answer. Knows nothing around them."""

from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from backends.contract import Event, Reasoning, Refusal, Text, ToolCall

Kind = Literal["text", "thinking", "tool_use"]

_EMPTY: dict[Kind, dict[str, object]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}
_DELTAS: dict[Kind, tuple[str, str]] = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}


def sse(event: dict[str, Any]) -> bytes:
    """Write an event of a stream: its type stands before its data too."""
    name: str = event["type"]
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"


def delta_opening(place: int, kind: Kind) -> bytes:
    """Return what a block's deltas begin with, up to the JSON string that they add; `}}` and a blank line follow it."""
    name, value = _DELTAS[kind]
    event = {"type": "content_block_delta", "index": place, "delta": {"type": name, value: ""}}
    return sse(event).removesuffix(b'""}}\n\n')


@dataclass(slots=True)
class Block:
    """One block; `pieces` is what was added to it and not told yet, `said` is all that a call was given."""

    kind: Kind
    id: str = ""
    name: str = ""
    signature: str = ""
    pieces: list[str] = field(default_factory=list)
    said: str = ""

    def start(self) -> dict[str, object]:
        """Return the block as a stream begins it."""
        if self.kind == "tool_use":
            return {"type": "tool_use", "id": self.id, "name": self.name, "input": {}}
        return _EMPTY[self.kind]

    def whole(self) -> dict[str, object]:
        """Return the complete block."""
        if self.kind == "tool_use":
            return {**self.start(), "input": _input(self.said)}
        signed = {"signature": self.signature} if self.kind == "thinking" else {}
        return {**self.start(), self.kind: "".join(self.pieces), **signed}

    def untold(self, place: int) -> bytes:
        """Return the deltas for what was added since the last time."""
        if not self.pieces:
            return b""
        opening = delta_opening(place, self.kind)
        told = b"".join([opening + orjson.dumps(piece) + b"}}\n\n" for piece in self.pieces])
        self.pieces.clear()
        return told

    def end(self, place: int) -> bytes:
        """Return the events that close the block."""
        stop = sse({"type": "content_block_stop", "index": place})
        if not self.signature:
            return stop
        delta = {"type": "signature_delta", "signature": self.signature}
        return sse({"type": "content_block_delta", "index": place, "delta": delta}) + stop

    def is_complete(self) -> bool:
        """Tell whether a block that another follows has all that it will: the arguments of a call do not lie."""
        return self.kind != "tool_use" or _is_json(self.said)


class Blocks:
    """The blocks of one message, in the order in which they began."""

    def __init__(self, message_id: str) -> None:
        self.all: list[Block] = []
        self._calls: dict[int, Block] = {}
        self._message_id = message_id

    @property
    def called(self) -> bool:
        """Whether a tool is called."""
        return bool(self._calls)

    def take(self, event: Event) -> None:
        """Add what an event says; a message has but one choice."""
        match event:
            case Text(text, 0) | Refusal(text, 0) if text:
                self._open("text").pieces.append(text)
            case Reasoning(text, 0, signature) if text or signature:
                block = self._open("thinking")
                if text:
                    block.pieces.append(text)
                block.signature = signature
            case ToolCall(place=place, index=0):
                self._call(place, event)

    def _open(self, kind: Kind) -> Block:
        """Return the last block where it is of this kind and not closed, else a new one."""
        last = self.all[-1] if self.all else None
        if last is None or last.kind != kind or last.signature:
            last = Block(kind)
            self.all.append(last)
        return last

    def _call(self, place: int, event: ToolCall) -> None:
        block = self._calls.get(place)
        if block is None:
            made = event.id or f"toolu_{self._message_id.removeprefix('msg_')}{place:02x}"
            block = self._calls[place] = Block("tool_use", made, event.name)
            self.all.append(block)
        if event.arguments:
            block.pieces.append(event.arguments)
            block.said += event.arguments


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _input(text: str) -> dict[str, object]:
    """Read a call's arguments; what is no JSON object (the answer was cut off) is kept as Anthropic would have it."""
    if not text:
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": text}
