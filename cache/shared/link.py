"""The way to the server: a few connections, a deadline for every call, and a breaker. Knows no rows and no leases."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from cache.shared.breaker import Breaker

_log = logging.getLogger(__name__)

Command = tuple[Any, ...]

_CONNECTIONS = 8
_TROUBLES = (RedisError, OSError, EOFError, TimeoutError)


class UnreachableError(Exception):
    """The server did not answer, not in time, or not in its protocol."""


class Link:
    """Runs commands on the server. While it is not `up` nobody should ask: a `probe` finds out when it is back."""

    def __init__(self, url: str, *, deadline_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.breaker = Breaker()
        self.errors = 0
        self.deadline_s = deadline_s
        self._clock = clock
        self._warned: set[str] = set()
        # A retry is a second wait behind the caller's back; RESP2 needs no handshake, and nothing is pushed.
        self._client: Redis = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url, max_connections=_CONNECTIONS, timeout=None, protocol=2, retry=Retry(NoBackoff(), 0)
            )
        )

    @property
    def up(self) -> bool:
        """Whether the server answered lately, or has not failed yet."""
        return self.breaker.closed

    async def run(
        self, commands: Sequence[Command], within_s: float | None = None, *, quietly: bool = False
    ) -> list[Any]:
        """Return the replies in order; a command that the server refused has its `ResponseError` in its place.

        With `within_s` nobody waits for it, and its success says nothing of those who do; `quietly` nor does its
        failure, and the breaker learns of neither. Raises `UnreachableError`; then any of the commands may have been
        carried out, or none.
        """
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            async with asyncio.timeout(self.deadline_s if within_s is None else within_s):
                pipeline = self._client.pipeline(transaction=False)
                for command in commands:
                    pipeline.execute_command(*command)
                replies = await pipeline.execute(raise_on_error=False)
        except TimeoutError:
            self._failed(TimeoutError(_too_late(self.deadline_s, within_s)), quietly=quietly)
            raise UnreachableError(TimeoutError.__name__) from None
        except Exception as error:  # noqa: BLE001 - a transport that closes raises more than the client's own errors
            self._failed(error, quietly=quietly)
            raise UnreachableError(type(error).__name__) from None
        finally:
            # The client ends as if nothing had been when it is cancelled while it gives its connection back.
            if task and task.cancelling() > cancelled:
                raise asyncio.CancelledError
        refusals = [reply for reply in replies if isinstance(reply, Exception)]
        if len(refusals) == len(replies) and not isinstance(refusals[0], ResponseError):
            self._failed(refusals[0], quietly=quietly)
            raise UnreachableError(type(refusals[0]).__name__)
        if not quietly and (within_s is None or not self.up):
            self._succeeded()
        for refusal in refusals:
            self.refused(refusal)
        return list(replies)

    def probe_due(self) -> bool:
        """Tell whether the server may be asked whether it is back."""
        return self.breaker.closed or self._clock() >= self.breaker.probe_at

    def refused(self, error: Exception) -> None:
        """Count what the server refused, or what it kept that cannot be used."""
        self.errors += 1
        self._warn(error)

    async def close(self) -> None:
        """Close the connections."""
        try:
            async with asyncio.timeout(1.0):
                await self._client.aclose()
        except _TROUBLES as error:
            self._warn(error)

    def _failed(self, error: Exception, *, quietly: bool) -> None:
        self.errors += 1
        was_up = self.breaker.closed
        if not quietly:
            self.breaker.failed(self._clock())
        if was_up and not self.breaker.closed:
            _log.warning("shared cache: not asked for a while: %s", _told(error))
        self._warn(error)

    def _succeeded(self) -> None:
        if not self.breaker.closed:
            _log.info("shared cache: it is back")
            self._warned.clear()
        self.breaker.succeeded(self._clock())

    def _warn(self, error: Exception) -> None:
        kind = type(error).__name__
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning("shared cache: %s; further ones are only counted", _told(error))


def _too_late(deadline_s: float, within_s: float | None) -> str:
    if within_s is not None:
        return f"no answer within {within_s:g} s"
    return f"no answer within cache.shared.timeout ({1000 * deadline_s:g} ms)"


def _told(error: Exception) -> str:
    if isinstance(error, TimeoutError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
