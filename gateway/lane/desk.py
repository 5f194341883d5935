"""What the errands of one generation have in common, and who looks after their time. Knows no request."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from gateway.front import Front
from gateway.reply_ids import fresh_ids
from gateway.surfaces.wire import Surface


class Client(Protocol):
    """The connection of who asked."""

    peer: str | None

    def answered(self, reply: bytes) -> None:
        """Take the reply."""
        ...

    def have_a_task(self) -> None:
        """Wait for the rest of the errand that was begun."""
        ...

    def opened(self, begins: bytes) -> None:
        """Take the head of a streamed reply, and the first piece of its body."""
        ...

    def went_on(self, piece: bytes) -> None:
        """Take a piece of a streamed reply's body."""
        ...

    def is_reading(self) -> bool:
        """Tell whether more may be written; else the errand is to `go_on` when it may."""
        ...

    def ended(self) -> None:
        """Take the end of a streamed reply."""
        ...


class Timed(Protocol):
    """An errand under way, which has time `until` then."""

    until: float

    def late(self) -> None:
        """Note that its time is up."""
        ...


class Desk:
    """Looks after the errands under way: each is handed over when its time is up."""

    def __init__(self, surface: Surface, front: Front, *, deadline_s: float, clock: Callable[[], float]) -> None:
        self.surface = surface
        self.front = front
        self.deadline_s = deadline_s
        self.clock = clock
        self.ids = map(str.encode, fresh_ids())
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[Timed, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def look_after(self, errand: Timed) -> None:
        """Hand the errand over when its time is up."""
        self._under_way[errand] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self.deadline_s, self._look)

    def forget(self, errand: Timed) -> None:
        """Look after an errand no more."""
        self._under_way.pop(errand, None)

    def _look(self) -> None:
        """Hand over what takes too long; all have the same time, so the oldest is the next."""
        now, self._timer = self.clock(), None
        for errand in tuple(self._under_way):
            if errand.until > now:
                self._timer = self._loop.call_later(errand.until - now, self._look)
                return
            errand.late()
