"""`generate` and `generate_stream`: text in, text out, whole or as server-sent events. Knows no cache and no pool."""

from collections.abc import Mapping
from typing import Any

import orjson

from backends.contract import Event, Task, Text
from gateway.answer import Answer, Head
from gateway.catalog import ModelInfo
from gateway.errors import InvalidRequest, Unsupported
from gateway.fields import cut, text
from gateway.request import Request
from gateway.surfaces.oip.answers import TEXT_OUTPUT, reply_head
from gateway.surfaces.oip.json_body import id_of, parameters_of, parse
from gateway.surfaces.oip.questions import completion, generation
from gateway.surfaces.roles import OIP_GENERATE
from gateway.surfaces.wire import SSE, Encoder, Whole

GENERATE = "generate"
GENERATE_STREAM = "generate_stream"
_OWN = frozenset(OIP_GENERATE)


def decode_generate(info: ModelInfo, body: bytes, *, streamed: bool) -> tuple[Request, Encoder]:
    """Read `{id?, text_input, parameters?}`; any other key is a parameter too."""
    make = {Task.CHAT: generation, Task.COMPLETION: completion}.get(info.task)
    if make is None:
        raise Unsupported(f"'{info.name}' does {info.task} and generates no text; use 'infer'")
    fields = parse(body)
    request = make(info.name, text(fields, "text_input"), _parameters(fields), streamed=streamed)
    return request, GenerateEncoder(info.name, id_of(fields), streamed=streamed)


def _parameters(fields: dict[str, Any]) -> Mapping[str, Any]:
    """Return the parameters, each of which stands in one of two places."""
    beside = {name: value for name, value in fields.items() if name not in _OWN}
    within = parameters_of(fields)
    for name in beside.keys() & within.keys():
        raise InvalidRequest(f"'{cut(name)}' is given twice: beside 'parameters' and in it", cut(name))
    return {**beside, **within}


class GenerateEncoder:
    """`{id?, model_name, model_version, text_output}`, once or for each piece."""

    def __init__(self, model: str, request_id: str, *, streamed: bool) -> None:
        self._head = reply_head(model, request_id)
        self.frames = PieceFrames(self._head) if streamed else None

    def whole(self, answer: Answer) -> Whole:
        """Encode a complete answer as one body."""
        return Whole(orjson.dumps({**self._head, TEXT_OUTPUT: answer.text()}))


class PieceFrames:
    """A stream of replies, each with one piece of the text; nothing says that it is over but its end."""

    def __init__(self, head: Mapping[str, object]) -> None:
        self._before = b"data: " + orjson.dumps(head)[:-1] + f',"{TEXT_OUTPUT}":'.encode()

    def content_type(self, head: Head) -> str:
        """Name what the stream consists of."""
        del head
        return SSE

    def opening(self, head: Head) -> bytes:
        """Begin with nothing: every reply stands for itself."""
        del head
        return b""

    def frame(self, event: Event) -> bytes:
        """Encode one piece of the first choice."""
        if type(event) is not Text or event.index:
            return b""
        return self._before + orjson.dumps(event.text) + b"}\n\n"

    def closing(self) -> bytes:
        """End without a word."""
        return b""
