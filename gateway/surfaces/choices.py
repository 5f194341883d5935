"""What each choice of a complete answer consists of, and the answer's own bytes where its client may have them.

Knows no wire's shape.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backends.contract import Event, Finish, Frame, Logprobs, Reasoning, Refusal, Text, ToolCall, Usage
from gateway.answer import Answer
from gateway.surfaces.wire import Whole

_Part = Text | Reasoning | Refusal | Logprobs | ToolCall | Finish
_PARTS = (Text, Reasoning, Refusal, Logprobs, ToolCall, Finish)


@dataclass(slots=True)
class Called:
    """A complete call of a tool."""

    id: str
    name: str
    arguments: str


@dataclass(slots=True)
class Choice:
    """One complete choice; `calls` by their place."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: dict[int, Called] = field(default_factory=dict)
    tokens: list[Mapping[str, object]] = field(default_factory=list)
    finish: str | None = None


def choices_of(events: Sequence[Event]) -> dict[int, Choice]:
    """Put the choices of an answer together, in the order of their indices."""
    texts = [event.text for event in events if type(event) is Text and event.index == 0]
    last = events[-1] if events else None
    if type(last) is Finish and last.index == 0:
        counted = len(events) > 1 and type(events[-2]) is Usage
        if len(texts) + counted + 1 == len(events):  # so are nearly all: texts, a usage, a reason
            return {0: Choice("".join(texts), finish=last.reason)}
    choices: dict[int, Choice] = {}
    for event in events:
        if isinstance(event, _PARTS):
            _take(choices.setdefault(event.index, Choice()), event)
    return dict(sorted(choices.items()))


def _take(choice: Choice, event: _Part) -> None:
    match event:
        case Text():
            choice.text += event.text
        case Finish():
            choice.finish = event.reason
        case Reasoning():
            choice.reasoning += event.text
        case Refusal():
            choice.refusal += event.text
        case Logprobs():
            choice.tokens += event.tokens
        case ToolCall():
            call = choice.calls.setdefault(event.place, Called("", "", ""))
            call.id = call.id or event.id
            call.name = call.name or event.name
            call.arguments += event.arguments


def passed_on(answer: Answer, kind: str) -> Whole | None:
    """Return the upstream's own bytes, where they are of the kind that the client's own request asks for."""
    if not kind or answer.head.verbatim != kind:
        return None
    data = b"".join([event.data for event in answer.events if type(event) is Frame])
    return Whole(data, answer.head.content_type)
