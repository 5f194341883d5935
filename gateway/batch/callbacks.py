"""Tells clients that their batch has ended: signed, tried again with growing waits, never forgotten in a crash.

Each try is written down before it is made, and its end after it, so a crash repeats a callback at worst, and always
under the same `Idempotency-Key`. Knows no item.
"""

import asyncio
import hashlib
import hmac
import logging
import random
import sqlite3
from collections.abc import Awaitable, Callable, Mapping

import orjson

from gateway.batch.contract import Batch, Delivery
from gateway.batch.desk import Desk
from gateway.batch.ledger import Ledger
from gateway.batch.outbound import Unreachable

_log = logging.getLogger(__name__)

TRIES = 8
_LIMIT_S = 10.0
_FIRST_WAIT_S = 15.0  # longer than a try may take, so that no two of a batch run beside each other
_LONGEST_WAIT_S = 3600.0
_AT_A_TIME = 16
_DISK_PAUSE_S = 5.0
_LOOK_S = 60.0
_SUCCESSES = range(200, 300)

Post = Callable[[str, bytes, Mapping[str, str], float], Awaitable[int]]
"""Sends a body to a URL within some seconds and returns the status. Raises `Unreachable`."""


def wait_s(tries: int, chance: float) -> float:
    """Return how long to wait for the next try after so many; `chance` in [0, 1) jitters."""
    wait: float = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 4.0**tries)
    return wait * (1 + chance / 4)


def message(batch: Batch) -> bytes:
    """Return what the client is told: the same bytes at each try."""
    return orjson.dumps(
        {
            "batch_id": batch.id,
            "status": batch.status,
            "total": batch.total,
            "done": batch.done,
            "failed": batch.failed,
            "finished_at": batch.finished_at,
        }
    )


def signature(secret: bytes, body: bytes, now: float) -> str:
    """Sign a body and the time: the receiver refuses what is old, and so what somebody repeats."""
    at = str(int(now))
    return f"t={at},v1={hmac.new(secret, at.encode() + b'.' + body, hashlib.sha256).hexdigest()}"


class Deliverer:
    """Owns the callbacks that are owed."""

    def __init__(
        self, desk: Desk, post: Post, secret: Callable[[], bytes | None], wall_clock: Callable[[], float]
    ) -> None:
        self._desk = desk
        self._post = post
        self._secret = secret
        self._wall_clock = wall_clock
        self._poked = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self.delivered = 0
        self.failed_tries = 0

    def start(self) -> None:
        """Begin to deliver."""
        self._task = asyncio.create_task(self._run(), name="batch callbacks")

    def poke(self) -> None:
        """Look at once for callbacks that are owed."""
        self._poked.set()

    async def close(self) -> None:
        """Stop; a callback on its way is sent again in the next life."""
        tasks = [*self._sending, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._poked.clear()
            try:
                rest_s = await self._begin_due()
            except sqlite3.Error:
                _log.exception("the callbacks of batches cannot be read; trying again in %g s", _DISK_PAUSE_S)
                rest_s = _DISK_PAUSE_S
            try:
                async with asyncio.timeout(rest_s):
                    await self._poked.wait()
            except TimeoutError:
                continue

    async def _begin_due(self) -> float:
        """Begin the callbacks whose time has come; return the seconds until the next one's."""
        now = self._wall_clock()
        for delivery in await self._desk.do(Ledger.due, now, _AT_A_TIME - len(self._sending)):
            again_at = now + wait_s(delivery.tries, random.random())
            await self._desk.do(Ledger.begin_delivery, delivery.batch.number, again_at)
            task = asyncio.create_task(self._deliver(delivery), name=f"callback of {delivery.batch.id}")
            self._sending.add(task)
            task.add_done_callback(self._sent)
        next_at = await self._desk.do(Ledger.next_due)
        if next_at is None or len(self._sending) >= _AT_A_TIME:
            return _LOOK_S
        return min(_LOOK_S, max(0.0, next_at - self._wall_clock()))

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self.poke()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a callback's end was not written down; it will be sent again", exc_info=error)

    async def _deliver(self, delivery: Delivery) -> None:
        batch = delivery.batch
        trouble = await self._try(batch)
        if trouble is None:
            self.delivered += 1
            await self._desk.do(Ledger.end_delivery, batch.number, "delivered", None)
            return
        self.failed_tries += 1
        over = delivery.tries + 1 >= TRIES
        _log.warning("callback of %s failed%s: %s", batch.id, ", for the last time" if over else "", trouble)
        await self._desk.do(Ledger.end_delivery, batch.number, "given_up" if over else "pending", trouble)

    async def _try(self, batch: Batch) -> str | None:
        """Send one callback; return what went wrong."""
        secret = self._secret()
        if secret is None:
            return "'batch.callback_secret' is not set any more"
        assert batch.callback_url is not None
        body = message(batch)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": batch.id,
            "Webhook-Id": batch.id,
            "X-Warmgate-Signature": signature(secret, body, self._wall_clock()),
        }
        try:
            status = await self._post(batch.callback_url, body, headers, _LIMIT_S)
        except Unreachable as error:
            return str(error)
        return None if status in _SUCCESSES else f"the status was {status}"
