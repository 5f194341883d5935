"""What engines and backends may offer between absent and warm: notes on a climb, its peak, sleep. Knows no pool."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from backends.contract import Backend, Engine


class StartNote:
    """What is known of a climb under way: its `phase` in words, and `said`, what its process printed last."""

    __slots__ = ("phase", "said")

    def __init__(self) -> None:
        self.phase = ""
        self.said: Callable[[], str] = str


@runtime_checkable
class NotingEngine(Engine, Protocol):
    """An engine that tells of a start while it lasts."""

    async def climb(self, note: StartNote) -> Backend:
        """Do as `start` does, and keep `note` true."""
        ...


@runtime_checkable
class SleepingBackend(Backend, Protocol):
    """A backend that may give its device back and keep its weights, and is woken sooner than started."""

    @property
    def can_sleep(self) -> bool:
        """Whether this one can."""
        ...

    async def sleep(self) -> None:
        """Return when it sleeps; it has no job and gets none. Raises `SleepFailed`. The caller sets the deadline."""
        ...

    async def wake(self) -> None:
        """Return when a real inference has passed; raises `StartFailed`. The caller sets the deadline."""
        ...


@runtime_checkable
class PeakingBackend(Backend, Protocol):
    """A backend that knows what it held at most."""

    def peak_bytes(self) -> int:
        """Return the most host memory that it has held since its start; 0 where that is not known."""
        ...


@runtime_checkable
class ProcessBackend(Backend, Protocol):
    """A backend that knows its processes."""

    def pids(self) -> Sequence[int]:
        """Return their numbers, as known of late."""
        ...


class SleepFailed(Exception):
    """It did not fall asleep, and may be in any state."""
