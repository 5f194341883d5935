"""Reads rows for many at once: who asks while a read is under way goes with the next one, all in one command."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from cache.shared.link import Link, UnreachableError

_READERS = 2
_KEYS_A_READ = 32
_WAITING = 1024


@dataclass(slots=True, eq=False)
class _Wish:
    names: Sequence[bytes]
    rows: asyncio.Future[list[bytes | None]]


class Reader:
    """A few tasks that read what is wished for. `open` first."""

    def __init__(self, link: Link) -> None:
        self.timeouts = 0
        """Reads whose answer did not come in time."""
        self.turned_away = 0
        """Reads that were not tried, for too many waited."""
        self._link = link
        self._wishes: deque[_Wish] = deque()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Start reading."""
        self._tasks = [asyncio.create_task(self._serve(), name="cache-shared-reader") for _ in range(_READERS)]

    async def close(self) -> None:
        """Stop; who still waits gets nothing."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        while self._wishes:
            _grant(self._wishes.popleft(), [])

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """Return the value under each name; all None where they cannot be had within the link's deadline."""
        if len(self._wishes) >= _WAITING:
            self.turned_away += 1
            return [None] * len(names)
        wish = _Wish(names, asyncio.get_running_loop().create_future())
        self._wishes.append(wish)
        self._wake.set()
        try:
            async with asyncio.timeout(self._link.deadline_s):
                rows = await wish.rows
        except TimeoutError:
            rows = []
        if not rows:
            self.timeouts += 1
        return rows or [None] * len(names)

    async def _serve(self) -> None:
        while True:
            await self._wake.wait()
            while wishes := self._take():
                names = [name for wish in wishes for name in wish.names]
                try:
                    (values,) = await self._link.run([("MGET", *names)])
                except UnreachableError:
                    values = []
                rows = iter(values if isinstance(values, list) else [])
                for wish in wishes:
                    _grant(wish, [row for _, row in zip(wish.names, rows, strict=False)])
            self._wake.clear()

    def _take(self) -> list[_Wish]:
        """Take the next wishes that are still wished, as many as go into one read."""
        taken: list[_Wish] = []
        count = 0
        while self._wishes and count < _KEYS_A_READ:
            wish = self._wishes.popleft()
            if not wish.rows.done():
                taken.append(wish)
                count += len(wish.names)
        return taken


def _grant(wish: _Wish, rows: list[bytes | None]) -> None:
    if not wish.rows.done():
        wish.rows.set_result(rows)
