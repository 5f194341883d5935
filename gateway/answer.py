"""The canonical answer: what was said, by which model; packed to bytes and back. Knows no wire and no store."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast, final

import msgpack

from backends.contract import (
    Event,
    Finish,
    Frame,
    Logprobs,
    Reasoning,
    Refusal,
    Scores,
    Tensor,
    Tensors,
    Text,
    ToolCall,
    Usage,
    Vectors,
)
from backends.value import value
from gateway.caching.wording import KeptWording, Wording, kept

_FORMAT = 3
_UNCOUNTED = Usage(0, 0)


@final
@value
class Head:
    """What is known when the first event comes: who answers, since when (epoch seconds), after which waits.

    `verbatim` is the kind of the frames that the answer came in, where an upstream's bytes are passed on, and
    `content_type` theirs. `unkept`: why it is not to be stored, by what its upstream said.
    """

    model: str
    version: str
    created_s: float
    queue_s: float = 0.0
    start_s: float = 0.0
    infer_s: float = 0.0
    verbatim: str = ""
    content_type: str = ""
    unkept: str = ""


@value
class Answer:
    """A complete answer. Every wire, streamed or whole, is an encoding of this one value.

    `wording` is what the upstream sent, where the answer came in bytes of `head.verbatim`; `events` are what it says.
    """

    head: Head
    events: tuple[Event, ...]
    wording: Wording | KeptWording | None = None

    def text(self, index: int = 0) -> str:
        """Join the text of one choice."""
        return "".join([event.text for event in self.events if type(event) is Text and event.index == index])

    def finish(self) -> str | None:
        """Return why the first choice ended, or None where the answer was cut off."""
        return next((event.reason for event in self._last() if type(event) is Finish and event.index == 0), None)

    def reasons(self) -> dict[int, str]:
        """Return why each choice ended; one that was cut off is not among them."""
        return {event.index: event.reason for event in self.events if type(event) is Finish}

    def choices(self) -> set[int]:
        """Return which choices anything was said of."""
        return {event.index for event in self.events if type(event) in (Text, Reasoning, ToolCall, Refusal)}  # type: ignore[union-attr]

    def usage(self) -> Usage:
        """Return the tokens that the model counted; zeros where it did not say."""
        for event in self._last():
            if type(event) is Usage:
                return event
        return _UNCOUNTED

    def _last(self) -> Iterator[Event]:
        """Go through the events from the end, where usage and reasons are; a long answer has hundreds before them."""
        return reversed(self.events)


class UnreadableAnswerError(ValueError):
    """Stored bytes are not an answer of this format: a miss for the cache."""


def answer_of(head: Head, items: Iterable[object]) -> Answer:
    """Put an answer together from its events and the bytes that they came in."""
    parts: list[bytes] = []
    events: list[Event] = []
    for item in items:
        if type(item) is tuple:
            data, text = item
            parts.append(data)
            if text:
                events.append(Text(text))
        elif type(item) is Frame:
            parts.append(item.data)
        else:
            events.append(cast("Event", item))
    return Answer(head, tuple(events), Wording(b"".join(parts)) if head.verbatim else None)


def pack(answer: Answer) -> bytes:
    """Turn an answer into bytes for a store. The wording of what is no text, embeddings say, is in the events alone."""
    head = answer.head
    rows: bytes = msgpack.packb([_pack_event(event) for event in answer.events])
    wording = answer.wording
    if isinstance(wording, Wording):
        wording = kept(wording.data, rows) if all(type(event) in _SPOKEN for event in answer.events) else None
    elif wording is not None and wording.dictionary != rows:
        wording = None
    deflated, kind, content_type = (wording.deflated, head.verbatim, head.content_type) if wording else (b"", "", "")
    row = (_FORMAT, head.model, head.version, head.created_s, rows, kind, content_type, deflated)
    packed: bytes = msgpack.packb(row)
    return packed


def unpack(data: bytes) -> Answer:
    """Read what `pack` wrote. Raises `UnreadableAnswerError`."""
    try:
        form, model, version, created_s, rows, kind, content_type, deflated = msgpack.unpackb(data)
        if form != _FORMAT:
            raise UnreadableAnswerError(f"answer format {form!r}, this version reads {_FORMAT}")
        head = Head(model, version, created_s, verbatim=kind, content_type=content_type)
        events = tuple([_unpack_event(row) for row in msgpack.unpackb(rows)])
        return Answer(head, events, KeptWording(deflated, rows) if kind else None)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise UnreadableAnswerError(str(error)) from error


def _pack_event(event: Event) -> tuple[object, ...]:
    tag = _TAGS.get(type(event))
    if tag is None:
        raise TypeError(f"{event!r} is not part of an answer")
    return (tag, *[_pack_value(getattr(event, name)) for name in event.__match_args__])


def _pack_value(value: object) -> object:
    if isinstance(value, tuple):
        return [_pack_value(item) for item in value]
    return (value.name, value.datatype, value.shape, value.data) if type(value) is Tensor else value


def _unpack_event(row: list[Any]) -> Event:
    tag, *rest = row
    return _EVENTS[tag](*[tuple(value) if isinstance(value, list) else value for value in rest])


def _tensors(rows: tuple[Any, ...]) -> Tensors:
    return Tensors(tuple([Tensor(name, datatype, tuple(shape), data) for name, datatype, shape, data in rows]))


_TAGS: Mapping[type, str] = {
    Text: "t",
    Reasoning: "r",
    ToolCall: "c",
    Refusal: "x",
    Logprobs: "l",
    Usage: "u",
    Finish: "f",
    Vectors: "v",
    Scores: "s",
    Tensors: "n",
}
_EVENTS: Mapping[str, Callable[..., Event]] = {tag: kind for kind, tag in _TAGS.items()} | {"n": _tensors}
# Of these the wording is kept beside them.
_SPOKEN = frozenset({Text, Reasoning, ToolCall, Refusal, Logprobs, Usage, Finish})
