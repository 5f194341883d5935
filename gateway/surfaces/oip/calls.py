"""What every call of gRPC has in common: who calls, by when, and how an error is told. Knows no message."""

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError, Message

from gateway.errors import Fault, InvalidRequest
from gateway.replies import fault_of

_M = TypeVar("_M", bound=Message)

Context = grpc.aio.ServicerContext[Any, Any]

_LEAST_S = 0.001
_CODES: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def read(kind: type[_M], data: bytes) -> _M:
    """Read a message. Raises `InvalidRequest`: the library would log it as a defect of ours."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidRequest(f"these {len(data)} bytes are no message {kind.DESCRIPTOR.full_name}") from error


def metadata(context: Context) -> dict[str, str]:
    """Return the call's metadata, which are its headers; those whose values are bytes are none of ours.

    What is there more than once is joined, as the lines of a header are (RFC 9110 §5.3).
    """
    headers: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def peer(context: Context) -> str | None:
    """Return the client's address; None for a Unix socket's, which has none."""
    kind, _, address = context.peer().partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    return unquote(address).rpartition(":")[0].strip("[]")


def remaining_s(context: Context) -> float | None:
    """Return how long the client waits, None where it did not say."""
    left: float | None = context.time_remaining()
    return None if left is None else max(_LEAST_S, left)


def told(error: Exception, request_id: str = "") -> Fault:
    """Return what a client is told of an error; what is our doing is logged, with the id that the client gave."""
    return fault_of(error, f"{request_id!r} of gRPC" if request_id else "of gRPC")


def code(trouble: Fault) -> grpc.StatusCode:
    """Return gRPC's word for an error: a full queue is a server that cannot now, not a client that asked too much."""
    if trouble.code == "queue_full":
        return grpc.StatusCode.UNAVAILABLE
    return _CODES.get(trouble.status, grpc.StatusCode.INTERNAL)
