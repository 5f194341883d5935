"""What the tests of single-flight share: work that does what it is told, and who reads it."""

import asyncio
from collections.abc import AsyncIterator

from cache.flight import Seat

KEY = b"key"


class Work:
    """Work that yields what the test feeds it; counts its starts, and remembers how it ended."""

    def __init__(self) -> None:
        self.feed: asyncio.Queue[int | Exception | None] = asyncio.Queue()
        self.starts = 0
        self.ends = 0
        self.may_clean_up = asyncio.Event()
        self.may_clean_up.set()

    async def run(self) -> AsyncIterator[int]:
        """Yield what is fed; an error is raised, None ends."""
        self.starts += 1
        try:
            while (item := await self.feed.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            await self.may_clean_up.wait()
            self.ends += 1


async def drain(seat: Seat[int]) -> list[int]:
    """Return what the seat still has to give."""
    return [item async for item in seat]


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


def counting(end: int, made: list[int]) -> AsyncIterator[int]:
    """Yield the numbers up to the end; `made` has those that were produced."""

    async def count() -> AsyncIterator[int]:
        for n in range(end):
            made.append(n)
            yield n

    return count()
