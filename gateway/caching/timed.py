"""A seat in shared work whose holder may have less time than the work has. Knows no cache and no pool."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from backends.contract import DeadlineExceeded
from backends.limit import in_time
from cache.alone import Left
from cache.flight import Seat

T = TypeVar("T")


class TimedSeat(Left, Generic[T]):
    """Reads another seat; once `within_s` have passed, a wait raises `DeadlineExceeded`. The work goes on for others.

    What has been made by then can still be read: it costs nothing more.
    """

    def __init__(self, seat: Seat[T], within_s: float) -> None:
        self._seat = seat
        self._within_s = within_s
        self._until = asyncio.get_running_loop().time() + within_s
        self._begun = False

    @property
    def leader(self) -> bool:
        """Whether the work was started for this seat."""
        return self._seat.leader

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            async with asyncio.timeout_at(self._until):
                item = await self._seat.__anext__()
        except TimeoutError:
            what = "the answer was not complete" if self._begun else "no answer began"
            raise DeadlineExceeded(f"{what} {in_time(self._within_s)}") from None
        self._begun = True
        return item

    def give_to(self, taker: Callable[[T], bool]) -> None:
        """Have `taker` take what comes while this waits; the time that it has does not change."""
        self._seat.give_to(taker)

    async def leave(self) -> None:
        """Give up the seat."""
        await self._seat.leave()
