"""Takes items of open batches in turn, a few at a time, and has their ends written down. Knows no pipeline, no table.

What is being worked on is known here alone: after a crash the ledger still has it as waiting.
"""

import asyncio
import logging
import random
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.batch import pace
from gateway.batch.contract import Batch, Ended, Item
from gateway.batch.desk import Desk
from gateway.batch.ledger import Ledger
from gateway.batch.work import Later

_log = logging.getLogger(__name__)

_FETCHED = 256
# Ends that may wait to be written; while there are more, nothing new is begun.
_MAX_UNWRITTEN = 256
_DISK_PAUSE_S = 1.0
_LOOK_S = 30.0


@dataclass(slots=True)
class _Line:
    """An open batch: the items that were fetched from `from_place` on, and those that are being worked on."""

    batch: Batch
    left: int
    waiting: deque[Item] = field(default_factory=deque)
    from_place: int = 0
    fetched_all: bool = False
    running: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)
    resume_at: float = 0.0
    pauses: int = 0
    takes_turns: bool = True

    @property
    def has_more(self) -> bool:
        """Whether an item of it may be begun."""
        return bool(self.waiting) or not self.fetched_all


class Runner:
    """Owns the work on all open batches. `on_finished` is called when batches are complete."""

    def __init__(
        self,
        desk: Desk,
        do: Callable[[Batch, Item, int], Awaitable[Ended | Later]],
        concurrency: Callable[[], int],
        *,
        on_finished: Callable[[], None],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._desk = desk
        self._do = do
        self._concurrency = concurrency
        self._on_finished = on_finished
        self._clock = clock
        self._wall_clock = wall_clock
        self._lines: dict[int, _Line] = {}
        self._turns: deque[_Line] = deque()
        self._running = 0
        self._unwritten: list[Ended] = []
        self._changed = asyncio.Event()
        self._to_write = asyncio.Event()
        self._item_s: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def running(self) -> int:
        """Items that are being worked on."""
        return self._running

    @property
    def left(self) -> int:
        """Items of all open batches that have not ended."""
        return sum(line.left for line in self._lines.values())

    def start(self) -> None:
        """Begin to work."""
        self._tasks = [
            asyncio.create_task(self._dispatch(), name="batch items"),
            asyncio.create_task(self._write(), name="batch results"),
        ]

    def look(self) -> None:
        """See at once whether more may be begun."""
        self._changed.set()

    def add(self, batch: Batch) -> None:
        """Take an open batch on; one that is known already stays as it is."""
        if batch.number not in self._lines:
            line = self._lines[batch.number] = _Line(batch, batch.left)
            self._turns.append(line)
            self._changed.set()

    def drop(self, number: int) -> None:
        """Stop the work on a batch."""
        line = self._lines.pop(number, None)
        for task in line.running.values() if line else ():
            task.cancel()
        self._changed.set()

    def works_on(self, number: int) -> bool:
        """Tell whether an item of the batch is being worked on."""
        line = self._lines.get(number)
        return line is not None and bool(line.running)

    def estimate_s(self, number: int) -> float | None:
        """Return the seconds until the batch will be complete; None where nothing tells."""
        line = self._lines.get(number)
        if line is None:
            return 0.0
        others = [
            (other.left, self._item_s.get(other.batch.model)) for other in self._lines.values() if other is not line
        ]
        return pace.estimate_s(line.left, self._item_s.get(line.batch.model), others, self._concurrency())

    def drained_s(self) -> float | None:
        """Return the seconds until all that waits is done; None where nothing tells."""
        all_s = [line.left * item_s for line in self._lines.values() if (item_s := self._item_s.get(line.batch.model))]
        return sum(all_s) / self._concurrency() if all_s else None

    async def close(self, deadline_s: float) -> None:
        """Begin nothing more, wait for what runs, and leave the rest to the next life."""
        for task in self._tasks[:1]:
            task.cancel()
        running = [task for line in self._lines.values() for task in line.running.values()]
        if running:
            await asyncio.wait(running, timeout=deadline_s)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._write_some()
        except sqlite3.Error:
            _log.exception("the last results of batches could not be written; those items will be done again")
            self._unwritten.clear()

    async def _dispatch(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self._begin_all()
            except sqlite3.Error:
                _log.exception("the batch queue cannot be read; trying again in %g s", _DISK_PAUSE_S)
                await asyncio.sleep(_DISK_PAUSE_S)
                continue
            try:
                async with asyncio.timeout(self._rest_s()):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _begin_all(self) -> None:
        """Begin what may begin now."""
        while self._running < self._concurrency() and len(self._unwritten) < _MAX_UNWRITTEN:
            line = self._next()
            if line is None:
                return
            if line.waiting:
                self._begin(line)
            else:
                await self._fetch(line)  # in the meantime it may have been stopped, or told to pause

    def _next(self) -> _Line | None:
        """Return the batch whose turn it is: a small one does not wait for all of a large one that came before it."""
        now = self._clock()
        for _ in range(len(self._turns)):
            line = self._turns.popleft()
            if self._lines.get(line.batch.number) is not line or not line.has_more:
                line.takes_turns = False
                continue
            self._turns.append(line)
            if line.resume_at <= now:
                return line
        return None

    async def _fetch(self, line: _Line) -> None:
        found = await self._desk.do(Ledger.waiting, line.batch.number, line.from_place, _FETCHED)
        line.waiting.extend(found)
        line.fetched_all = not found
        if found:
            line.from_place = found[-1].place + 1

    def _begin(self, line: _Line) -> None:
        item = line.waiting.popleft()
        self._running += 1
        task = asyncio.create_task(self._run(line, item), name=f"batch item {item.batch}/{item.place}")
        line.running[item.place] = task
        task.add_done_callback(lambda _: self._ended_running(line, item))

    def _ended_running(self, line: _Line, item: Item) -> None:
        del line.running[item.place]
        self._running -= 1
        self._changed.set()

    async def _run(self, line: _Line, item: Item) -> None:
        began = self._clock()
        result = await self._do(line.batch, item, line.tries.get(item.place, 0))
        now = self._clock()
        if isinstance(result, Later):
            self._pause(line, item, result, now)
            return
        model = line.batch.model
        self._item_s[model] = pace.smoothed(self._item_s.get(model), now - began)
        line.pauses = 0
        self._unwritten.append(result)
        self._to_write.set()

    def _pause(self, line: _Line, item: Item, later: Later, now: float) -> None:
        if not line.takes_turns:  # all that it had was begun
            line.takes_turns = True
            self._turns.append(line)
        line.waiting.appendleft(item)
        if later.failed:
            line.tries[item.place] = line.tries.get(item.place, 0) + 1
        if line.resume_at <= now:  # the items that ran beside it met the same trouble
            line.resume_at = now + pace.pause_s(line.pauses, later.after_s, random.random())
            line.pauses += 1

    def _rest_s(self) -> float:
        """Return for how long nothing can begin unless something changes."""
        now = self._clock()
        return min([_LOOK_S, *[line.resume_at - now for line in self._turns if line.has_more and line.resume_at > now]])

    async def _write(self) -> None:
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            try:
                await self._write_some()
            except sqlite3.Error:
                _log.exception("results of batches cannot be written; trying again in %g s", _DISK_PAUSE_S)
                await asyncio.sleep(_DISK_PAUSE_S)
                self._to_write.set()

    async def _write_some(self) -> None:
        """Write all ends that there are now, in one transaction."""
        ended = tuple(self._unwritten)
        if not ended:
            return
        finished = await self._desk.do(Ledger.end_items, ended, self._wall_clock())
        del self._unwritten[: len(ended)]
        for item in ended:
            if (line := self._lines.get(item.batch)) is not None:
                line.left -= 1
                line.tries.pop(item.place, None)
        for batch in finished:
            self._lines.pop(batch.number, None)
        if finished:
            self._on_finished()
        self._changed.set()
