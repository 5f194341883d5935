"""The time that a piece of work has, which ends whichever wait of its is under way. Knows no work."""

import asyncio
from types import TracebackType

_SHORTEST_TOLD_S = 0.01


def in_time(within_s: float) -> str:
    """Say for an error by when something had not come; of a limit that had nearly run out no figure says much."""
    if within_s < _SHORTEST_TOLD_S:
        return f"in time: less than {_SHORTEST_TOLD_S:g} s was left for it"
    return f"within {within_s:.2f} s"


class Limit:
    """Enter it around each wait, with nothing but the wait inside: once the time is up that raises `TimeoutError`.

    One timer serves any number of waits, one after the other. (`asyncio.timeout` makes one for each, which costs more
    than a token of a stream may.) Close it at the end.
    """

    __slots__ = ("_cancelled", "_loop", "_task", "_timer", "expired")

    def __init__(self, within_s: float | None) -> None:
        self.expired = False
        self._cancelled = False
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()  # asked for once: it costs a system call each time
        if within_s is not None:
            self._timer = self._loop.call_later(max(0.0, within_s), self._expire)

    def close(self) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def __enter__(self) -> None:
        if self.expired:
            raise TimeoutError
        if self._timer is not None:
            self._task = asyncio.current_task(self._loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._cancelled and task is not None:
            self._cancelled = False
            # Where somebody else cancelled it too, it is cancelled.
            if task.uncancel() == 0 and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def _expire(self) -> None:
        self.expired = True
        if self._task is not None:
            self._cancelled = True
            self._task.cancel()
