"""OpenAI's wire: chat completions, completions, embeddings, and its models. Knows no cache and no pool.

Source of the shapes: the `openai` Python client (types/chat, _streaming.py) and OpenAI's API reference.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from gateway.errors import Fault
from gateway.fields import parse_object
from gateway.request import Request
from gateway.surfaces import openai_chat, openai_completion
from gateway.surfaces.openai_chat import Decoded
from gateway.surfaces.wire import Call, Encoder, Failure

_DECODERS: Mapping[str, Callable[[Mapping[str, Any], bytes], Decoded]] = {
    "/v1/chat/completions": openai_chat.decode,
    "/v1/completions": openai_completion.decode_completion,
    "/v1/embeddings": openai_completion.decode_embedding,
}

# What the same bytes mean is remembered for the most recent bodies, since what is asked again is what caches answer.
_REMEMBERED_BODIES = 512
_REMEMBERED_MAX_BYTES = 16 * 2**10


class OpenAISurface:
    """Decodes OpenAI's requests and encodes their replies."""

    name = "openai"
    paths = frozenset(_DECODERS)

    def __init__(self) -> None:
        self._read_small = functools.lru_cache(_REMEMBERED_BODIES)(_read)

    def decode(self, call: Call, reply_id: str) -> tuple[Request, Encoder]:
        """Read a request of any of this surface's paths."""
        read = self._read_small if len(call.body) <= _REMEMBERED_MAX_BYTES else _read
        request, encoder = read(call.path, call.body)
        return request, encoder(reply_id)

    def failure(self, fault: Fault) -> Failure:
        """Encode an error as a status and a body."""
        return Failure(fault.status, error_of(fault))

    def failure_frame(self, fault: Fault) -> bytes:
        """Encode an error in the middle of a stream: the client raises it, since the data has a true `error`."""
        return b"data: " + error_of(fault) + b"\n\n"


def _read(path: str, body: bytes) -> Decoded:
    return _DECODERS[path](parse_object(body), body)


def error_of(fault: Fault) -> bytes:
    """Encode an error as OpenAI's clients read it."""
    return orjson.dumps(
        {"error": {"message": fault.message, "type": fault.kind, "param": fault.param, "code": fault.code}}
    )


def models(names: Sequence[str], created_s: int) -> bytes:
    """Encode the list of `GET /v1/models`."""
    return orjson.dumps({"object": "list", "data": [_model(name, created_s) for name in names]})


def model(name: str, created_s: int) -> bytes:
    """Encode the model of `GET /v1/models/{model}`."""
    return orjson.dumps(_model(name, created_s))


def _model(name: str, created_s: int) -> dict[str, object]:
    return {"id": name, "object": "model", "created": created_s, "owned_by": "warmgate"}
