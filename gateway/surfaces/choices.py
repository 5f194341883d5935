"""What each choice of a complete answer consists of. Knows no wire's shape."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from backends.contract import Event, Finish, Logprobs, Reasoning, Refusal, Text, ToolCall, Usage

_Part = Text | Reasoning | Refusal | Logprobs | ToolCall | Finish


class Called(NamedTuple):
    """A complete call of a tool."""

    place: int
    id: str
    name: str
    arguments: str


class Choice(NamedTuple):
    """One complete choice."""

    text: str
    finish: str | None
    reasoning: str = ""
    refusal: str = ""
    calls: tuple[Called, ...] = ()
    tokens: tuple[Mapping[str, object], ...] = ()


def choices_of(events: Sequence[Event]) -> dict[int, Choice]:
    """Put the choices of an answer together, in the order of their indices."""
    texts = [event.text for event in events if type(event) is Text and event.index == 0]
    last = events[-1] if events else None
    if type(last) is Finish and last.index == 0:
        counted = len(events) > 1 and type(events[-2]) is Usage
        if len(texts) + counted + 1 == len(events):  # so are nearly all: texts, a usage, a reason
            return {0: Choice("".join(texts), last.reason)}
    parts: dict[int, list[_Part]] = {}
    for event in events:
        if isinstance(event, _Part):
            parts.setdefault(event.index, []).append(event)
    return {index: _choice(parts[index]) for index in sorted(parts)}


def _choice(parts: Sequence[_Part]) -> Choice:
    return Choice(
        "".join([part.text for part in parts if type(part) is Text]),
        next((part.reason for part in parts if type(part) is Finish), None),
        "".join([part.text for part in parts if type(part) is Reasoning]),
        "".join([part.text for part in parts if type(part) is Refusal]),
        _calls([part for part in parts if type(part) is ToolCall]),
        tuple([token for part in parts if type(part) is Logprobs for token in part.tokens]),
    )


def _calls(pieces: Sequence[ToolCall]) -> tuple[Called, ...]:
    return tuple([_called(place, pieces) for place in sorted({piece.place for piece in pieces})])


def _called(place: int, pieces: Iterable[ToolCall]) -> Called:
    own = [piece for piece in pieces if piece.place == place]
    return Called(
        place,
        next((piece.id for piece in own if piece.id), ""),
        next((piece.name for piece in own if piece.name), ""),
        "".join([piece.arguments for piece in own]),
    )
