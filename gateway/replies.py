"""What replies tell besides the answer: their headers, and what went wrong. Knows no server and no wire."""

import logging
import math
from dataclasses import replace

from backends.contract import BackendError, BadJob, UpstreamFailed
from cache.flight import FlightLaggedError
from gateway.caching import cache_control
from gateway.caching.cache_control import CacheStatus
from gateway.errors import Fault, RequestRefused, fault
from gateway.query import Outcome
from gateway.surfaces.wire import JSON, Call, Reply, Surface, Whole
from gateway.trust.explaining import line

_log = logging.getLogger(__name__)

_OURS = 500


def whole_reply(whole: Whole, outcome: Outcome, reply_id: str) -> Reply:
    """Return a complete body as a reply, with what its headers tell of where it came from."""
    headers = _headers(outcome, reply_id, whole.content_type)
    headers.update(whole.headers)
    return Reply(200, headers, whole.body)


def streamed_headers(outcome: Outcome, content_type: str, reply_id: str) -> dict[str, str]:
    """Return the headers of a stream."""
    return {**_headers(outcome, reply_id, content_type), "X-Accel-Buffering": "no"}


def broken_off(error: Exception, surface: Surface, reply_id: str) -> bytes:
    """Return what ends a stream that was passed on, and failed.

    What came last may be half an event, or half a line of one; where it is whole the blank line says nothing.
    """
    return b"\n\n" + surface.failure_frame(fault_of(error, reply_id))


def fault_of(error: Exception, reply_id: str) -> Fault:
    """Return what a client is told of an error; what is our doing is logged."""
    trouble = replace(fault(error), request_id=reply_id)
    if not isinstance(error, RequestRefused | BackendError | FlightLaggedError):
        _log.error("request %s: unexpected error", reply_id, exc_info=error)
    elif trouble.status >= _OURS:
        # Not the message: it may have an upstream's words in it, and those a client's.
        what = ", ".join([trouble.code or trouble.kind, *_failed_at(error)])
        _log.warning("request %s: status %d, %s", reply_id, trouble.status, what)
    return trouble


def _failed_at(error: Exception) -> list[str]:
    """Return which model failed and why, as far as that is known and in our own words."""
    if not isinstance(error, BackendError):
        return []
    return [*([f"model {error.model}"] if error.model else ()), *([error.cause] if error.cause else ())]


def has_it(call: Call, outcome: Outcome) -> bool:
    """Tell whether a client says that it has the answer already."""
    known = call.headers.get("if-none-match")
    return known is not None and cache_control.is_known(known, _tag(outcome))


def _tag(outcome: Outcome) -> str:
    return cache_control.entity_tag(outcome.features.fingerprint, outcome.head.created_s)


def unchanged(outcome: Outcome, reply_id: str) -> Reply:
    """Make the reply to a client that has the answer; these requests change nothing, so that it may be a 304."""
    headers = _headers(outcome, reply_id, JSON)
    del headers["Content-Type"]
    return Reply(304, headers, b"")


def gone_on(status: CacheStatus, error: BackendError) -> str:
    """Return the `Cache-Status` of a request that no model answered."""
    said = error.status if isinstance(error, UpstreamFailed | BadJob) else None
    return replace(status, forward_status=said).header()


def _headers(outcome: Outcome, reply_id: str, content_type: str) -> dict[str, str]:
    status, head = outcome.status, outcome.head
    if status.hit:
        timing = f"cache;dur={outcome.lookup_s * 1000:.2f}"
    else:
        timing = (
            f"cache;dur={outcome.lookup_s * 1000:.2f}, queue;dur={head.queue_s * 1000:.2f}"
            f", start;dur={head.start_s * 1000:.2f}, infer;dur={head.infer_s * 1000:.2f}"
        )
    headers = {
        "Content-Type": content_type,
        "Cache-Status": status.header(),
        "Server-Timing": timing,
        "X-Request-Id": reply_id,
        "request-id": reply_id,  # the name that Anthropic's clients read
    }
    headers |= outcome.permit.headers
    if status.age_s is not None:
        headers["Age"] = str(status.age_s)
    if outcome.features.cacheable:
        headers["ETag"] = _tag(outcome)
    if outcome.sought is not None:
        headers["X-Warmgate-Cache"] = line(outcome.sought)
    return headers


def failure_headers(trouble: Fault, reply_id: str) -> dict[str, str]:
    """Return the headers of a reply that tells of an error."""
    headers = {
        "Content-Type": JSON,
        "X-Request-Id": reply_id,
        "request-id": reply_id,
        "x-should-retry": "true" if trouble.retry else "false",
        "Cache-Status": f"warmgate; detail={trouble.code or trouble.kind}",
        **trouble.headers,
    }
    if trouble.allow is not None:
        headers["Allow"] = trouble.allow
    if trouble.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(trouble.retry_after_s)))
    return headers
