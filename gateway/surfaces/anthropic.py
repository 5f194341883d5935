"""Anthropic's wire: the Messages API. Knows no cache and no pool.

Source of the shapes: the `anthropic` Python client (types/, _streaming.py, lib/streaming).
"""

import functools
from collections.abc import Callable, Mapping

import orjson

from gateway.analyze import estimate_tokens
from gateway.errors import Fault
from gateway.fields import parse_object
from gateway.request import Request
from gateway.surfaces import anthropic_request
from gateway.surfaces.anthropic_blocks import sse
from gateway.surfaces.anthropic_reply import MessageEncoder
from gateway.surfaces.anthropic_request import Asked
from gateway.surfaces.wire import Call, Encoder, Failure

_PREFIX = "/v1"
# The headers of a client's that belong to the wire.
_HEADERS = ("anthropic-beta", "anthropic-version")

# What the same bytes mean is remembered for the most recent bodies, since what is asked again is what caches answer.
_REMEMBERED_BODIES = 512
_REMEMBERED_MAX_BYTES = 16 * 2**10

# By status; what is not here is the client's doing below 500, and ours from there.
_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_SERVER_ERROR = 500
_OVERLOADED = 529
# Whatever only waiting cures is `overloaded` here, save the limits of a key.
_BUSY_STATUS, _BUSY_CODES = 503, ("queue_full",)

_Decoded = tuple[Request, Callable[[str], Encoder]]
"""A request, and what makes the encoder of its reply from the reply's id."""


class AnthropicSurface:
    """Decodes requests for messages and encodes their replies."""

    name = "anthropic"
    paths = frozenset({"/v1/messages"})

    def __init__(self) -> None:
        self._read_small = functools.lru_cache(_REMEMBERED_BODIES)(_read)

    def decode(self, call: Call, reply_id: str) -> tuple[Request, Encoder]:
        """Read a request for a message."""
        read = self._read_small if len(call.body) <= _REMEMBERED_MAX_BYTES else _read
        request, encoder = read(call.body, asked_by(call))
        return request, encoder(reply_id)

    def failure(self, fault: Fault) -> Failure:
        """Encode an error as a status and a body."""
        status = _OVERLOADED if fault.status == _BUSY_STATUS or fault.code in _BUSY_CODES else fault.status
        return Failure(status, orjson.dumps(_error(fault, status)))

    def failure_frame(self, fault: Fault) -> bytes:
        """Encode an error in the middle of a stream: the client raises it, for the event's name."""
        return sse(_error(fault, self.failure(fault).status))


def asked_by(call: Call) -> Asked:
    """Return where a call came to, below the base URL, with its headers that belong to the wire."""
    path = call.path.removeprefix(_PREFIX) + (f"?{call.query}" if call.query else "")
    return Asked(path, tuple([(name, call.headers[name]) for name in _HEADERS if name in call.headers]))


def _read(body: bytes, asked: Asked) -> _Decoded:
    request = anthropic_request.read(parse_object(body), body, asked)
    job = request.job
    assert job.verbatim is not None
    return request, functools.partial(MessageEncoder, job.verbatim.kind, estimate_tokens(job), streamed=job.stream)


def _error(fault: Fault, status: int) -> dict[str, object]:
    kind = _TYPES.get(status) or ("api_error" if status >= _SERVER_ERROR else "invalid_request_error")
    return {
        "type": "error",
        "error": {"type": kind, "message": fault.message},
        "request_id": fault.request_id or None,
    }
