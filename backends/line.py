"""The line of jobs that wait for a slot, first come, first served. Knows neither replicas nor why one is refused."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Slot = TypeVar("Slot")


@dataclass(frozen=True, slots=True, eq=False)
class Waiter(Generic[Slot]):
    """One job in line since `queued_at`; `granted` gets the slot, which is the waiter's from that moment on."""

    queued_at: float
    deadline: float | None
    granted: asyncio.Future[Slot] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Line(Generic[Slot]):
    """Waiters in order. A slot is only ever handed to one who is still there; `give_back` gets it from one who left."""

    def __init__(self, give_back: Callable[[Slot], None]) -> None:
        self._give_back = give_back
        self._waiters: OrderedDict[Waiter[Slot], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def oldest(self) -> float | None:
        """When the one at the head came; `None` where nobody waits."""
        return next(iter(self._waiters)).queued_at if self._waiters else None

    def join(self, queued_at: float, deadline: float | None, *, at_head: bool = False) -> Waiter[Slot]:
        """Queue up; `wait` must follow with no await between."""
        waiter: Waiter[Slot] = Waiter(queued_at, deadline)
        self._waiters[waiter] = None
        if at_head:
            self._waiters.move_to_end(waiter, last=False)
        return waiter

    async def wait(self, waiter: Waiter[Slot], timeout_s: float | None) -> Slot:
        """Return the granted slot. Raises `TimeoutError`, or what `refuse` gave; leaves the line in any case."""
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter.granted
        except BaseException:
            if granted(waiter):
                self._give_back(waiter.granted.result())
            raise
        finally:
            self._waiters.pop(waiter, None)

    def grant(self, slot: Slot) -> bool:
        """Hand a slot to the first in line; return whether there was one."""
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.granted.done():
                waiter.granted.set_result(slot)
                return True
        return False

    def refuse(self, verdict: Callable[[float | None], Exception | None]) -> None:
        """Send away everyone for whose deadline `verdict` returns an error."""
        for waiter in list(self._waiters):
            if not waiter.granted.done() and (error := verdict(waiter.deadline)) is not None:
                waiter.granted.set_exception(error)
                del self._waiters[waiter]


def granted(waiter: Waiter[Slot]) -> bool:
    """Whether the waiter holds a slot."""
    future = waiter.granted
    return future.done() and not future.cancelled() and future.exception() is None
