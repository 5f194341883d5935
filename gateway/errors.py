"""The trunk's own errors, and the one table that maps every domain error to a status. Knows no wire's error shape."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from backends.contract import (
    BackendError,
    BadJob,
    DeadlineExceeded,
    QueueFull,
    StartFailed,
    UpstreamFailed,
    WorkerDied,
)
from cache.flight import FlightLaggedError


class RequestRefused(Exception):
    """The request cannot be served as it stands; `param` names the field that is at fault, if one is.

    `path` is set where it was refused before it came whole, so that no surface has seen it.
    """

    path = ""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidRequest(RequestRefused):
    """A field is missing, of the wrong type, out of range, or beyond what the model can do."""


class Unauthorized(RequestRefused):
    """No key, or one that is not known."""


class Forbidden(RequestRefused):
    """A known caller that may not do this, or one that is served nothing."""


class ModelNotAllowed(Forbidden):
    """The caller's key does not open this model."""


class UnknownModel(RequestRefused):
    """No model and no route has this name."""


class UnknownPath(RequestRefused):
    """Nothing is served at this path."""


class WrongMethod(RequestRefused):
    """The path exists, under the methods of `allow`."""

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class BodyTooLarge(RequestRefused):
    """The body exceeds `server.max_body`."""


class UnsupportedMediaType(RequestRefused):
    """The body is coded in a way that is not undone here; `headers` tell of those that are."""

    def __init__(self, message: str, accepted: str) -> None:
        super().__init__(message)
        self.headers = {"Accept-Encoding": accepted}


class BodyTooSlow(RequestRefused):
    """The body did not arrive in time."""


class NotCached(RequestRefused):
    """The client said `only-if-cached`, and nothing fitting is stored (RFC 9111 §5.2.1.7)."""


class ModelCold(BackendError):
    """No replica is up, and none is expected to be for longer than the job would wait: it is to come again.

    `applied` is the preference of its client that was followed, as `Preference-Applied` has it (RFC 7240 §3).
    """

    def __init__(self, message: str, retry_after_s: float, applied: str | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.headers = {} if applied is None else {"Preference-Applied": applied}


class RateLimited(RequestRefused):
    """The caller's key is used up for now; `headers` tell of its limits."""

    def __init__(self, message: str, retry_after_s: float, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.headers = headers


class BeyondLimit(RequestRefused):
    """The request alone is more than the caller's key may ever use; `headers` tell of its limits."""

    def __init__(self, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.headers = headers


class UnknownBatch(RequestRefused):
    """No batch of the caller's has this id."""


class UnknownNamespace(RequestRefused):
    """Nothing was learned under this name."""


class UnknownRequest(RequestRefused):
    """Nothing is known, or known any more, of a request with this id."""


class Conflict(RequestRefused):
    """The idempotency key belongs to a request with another body."""


class BatchTooLarge(RequestRefused):
    """The batch alone is more than the queue may hold."""


class BatchQueueFull(RequestRefused):
    """The queue of batches has no room now; `retry_after_s` is the estimate of when it will."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, "inputs")
        self.retry_after_s = retry_after_s


class Unsupported(RequestRefused):
    """The path is of a known wire, and nothing here does what it asks."""


class HeadTooLarge(RequestRefused):
    """The request's line and headers exceed what is read."""


class PurgeNotSaved(RequestRefused):
    """A purge is in force, but its mark could not be written, so that it may not outlast this process."""


class Draining(RequestRefused):
    """The gateway is shutting down."""


class Crowded(RequestRefused):
    """As many clients are connected as `server.max_connections` allows."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Fault:
    """An error on its way to a wire. `retry` tells clients whether to try again; `retry_after_s` when.

    `allow` names the methods that the path has, where the wrong one was used. `headers` go out with the response.
    `request_id` is that of the reply, for the wires that say it in the body too.
    """

    status: int
    kind: str
    code: str | None
    message: str
    param: str | None
    retry: bool
    retry_after_s: float | None
    allow: str | None
    headers: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""


# status, kind and code as OpenAI names them (other surfaces translate the status), and whether a retry can help
_TABLE: dict[type[Exception], tuple[int, str, str | None, bool]] = {
    InvalidRequest: (400, "invalid_request_error", None, False),
    BadJob: (400, "invalid_request_error", None, False),
    Unauthorized: (401, "invalid_request_error", "invalid_api_key", False),
    Forbidden: (403, "invalid_request_error", "forbidden", False),
    ModelNotAllowed: (403, "invalid_request_error", "model_not_allowed", False),
    UnknownModel: (404, "invalid_request_error", "model_not_found", False),
    UnknownPath: (404, "invalid_request_error", "unknown_url", False),
    UnknownBatch: (404, "invalid_request_error", "batch_not_found", False),
    UnknownNamespace: (404, "invalid_request_error", "namespace_not_found", False),
    UnknownRequest: (404, "invalid_request_error", "request_not_found", False),
    WrongMethod: (405, "invalid_request_error", "method_not_allowed", False),
    BodyTooSlow: (408, "invalid_request_error", "body_too_slow", False),
    FlightLaggedError: (408, "invalid_request_error", "read_too_slowly", True),
    Conflict: (409, "invalid_request_error", "idempotency_key_reused", False),
    BatchTooLarge: (413, "invalid_request_error", "batch_too_large", False),
    BodyTooLarge: (413, "invalid_request_error", "body_too_large", False),
    UnsupportedMediaType: (415, "invalid_request_error", "unsupported_media_type", False),
    BeyondLimit: (429, "rate_limit_error", "request_too_large", False),
    BatchQueueFull: (429, "rate_limit_error", "batch_queue_full", True),
    RateLimited: (429, "rate_limit_error", "rate_limit_exceeded", True),
    HeadTooLarge: (431, "invalid_request_error", "head_too_large", False),
    Unsupported: (501, "invalid_request_error", "unsupported", False),
    QueueFull: (429, "rate_limit_error", "queue_full", True),
    BackendError: (502, "api_error", "model_failed", False),
    WorkerDied: (502, "api_error", "worker_died", True),
    UpstreamFailed: (502, "api_error", "upstream_failed", True),
    ModelCold: (503, "api_error", "model_starting", True),
    StartFailed: (503, "api_error", "start_failed", True),
    Draining: (503, "api_error", "draining", True),
    Crowded: (503, "api_error", "too_many_connections", True),
    PurgeNotSaved: (503, "api_error", "purge_not_saved", True),
    DeadlineExceeded: (504, "api_error", "deadline_exceeded", False),
    NotCached: (504, "invalid_request_error", "not_cached", False),
}
_UNEXPECTED = (500, "api_error", "internal_error", False)
_OWN_WORDS = 500
# What only waiting cures keeps its meaning for the client; 529 is Anthropic's word for an upstream that is overloaded.
_KEPT = {429: 429, 503: 503, 529: 503}
# With what an upstream refuses our key, or knows no such model or page: so it will until the operator mends that.
_NEVER_PASSES = frozenset({401, 403, 404})


def fault(error: Exception) -> Fault:
    """Translate any error: one that the table does not know is a 500 whose text stays in the log."""
    status, kind, code, retry = _TABLE.get(type(error), _UNEXPECTED)
    if isinstance(error, UpstreamFailed):
        status, retry = _KEPT.get(error.status or 0, status), error.status not in _NEVER_PASSES
    elif isinstance(error, BadJob):
        status, kind, code = error.status, error.kind or kind, error.code or code
    return Fault(
        status=status,
        kind=kind,
        code=code,
        message="internal error; the log has the details" if status == _OWN_WORDS else _writable(str(error)),
        param=getattr(error, "param", None),
        retry=retry,
        retry_after_s=getattr(error, "retry_after_s", None),
        allow=getattr(error, "allow", None),
        headers=getattr(error, "headers", {}),
    )


def _writable(text: str) -> str:
    """Return the text as it can be written in UTF-8: bytes of a header that are none become escapes."""
    return text.encode(errors="backslashreplace").decode()
