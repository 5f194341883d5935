"""Single-flight: equal requests in flight share one stream of work. Knows nothing of what flows or of caches.

The work belongs to the flight, not to whoever came first: it runs until it ends or its last seat leaves. What it
produces is kept once, and every seat reads it with a cursor of its own, from the start and then live, so that a slow
one holds up nobody.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

_log = logging.getLogger(__name__)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class FlightOverflowError(Exception):
    """The work produced more items than a flight may keep."""


class FlightCancelledError(Exception):
    """The work was cancelled from outside while seats still waited for it."""


class Seat(Protocol[T_co]):
    """One requester's view of the work: iterate it for the items, and `leave` it, best by `async with`.

    Iteration raises what the work raised, after the items that came before.
    """

    @property
    def leader(self) -> bool:
        """Whether the work was started for this seat."""
        ...

    def __aiter__(self) -> AsyncIterator[T_co]: ...

    async def __anext__(self) -> T_co: ...

    async def leave(self) -> None:
        """Give up the seat; the last one to leave cancels the work. Leaving twice is leaving once."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SingleFlight(Generic[T]):
    """The flights in the air, by key. `max_items` bounds what one of them keeps."""

    def __init__(self, max_items: int = 100_000) -> None:
        self._max_items = max_items
        self._flights: dict[bytes, _Flight[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def join(
        self,
        key: bytes | None,
        make: Callable[[], AsyncIterator[T]],
        on_complete: Callable[[Sequence[T]], None] | None = None,
    ) -> Seat[T]:
        """Take a seat in the flight of this key, starting it with `make` if there is none; never waits.

        `on_complete` of the one who started it is called with all items when the work has ended well, before the key is
        freed: who comes later finds what it stored. Without a key the work is shared with nobody, and runs in the
        caller's task at the caller's pace. Enter the seat before awaiting anything else: a seat never left keeps its
        work alive.
        """
        if key is None:
            return _Alone(make(), on_complete, self._max_items)
        flight = self._flights.get(key)
        if flight is not None:
            return _Shared(flight, leader=False)
        flight = self._flights[key] = _Flight(self._flights, key, self._max_items, on_complete)
        task = asyncio.create_task(flight.run(make), name="flight")
        flight.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(flight.land)
        return _Shared(flight, leader=True)

    def waiters(self, key: bytes) -> int:
        """Return how many seats the flight of this key has; 0 if there is none."""
        flight = self._flights.get(key)
        return 0 if flight is None else flight.seats

    @property
    def seats(self) -> int:
        """How many seats are taken in all flights."""
        return sum(flight.seats for flight in self._flights.values())

    async def close(self, deadline_s: float = 5.0) -> None:
        """Cancel all work, and wait for it to clean up within the deadline; seats still taken get an error."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=deadline_s)


class _Flight(Generic[T]):
    """One piece of work and what it has produced. Ended at most once, by `_end`."""

    __slots__ = (
        "_flights",
        "_key",
        "_max_items",
        "_on_complete",
        "ended",
        "error",
        "items",
        "seats",
        "sleepers",
        "task",
    )

    def __init__(
        self,
        flights: "dict[bytes, _Flight[T]]",
        key: bytes,
        max_items: int,
        on_complete: Callable[[Sequence[T]], None] | None,
    ) -> None:
        self.items: list[T] = []
        self.seats = 0
        self.sleepers: list[asyncio.Future[None]] = []
        self.ended = False
        self.error: Exception | None = None
        self.task: asyncio.Task[None] | None = None
        self._flights = flights
        self._key = key
        self._max_items = max_items
        self._on_complete = on_complete

    async def run(self, make: Callable[[], AsyncIterator[T]]) -> None:
        items = self.items
        try:
            source = make()
            try:
                async for item in source:
                    if len(items) == self._max_items:
                        raise FlightOverflowError(f"work produced more than {self._max_items} items")
                    items.append(item)
                    if self.sleepers:
                        self._wake()
            finally:
                await _close(source)
        except Exception as error:  # noqa: BLE001 - carried to every seat, which raises it
            self._end(error)
        else:
            # Work that swallowed a cancellation ends as if well, but what it produced is not whole.
            self._end(FlightCancelledError("the work was cancelled") if _is_cancelling() else None)

    def land(self, _task: "asyncio.Task[None]") -> None:
        """End a flight whose task was cancelled, perhaps before its first step; the others have ended already."""
        if not self.ended:
            self._end(FlightCancelledError("the work was cancelled"))

    def abandon(self) -> None:
        """Cancel work that nobody waits for any more, and free its key at once.

        The order matters. A newcomer may join between this call and the end of the cancelled task, which needs at least
        one more turn of the loop, or as long as the work takes to clean up. Were the key still taken, the newcomer
        would get a seat in work that is about to die, and with it a cancellation that was never meant for it. With the
        key freed first it starts work of its own; and because the old task frees the key only where it is still its
        own, its late end cannot free the newcomer's.
        """
        self._free_key()
        if self.task is not None and not self.ended:
            self.task.cancel()

    def _end(self, error: Exception | None) -> None:
        """Finish without a pause: hook, key, seats. Who joins sees the flight in the air, or what the hook stored."""
        self.ended = True
        self.error = error
        if error is None and self._on_complete is not None:
            _complete(self._on_complete, self.items)
        self._free_key()
        self._wake()

    def _free_key(self) -> None:
        if self._flights.get(self._key) is self:
            del self._flights[self._key]

    def _wake(self) -> None:
        sleepers, self.sleepers = self.sleepers, []
        for sleeper in sleepers:
            if not sleeper.done():
                sleeper.set_result(None)


class _Seated(Generic[T]):
    """What both kinds of seat have in common: the `async with` form of leaving."""

    __slots__ = ()

    async def leave(self) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()


class _Shared(_Seated[T]):
    """A seat in a flight: a cursor over its items."""

    __slots__ = ("_cursor", "_flight", "_left", "leader")

    def __init__(self, flight: _Flight[T], *, leader: bool) -> None:
        self.leader = leader
        self._flight = flight
        self._cursor = 0
        self._left = False
        flight.seats += 1

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        flight = self._flight
        while self._cursor == len(flight.items):
            if flight.error is not None:
                raise flight.error
            if flight.ended:
                raise StopAsyncIteration
            sleeper = asyncio.get_running_loop().create_future()
            flight.sleepers.append(sleeper)
            await sleeper
        item = flight.items[self._cursor]
        self._cursor += 1
        return item

    async def leave(self) -> None:
        if self._left:
            return
        self._left = True
        self._flight.seats -= 1
        if self._flight.seats == 0:
            self._flight.abandon()


class _Alone(_Seated[T]):
    """The only seat of work that nobody shares: no task, and no buffer unless the items are wanted at the end."""

    __slots__ = ("_items", "_max_items", "_on_complete", "_source")

    leader = True

    def __init__(
        self, source: AsyncIterator[T], on_complete: Callable[[Sequence[T]], None] | None, max_items: int
    ) -> None:
        self._source = source
        self._on_complete = on_complete
        self._items: list[T] | None = None if on_complete is None else []
        self._max_items = max_items

    def __aiter__(self) -> AsyncIterator[T]:
        return self._source if self._items is None else self

    async def __anext__(self) -> T:
        try:
            item = await anext(self._source)
        except StopAsyncIteration:
            self._finish()
            raise
        if self._items is not None:
            self._record(item, self._items)
        return item

    async def leave(self) -> None:
        self._items = None
        await _close(self._source)

    def _record(self, item: T, items: list[T]) -> None:
        if len(items) == self._max_items:
            raise FlightOverflowError(f"work produced more than {self._max_items} items")
        items.append(item)

    def _finish(self) -> None:
        items, self._items = self._items, None
        if items is not None and self._on_complete is not None and not _is_cancelling():
            _complete(self._on_complete, items)


def _complete(on_complete: Callable[[Sequence[T]], None], items: Sequence[T]) -> None:
    try:
        on_complete(items)
    except Exception:  # noqa: BLE001 - the hook may raise anything, and the log has it
        # The answer is whole; that it could not be remembered is no reason to fail those who wait for it.
        _log.exception("the hook of a completed flight failed")


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _close(source: AsyncIterator[T]) -> None:
    # Iterators that are not generators have nothing to close.
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()
