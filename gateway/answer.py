"""The canonical answer: what was said, by which model; packed to bytes and back. Knows no wire and no store."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import msgpack

from backends.contract import Event, Finish, Scores, Text, Usage, Vectors

_FORMAT = 1
_UNCOUNTED = Usage(0, 0)


@final
@dataclass(frozen=True, slots=True)
class Head:
    """What is known when the first event comes: who answers, since when (epoch seconds), after which waits."""

    model: str
    version: str
    created_s: float
    queue_s: float = 0.0
    start_s: float = 0.0
    infer_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. Every wire, streamed or whole, is an encoding of this one value."""

    head: Head
    events: tuple[Event, ...]

    def text(self, index: int = 0) -> str:
        """Join the text of one choice."""
        return "".join([event.text for event in self.events if type(event) is Text and event.index == index])

    def finish(self) -> str | None:
        """Return why the first choice ended, or None where the answer was cut off."""
        return next((event.reason for event in self._last() if type(event) is Finish and event.index == 0), None)

    def usage(self) -> Usage:
        """Return the tokens that the model counted; zeros where it did not say."""
        return next((event for event in self._last() if type(event) is Usage), _UNCOUNTED)

    def _last(self) -> Iterator[Event]:
        """Go through the events from the end, where usage and reasons are; a long answer has hundreds before them."""
        return reversed(self.events)


class UnreadableAnswerError(ValueError):
    """Stored bytes are not an answer of this format: a miss for the cache."""


def pack(answer: Answer) -> bytes:
    """Turn an answer into bytes for a store."""
    head = answer.head
    packed: bytes = msgpack.packb(
        (_FORMAT, head.model, head.version, head.created_s, [_pack_event(event) for event in answer.events])
    )
    return packed


def unpack(data: bytes) -> Answer:
    """Read what `pack` wrote. Raises `UnreadableAnswerError`."""
    try:
        form, model, version, created_s, rows = msgpack.unpackb(data)
        if form != _FORMAT:
            raise UnreadableAnswerError(f"answer format {form!r}, this version reads {_FORMAT}")
        return Answer(Head(model, version, created_s), tuple([_unpack_event(row) for row in rows]))
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise UnreadableAnswerError(str(error)) from error


def _pack_event(event: Event) -> tuple[object, ...]:
    match event:
        case Text(text, index):
            return ("t", text, index)
        case Usage(prompt, completion):
            return ("u", prompt, completion)
        case Finish(reason, index):
            return ("f", reason, index)
        case Vectors(data, shape):
            return ("v", data, shape)
        case Scores(data, shape, labels):
            return ("s", data, shape, labels)
        case _:
            raise TypeError(f"{event!r} is not part of an answer")


def _unpack_event(row: list[Any]) -> Event:
    tag, *rest = row
    return _EVENTS[tag](*[tuple(value) if isinstance(value, list) else value for value in rest])


_EVENTS: Mapping[str, Callable[..., Event]] = {
    "t": Text,
    "u": Usage,
    "f": Finish,
    "v": Vectors,
    "s": Scores,
}
