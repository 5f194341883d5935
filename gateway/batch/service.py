"""The batches of this gateway: accepted, worked on, told of, and forgotten in the end. Knows no wire.

It outlives edits of the config: `adjust` gives it a new policy, and it asks for the pipeline when it needs it.
"""

import asyncio
import logging
import secrets
import sqlite3
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Executor
from contextlib import aclosing
from pathlib import Path
from typing import Any

from backends.contract import DeadlineExceeded
from gateway.batch import orders
from gateway.batch.callbacks import Deliverer
from gateway.batch.contract import (
    Batch,
    BatchPolicy,
    Draft,
    KeyReused,
    Operation,
    QueueFullNow,
    Row,
    TooLarge,
)
from gateway.batch.desk import Desk
from gateway.batch.ledger import MAX_BATCHES, Ledger
from gateway.batch.orders import Order
from gateway.batch.outbound import Outbound, Unreachable
from gateway.batch.runner import Runner
from gateway.batch.sources import Sources
from gateway.batch.work import Work, failure
from gateway.counting.telemetry import Reading
from gateway.errors import BatchQueueFull, BatchTooLarge, Conflict, InvalidRequest, UnknownBatch
from gateway.fields import cut
from gateway.pipeline import Pipeline
from gateway.request import Caller

_log = logging.getLogger(__name__)

# Inputs that are checked and written at a time: few, since nobody else is served while they are checked.
_CHUNK_ITEMS = 64
_CHUNK_BYTES = 2**20
_HOUSEKEEPING_S = 60.0
_UNKNOWN_RETRY_S = 30.0
_LONGEST_RETRY_S = 3600.0


class Batches:
    """Owns the queue in `directory`: `open` it, `start` the work when there is a pipeline, `close` it at the end."""

    def __init__(
        self,
        directory: Path,
        policy: BatchPolicy,
        *,
        pipeline: Callable[[], Pipeline],
        caller_of: Callable[[str], Caller | None],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        tls: ssl.SSLContext | None = None,
        thread: Executor | None = None,
    ) -> None:
        """Take what gives the pipeline of now, and the caller of a scope as the keys of now know it."""
        self._policy = policy
        self._wall_clock = wall_clock
        self._desk = Desk(directory, thread)
        self._outbound = Outbound(lambda: self._policy.allow_private, tls)
        self._sources = Sources(self._outbound, lambda: self._policy)
        self._deliverer = Deliverer(self._desk, self._outbound.post, lambda: self._policy.callback_secret, wall_clock)
        self._runner = Runner(
            self._desk,
            Work(pipeline, caller_of).do,
            lambda: self._policy.concurrency,
            on_finished=self._deliverer.poke,
            clock=clock,
            wall_clock=wall_clock,
        )
        self._tasks: set[asyncio.Task[Any]] = set()
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the queue and read what an earlier life has left. Raises `OSError`."""
        await self._desk.open()
        for batch in await self._desk.do(Ledger.open_batches):
            self._runner.add(batch)

    def start(self) -> None:
        """Begin to work."""
        self._runner.start()
        self._deliverer.start()
        self._keeping = asyncio.create_task(self._keep_house(), name="batch housekeeping")

    def adjust(self, policy: BatchPolicy) -> None:
        """Go on under another policy."""
        self._policy = policy
        self._runner.look()

    async def close(self, deadline_s: float) -> None:
        """Begin nothing more and let what runs end within the deadline; the rest waits for the next life."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        await self._runner.close(deadline_s)
        await self._deliverer.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._outbound.close()
        await self._desk.close()

    async def accept(
        self, order: Order, operation: Operation, caller: Caller, idempotency_key: str | None, digest: bytes
    ) -> Batch:
        """Accept an order: once this returns no crash loses it. `digest` tells its repeats from other orders.

        Raises `RequestRefused` of several kinds.
        """
        draft = Draft(
            id=f"batch_{secrets.token_hex(16)}",
            scope=caller.scope,
            model=order.model,
            operation=operation,
            parameters=order.parameters,
            callback_url=order.callback_url,
            idempotency_key=idempotency_key,
            digest=digest,
            created_at=self._wall_clock(),
        )
        try:
            if idempotency_key is not None:
                known = await self._desk.do(Ledger.known, caller.scope, idempotency_key, digest)
                if known is not None:
                    return known
            await self._check_callback(order.callback_url)
            return await self._fill(draft, order.inputs)
        except KeyReused:
            raise Conflict("the 'Idempotency-Key' belongs to a request with another body") from None

    async def find(self, batch_id: str, caller: Caller) -> Batch:
        """Return a batch of the caller's. Raises `UnknownBatch`."""
        batch = await self._desk.do(Ledger.find, batch_id, caller.scope)
        if batch is None:
            raise UnknownBatch(f"there is no batch '{cut(batch_id)}'")
        return batch

    async def rows(self, batch: Batch, offset: int, limit: int) -> list[Row]:
        """Return a page of results, in the order of the inputs."""
        return await self._desk.do(Ledger.rows, batch.number, offset, limit) if limit else []

    async def delivery(self, batch: Batch) -> tuple[str, int, str | None] | None:
        """Return the state of the callback: status, tries and the last trouble; None where none is owed yet."""
        return await self._desk.do(Ledger.delivery, batch.number)

    async def cancel(self, batch_id: str, caller: Caller) -> Batch:
        """Stop a batch, unless it has ended; return it as it is then. Raises `UnknownBatch`."""
        batch = await self.find(batch_id, caller)
        return await asyncio.shield(self._own(self._stop(batch.number)))

    def estimate_s(self, batch: Batch) -> float | None:
        """Return the seconds until a batch is complete; None where nothing was measured yet."""
        return self._runner.estimate_s(batch.number) if batch.status == "open" else 0.0

    def runs(self, batch: Batch) -> bool:
        """Tell whether the work on an open batch has begun."""
        return batch.done + batch.failed > 0 or self._runner.works_on(batch.number)

    def readings(self) -> list[Reading]:
        """Return what the metrics tell of the queue."""
        return [
            Reading("warmgate_batch_items_waiting", "Items of batches that have no result yet.", (), (),
                    self._runner.left),
            Reading("warmgate_batch_items_running", "Items of batches that are worked on.", (), (),
                    self._runner.running),
            Reading("warmgate_batch_callbacks", "Tries of callbacks, by how they ended.", ("result",),
                    ("delivered",), self._deliverer.delivered, counter=True),
            Reading("warmgate_batch_callbacks", "Tries of callbacks, by how they ended.", ("result",),
                    ("failed",), self._deliverer.failed_tries, counter=True),
        ]  # fmt: skip

    async def _check_callback(self, url: str | None) -> None:
        if url is None:
            return
        if self._policy.callback_secret is None:
            raise InvalidRequest("there are no callbacks: 'batch.callback_secret' is not set", "callback_url")
        try:
            await self._outbound.check(url, ("http", "https"))
        except Unreachable as error:
            raise InvalidRequest(f"'callback_url' cannot be used: {error}", "callback_url") from error

    async def _fill(self, draft: Draft, inputs: object) -> Batch:
        """Write the inputs down as they come, and accept the batch with the last of them."""
        begun = False
        try:
            async with aclosing(self._chunks(draft, inputs)) as chunks:
                rest: list[bytes] = []
                async for items, last in chunks:
                    if last:
                        rest = items
                    else:
                        begun = True
                        await self._put(draft, items, last=False)
            # Not to be cut in two: a batch that is accepted is worked on, whether or not its client still listens.
            return await asyncio.shield(self._own(self._accept_last(draft, rest)))
        except BaseException:
            if begun:
                await asyncio.shield(self._own(self._desk.do(Ledger.discard, draft)))
            raise

    async def _chunks(self, draft: Draft, inputs: object) -> AsyncGenerator[tuple[list[bytes], bool], None]:
        """Yield the checked inputs in lots, and whether it is the last one, which is not empty."""
        items: list[bytes] = []
        size = 0
        async with aclosing(self._sources.read(inputs)) as values:
            async for where, value in values:
                if len(items) >= _CHUNK_ITEMS or size >= _CHUNK_BYTES:
                    yield items, False
                    items, size = [], 0
                items.append(orders.checked(draft.operation, draft.model, draft.parameters, where, value))
                size += len(items[-1])
        if not items:
            raise InvalidRequest("there are no inputs", "inputs")
        yield items, True

    async def _put(self, draft: Draft, items: list[bytes], *, last: bool) -> Batch | None:
        policy = self._policy
        try:
            return await self._desk.do(Ledger.put, draft, items, policy.max_items, policy.max_bytes, last=last)
        except TooLarge:
            allowed = f"{policy.max_items} items and {policy.max_bytes} bytes"
            raise BatchTooLarge(
                f"a batch may have up to {allowed} ('batch.max_items', '.max_bytes')", "inputs"
            ) from None
        except QueueFullNow as error:
            drained_s = self._runner.drained_s()
            retry_s = _UNKNOWN_RETRY_S if drained_s is None else min(_LONGEST_RETRY_S, drained_s / 4)
            allowed = f"{policy.max_items} items, {policy.max_bytes} bytes or {MAX_BATCHES} batches"
            raise BatchQueueFull(f"{error}; the queue holds up to {allowed}", retry_s) from None

    async def _accept_last(self, draft: Draft, items: list[bytes]) -> Batch:
        batch = await self._put(draft, items, last=True)
        assert batch is not None, "the last items make a batch"
        if batch.status == "open":
            self._runner.add(batch)
        return batch

    async def _stop(self, number: int, error: bytes | None = None) -> Batch:
        batch = await self._desk.do(
            Ledger.stop, number, "cancelled" if error is None else "failed", self._wall_clock(), error
        )
        self._runner.drop(number)
        self._deliverer.poke()
        return batch

    def _own(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something that goes on when who asked for it has left."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _keep_house(self) -> None:
        """Forget what finished long ago, and end what never will."""
        while True:
            try:
                await self._forget(self._wall_clock() - self._policy.keep_s)
            except sqlite3.Error:
                _log.exception("old batches could not be removed; trying again in %g s", _HOUSEKEEPING_S)
            await asyncio.sleep(_HOUSEKEEPING_S)

    async def _forget(self, before: float) -> None:
        late = failure(DeadlineExceeded("it did not come to an end within 'batch.keep'"))
        for number in await self._desk.do(Ledger.overdue, before):
            await self._stop(number, late)
        while await self._desk.do(Ledger.remove_finished, before):
            pass
