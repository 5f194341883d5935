"""The items that a response's output consists of, and the events that each step of one makes. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Told = dict[str, Any]
"""An event of the stream, but for its number."""

Tokens = Sequence[Mapping[str, object]]


class Item(Protocol):
    """An item of the output."""

    def value(self) -> Told:
        """Return the item as it is now."""
        ...

    def close(self, status: str) -> list[Told]:
        """Tell that nothing comes any more."""
        ...


class PartsItem:
    """A message or a thought: parts of text, one after the other."""

    def __init__(self, base: Mapping[str, Any], output_index: int) -> None:
        self._base = base
        self._index = output_index
        self._status = "in_progress"
        self._parts: list[Told] = []
        self._kind = ""
        self._pieces: list[str] = []
        self._tokens: list[Mapping[str, object]] = []

    @property
    def type(self) -> str:
        """The item's type."""
        return str(self._base["type"])

    def value(self) -> Told:
        """Return the item as it is now, with the parts that are complete."""
        return {**self._base, "status": self._status, "content": [*self._parts]}

    def open(self) -> list[Told]:
        """Tell of the item."""
        return [{"type": "response.output_item.added", "output_index": self._index, "item": self.value()}]

    def add(self, kind: str, text: str, tokens: Tokens = ()) -> list[Told]:
        """Add a piece of text of a kind; another kind begins another part."""
        told = [] if kind == self._kind else [*self.end_part(), self._begin_part(kind)]
        self._pieces.append(text)
        self._tokens += tokens
        delta = self._placed(f"response.{kind}.delta", delta=text)
        return [*told, {**delta, "logprobs": [*tokens]} if kind == "output_text" else delta]

    def score(self, tokens: Tokens) -> None:
        """Note the log probabilities of what was added last."""
        self._tokens += tokens

    def close(self, status: str) -> list[Told]:
        """Tell the last part and the whole item."""
        told = self.end_part()
        self._status = status
        return [*told, {"type": "response.output_item.done", "output_index": self._index, "item": self.value()}]

    def end_part(self) -> list[Told]:
        """Tell that the part in progress, if one is, is complete."""
        if not self._kind:
            return []
        kind, text, tokens = self._kind, "".join(self._pieces), self._tokens
        part = _part(kind, text, tokens)
        told = [
            self._placed(f"response.{kind}.done", **{key: part[key] for key in part.keys() & _TOLD_WHEN_DONE}),
            self._placed("response.content_part.done", part=part),
        ]
        self._parts.append(part)
        self._kind, self._pieces, self._tokens = "", [], []
        return told

    def _begin_part(self, kind: str) -> Told:
        self._kind = kind
        return self._placed("response.content_part.added", part=_part(kind, "", []))

    def _placed(self, event: str, **more: object) -> Told:
        where = {"item_id": self._base["id"], "output_index": self._index, "content_index": len(self._parts)}
        return {"type": event, **where, **more}


_TOLD_WHEN_DONE = {"text", "refusal", "logprobs"}


def _part(kind: str, text: str, tokens: Tokens) -> Told:
    if kind == "output_text":
        return {"type": kind, "text": text, "annotations": [], "logprobs": [*tokens]}
    return {"type": kind, "refusal" if kind == "refusal" else "text": text}


class CallItem:
    """A call of a function."""

    def __init__(self, item_id: str, call_id: str, name: str, output_index: int) -> None:
        self._base = {"id": item_id, "type": "function_call", "call_id": call_id, "name": name}
        self._index = output_index
        self._status = "in_progress"
        self._pieces: list[str] = []

    def value(self) -> Told:
        """Return the call as it is now."""
        return {**self._base, "arguments": "".join(self._pieces), "status": self._status}

    def open(self) -> list[Told]:
        """Tell of the call."""
        return [{"type": "response.output_item.added", "output_index": self._index, "item": self.value()}]

    def add(self, arguments: str) -> list[Told]:
        """Add a piece of the arguments."""
        self._pieces.append(arguments)
        return [self._placed("response.function_call_arguments.delta", delta=arguments)] if arguments else []

    def close(self, status: str) -> list[Told]:
        """Tell the whole arguments and the whole call."""
        self._status = status
        name, arguments = self._base["name"], "".join(self._pieces)
        return [
            self._placed("response.function_call_arguments.done", name=name, arguments=arguments),
            {"type": "response.output_item.done", "output_index": self._index, "item": self.value()},
        ]

    def _placed(self, event: str, **more: object) -> Told:
        return {"type": event, "item_id": self._base["id"], "output_index": self._index, **more}
