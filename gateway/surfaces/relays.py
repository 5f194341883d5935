"""Requests that only an upstream understands: moderations, rerankings, audio, images. Bytes go through as they are.

Only the model's name is read. Knows no cache and no pool.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from backends.contract import Event, Job, Task, Verbatim
from gateway.answer import Answer, Head
from gateway.errors import Fault, InvalidRequest
from gateway.fields import flag, parse_object, refuse, text
from gateway.request import Request
from gateway.surfaces.multipart import fields_of
from gateway.surfaces.openai import error_of
from gateway.surfaces.openai_fields import WIRE
from gateway.surfaces.passed import PassedFrames, passed_on
from gateway.surfaces.roles import RERANK, outside_key
from gateway.surfaces.wire import JSON, Call, Encoder, Failure, Frames, Whole

_FORM = "multipart/form-data"
_SPEECH = "/audio/speech"
_RERANK = "/rerank"

# Ours, and the upstream's below its base URL. Clients of rerankers call three paths for one thing.
_UPSTREAM_PATHS: Mapping[str, str] = {
    "/v1/moderations": "/moderations",
    "/v1/rerank": _RERANK,
    "/v2/rerank": _RERANK,
    "/rerank": _RERANK,
    "/v1/audio/speech": _SPEECH,
    "/v1/audio/transcriptions": "/audio/transcriptions",
    "/v1/audio/translations": "/audio/translations",
    "/v1/images/generations": "/images/generations",
    "/v1/images/edits": "/images/edits",
    "/v1/images/variations": "/images/variations",
}
# What OpenAI takes where its clients name no model; here such a name is a model or a route of the operator's.
_UNNAMED: Mapping[str, str] = {
    "/moderations": "omni-moderation-latest",
    "/images/generations": "dall-e-2",
    "/images/edits": "dall-e-2",
    "/images/variations": "dall-e-2",
}


class RelaySurface:
    """Sends requests on as they came, and replies too."""

    name = "relays"
    paths = frozenset(_UPSTREAM_PATHS)

    def decode(self, call: Call, reply_id: str) -> tuple[Request, Encoder]:
        """Find the model; sound goes out as it is made, and so does what the client wants streamed."""
        content_type = call.headers.get("content-type", JSON)
        path = _UPSTREAM_PATHS[call.path]
        read = _of_form if content_type.lower().startswith(_FORM) else _of_object
        model, streamed, fields = read(content_type, call.body, _UNNAMED.get(path))
        streamed = streamed or path == _SPEECH
        verbatim = Verbatim(WIRE, path, call.body, content_type, streamed=streamed)
        job = Job(Task.RELAY, verbatim=verbatim, stream=streamed)
        is_function = path == _RERANK and not streamed and bool(fields)
        if is_function:
            outside = outside_key(RERANK) - {"top_n"}
            fields = {name: value for name, value in fields.items() if name not in outside and value is not None}
        else:
            fields = {"sha256": hashlib.sha256(call.body).hexdigest()}
        request = Request(model, job, fields, beside={"path": path}, is_function=is_function)
        return request, RelayEncoder(verbatim, reply_id)

    def failure(self, fault: Fault) -> Failure:
        """Encode an error as a status and a body."""
        return Failure(fault.status, error_of(fault))

    def failure_frame(self, fault: Fault) -> bytes:
        """Break the connection off: in the midst of a sound or a picture nothing can be said of an error."""
        raise ConnectionAbortedError(fault.message)


_Read = tuple[str, bool, Mapping[str, Any]]
"""A model, whether its reply is wanted as a stream, and the fields where they are JSON."""


def _of_object(content_type: str, body: bytes, unnamed: str | None) -> _Read:
    del content_type  # many clients name none, or a wrong one
    value = parse_object(body)
    model = unnamed if unnamed is not None and value.get("model") is None else text(value, "model")
    return model, flag(value, "stream"), value


def _of_form(content_type: str, body: bytes, unnamed: str | None) -> _Read:
    fields = fields_of(content_type, body)
    model = fields.get("model") or unnamed
    if not model:
        raise InvalidRequest("the form must have a field 'model'", "model")
    stream = fields.get("stream", "false").lower()
    if stream not in ("true", "false"):
        raise refuse("stream", stream, "true or false")
    return model, stream == "true", {}


class RelayEncoder:
    """Passes the upstream's reply on."""

    def __init__(self, verbatim: Verbatim, reply_id: str) -> None:
        self._kind = verbatim.kind
        self._reply_id = reply_id
        self.frames: Frames | None = PassedFrames(verbatim.kind, "", RelayFrames()) if verbatim.streamed else None

    def whole(self, answer: Answer) -> Whole:
        """Return the upstream's body."""
        passed = passed_on(answer, self._kind, self._reply_id)
        assert passed is not None, "a relay is answered in the upstream's own bytes, or in such as were put together"
        return passed


class RelayFrames:
    """What there is beside the upstream's bytes: nothing."""

    def content_type(self, head: Head) -> str:
        """Name what the upstream sends."""
        return head.content_type or "application/octet-stream"

    def opening(self, head: Head) -> bytes:
        """Begin with nothing of our own."""
        del head
        return b""

    def frame(self, event: Event) -> bytes:
        """Say nothing of our own."""
        del event
        return b""

    def closing(self) -> bytes:
        """End with nothing of our own."""
        return b""
