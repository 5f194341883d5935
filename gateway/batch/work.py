"""One item's way through the pipeline, and what its end means for the batch. Knows no queue.

What only waiting cures is tried later and costs nothing; a model that failed is tried a few times; all else is final.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import orjson

from backends.contract import BackendError, BadJob, DeadlineExceeded, QueueFull, StartFailed, UpstreamFailed
from gateway.batch import orders
from gateway.batch.contract import Batch, Ended, Item
from gateway.caching.cache_control import CacheStatus
from gateway.errors import Draining, RateLimited, RequestRefused, Unauthorized, fault
from gateway.pipeline import Pipeline
from gateway.request import Caller, Directives, Request
from gateway.surfaces.native import error_value

_log = logging.getLogger(__name__)

_TRIES = 3
_BUSY_STATUSES = (429, 503)


@dataclass(frozen=True, slots=True)
class Later:
    """The item is to be tried again, no sooner than `after_s` if that is known; `failed` counts as a try."""

    after_s: float | None
    failed: bool


class Work:
    """Asks the pipeline in the name of the batch's caller, as background work."""

    def __init__(
        self,
        pipeline: Callable[[], Pipeline],
        caller_of: Callable[[str], Caller | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what gives the pipeline of now, and the caller of a scope as the keys of now know it."""
        self._clock = clock
        self._pipeline = pipeline
        self._caller_of = caller_of

    async def do(self, batch: Batch, item: Item, tries: int) -> Ended | Later:
        """Work on an item that was tried without success so many times. Raises only when cancelled."""
        caller = self._caller_of(batch.scope)
        if caller is None:
            gone = Unauthorized("the API key that sent this batch is not known any more")
            self._pipeline().accounts.note_failed(batch.model, gone, status=fault(gone).status, total_s=0.0)
            return Ended(item.batch, item.place, "failed", failure(gone))
        begun, began, pipeline, request = False, self._clock(), self._pipeline(), None
        try:
            request, encoder = orders.request(batch.operation, batch.model, batch.parameters, item.body)
            request = replace(request, job=replace(request.job, background=True))
            outcome = await pipeline.answer(request, caller, Directives())
            begun = True
            outcome = await pipeline.collect(outcome)
            assert outcome.answer is not None
            return Ended(item.batch, item.place, "done", encoder.whole(outcome.answer).body)
        except Exception as error:  # noqa: BLE001 - whatever went wrong is the item's result, or a reason to wait
            if (later := _later(error, tries, begun=begun)) is not None:
                return later
            if not begun:  # one that had begun is settled, and noted there
                went_on = None if request is None else _forwarded(pipeline, request, caller, error)
                took_s, status = self._clock() - began, fault(error).status
                pipeline.accounts.note_failed(batch.model, error, status=status, total_s=took_s, went_on=went_on)
            return Ended(item.batch, item.place, "failed", _told(error))


def _forwarded(pipeline: Pipeline, request: Request, caller: Caller, error: Exception) -> CacheStatus | None:
    return pipeline.forwarded(request, caller, Directives()) if isinstance(error, BackendError) else None


def failure(error: Exception) -> bytes:
    """Return the JSON of an error as the results show it."""
    return orjson.dumps(error_value(fault(error)))


def _told(error: Exception) -> bytes:
    if not isinstance(error, RequestRefused | BackendError):
        _log.error("unexpected error in an item of a batch", exc_info=error)
    return failure(error)


def _later(error: Exception, tries: int, *, begun: bool) -> Later | None:
    """Tell whether trying again can help. A deadline that passed before the answer began was spent in a queue."""
    busy = (
        isinstance(error, QueueFull | StartFailed | RateLimited | Draining)
        or (isinstance(error, DeadlineExceeded) and not begun)
        or (isinstance(error, UpstreamFailed) and error.status in _BUSY_STATUSES)
    )
    failed = not busy and isinstance(error, BackendError) and not isinstance(error, BadJob)
    if busy or (failed and tries + 1 < _TRIES):
        return Later(getattr(error, "retry_after_s", None), failed)
    return None
