"""The accounts of the requests under way: what their callers' limits allow, and what models are said to do.

Knows no cache and no pool.
"""

import asyncio
from collections.abc import Callable, Mapping

from backends.contract import BackendError, Job, QueueFull, StartFailed
from gateway.analyze import Features
from gateway.caching.cache_control import CacheStatus, label_of
from gateway.callers.limits import Limiter, Permit
from gateway.counting.access_log import BROKEN_OFF, CLIENT_LEFT, AccessLog
from gateway.counting.model_statistics import ModelStatistics
from gateway.counting.telemetry import Telemetry
from gateway.errors import RequestRefused
from gateway.query import Outcome
from gateway.request import Caller

_OK = 200


class Accounts:
    """Counts the requests that look for an answer, and settles what each of them took."""

    def __init__(
        self, limiter: Limiter, statistics: ModelStatistics, clock: Callable[[], float], telemetry: Telemetry
    ) -> None:
        self._limiter = limiter
        self._statistics = statistics
        self._telemetry = telemetry
        self._clock = clock
        self._answering = 0
        self._idle: asyncio.Event | None = None

    @property
    def access(self) -> AccessLog:
        """Where the requests are written to."""
        return self._telemetry.access

    def begin(self, caller: Caller, features: Features, *, background: bool = False) -> Permit:
        """Let a request begin; it is to be `ended`. Raises as the limits do."""
        return self.let_in(caller, features.tokens_in + (features.max_tokens_out or 0), background=background)

    def let_in(self, caller: Caller, tokens: int, *, background: bool = False) -> Permit:
        """Let a request of about so many tokens begin; see `begin`."""
        permit = self._limiter.admit(caller, tokens, background=background)
        self._answering += 1
        return permit

    def failed(self, error: BaseException, model: str, job: Job, permit: Permit, arrived: float) -> None:
        """Close the accounts of a request that has no answer."""
        permit.settle(0)
        if isinstance(error, BackendError):
            self._statistics.record(model, job, total_s=self._clock() - arrived, failed=True)

    def note_failed(
        self, model: str, error: Exception, *, status: int, total_s: float, went_on: CacheStatus | None = None
    ) -> None:
        """Have a request in the access log that has no outcome; `went_on` is how it came to a model, where it did."""
        waited_s = total_s if isinstance(error, StartFailed | QueueFull) else 0.0
        self.access.note(
            model,
            total_s=total_s,
            cache=label_of(went_on),
            status=status,
            away_s=total_s if isinstance(error, RequestRefused) else waited_s,
            wait_s=waited_s,
        )

    def ended(self) -> None:
        """Note that a request looks for its answer no more."""
        self._answering -= 1
        if not self._answering and self._idle is not None:
            self._idle.set()

    def limit_headers(self, caller: Caller) -> Mapping[str, str]:
        """Return what a caller's limits leave it, as headers; empty where it has none."""
        return self._limiter.headers(caller)

    async def until_idle(self) -> None:
        """Wait until no request looks for its answer any more; one whose answer has begun holds what it needs."""
        if self._answering:
            self._idle = asyncio.Event()
            await self._idle.wait()

    def settle(self, outcome: Outcome, spent: int, *, failed: bool | None = False) -> None:
        """Close the accounts of a request that has ended; `failed` is None where its client left before."""
        outcome.permit.settle(spent)
        head = outcome.head
        total_s, wait_s = self._clock() - outcome.arrived, head.queue_s + head.start_s
        if self.access.file is not None:
            self.access.note(
                head.model,
                total_s=total_s,
                cache=outcome.status.label(),
                status=CLIENT_LEFT if failed is None else BROKEN_OFF if failed else _OK,
                away_s=total_s if outcome.status.hit else outcome.lookup_s + wait_s,
                wait_s=0.0 if outcome.status.hit else wait_s,
            )
        if failed is None:
            return
        self._statistics.record(
            head.model,
            outcome.job,
            total_s=total_s,
            hit=outcome.status.hit,
            failed=failed,
            lookup_s=outcome.lookup_s,
            wait_s=wait_s,
            infer_s=head.infer_s,
        )
