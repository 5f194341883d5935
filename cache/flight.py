"""Single-flight: equal requests in flight share one stream of work. Knows nothing of what flows or of caches.

The work belongs to the flight, not to whoever came first: it runs until it ends or its last seat leaves. What it
produces is kept once, and every seat reads it with a cursor of its own, from the start and then live, so that a slow
one holds up nobody.

That is so up to a bound. Work that goes past it goes on for those who read it, but it is no longer shared with
newcomers, nor remembered at the end; what all seats have passed is dropped. From then on it is made in stretches of a
sixteenth of the bound, and none begins before every seat has come to the one before it. A seat that does not come
within `patience_s`, while another has, loses its place with an error of its own; where all are slow, the work waits.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from cache.alone import Alone, Limits, Seated, Tap, close, complete, is_cancelling

# How long the slow may hold up the rest: less than clients and proxies commonly wait for a stream's next piece.
PATIENCE_S = 30.0

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class FlightLaggedError(Exception):
    """The seat read too slowly while others waited for it, and lost its place."""


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

    def give_to(self, taker: Callable[[T_co], bool]) -> None:
        """Call `taker` with an item that comes while iteration waits for one; where it takes it, nobody is woken."""
        ...

    async def leave(self) -> None:
        """Give up the seat; the last one to leave cancels the work. Leaving twice is leaving once."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SingleFlight(Generic[T]):
    """The flights in the air, by key. `bound` is what one of them keeps at most, by `weigh`: of items, where not told.

    An item weighs at least 1, so that no work is without an end to its sharing.
    """

    def __init__(
        self, bound: int = 100_000, weigh: Callable[[T], int] | None = None, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._limits = Limits(bound, weigh, patience_s)
        self._flights: dict[bytes, _Flight[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def join(
        self,
        key: bytes | None,
        make: Callable[[], AsyncIterator[T]],
        on_complete: Callable[[Sequence[T]], None] | None = None,
        tap: Tap[T] | None = None,
    ) -> Seat[T]:
        """Take a seat in the flight of this key, starting it with `make` if there is none; never waits.

        `on_complete` of the one who started it is called with all items when the work has ended well within the bound,
        before the key is freed: who comes later finds what it stored. Without a key the work is shared with nobody, and
        runs in the caller's task at the caller's pace. Enter the seat before awaiting anything else: a seat never left
        keeps its work alive. What `make` started may use the `tap`.
        """
        if key is None:
            alone = Alone(make(), on_complete, self._limits)
            if tap is not None:
                tap.take = alone.take
            return alone
        flight = self._flights.get(key)
        if flight is not None:
            return _Shared(flight, leader=False)
        flight = self._flights[key] = _Flight(self._flights, key, self._limits, on_complete)
        if tap is not None:
            tap.take = flight.take
        task = asyncio.create_task(flight.run(make), name="flight")
        flight.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(flight.land)
        return _Shared(flight, leader=True)

    def tap(self) -> Tap[T]:
        """Return a tap for work that is to `join`."""
        return Tap()

    def waiters(self, key: bytes) -> int:
        """Return how many seats the flight of this key has; 0 if there is none."""
        flight = self._flights.get(key)
        return 0 if flight is None else len(flight.seats)

    @property
    def seats(self) -> int:
        """How many seats are taken in all flights that others may join."""
        return sum(len(flight.seats) for flight in self._flights.values())

    async def close(self, deadline_s: float = 5.0) -> None:
        """Cancel all work, and wait for it to clean up within the deadline; seats still taken get an error."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=deadline_s)


class _Stretch(Generic[T]):
    """Some items in a row. Only who is not past it holds it, so it goes with the last of them."""

    __slots__ = ("items", "next")

    def __init__(self) -> None:
        self.items: list[T] = []
        self.next: _Stretch[T] | None = None


class _Flight(Generic[T]):
    """One piece of work and what it has produced. Ended at most once, by `_end`."""

    __slots__ = (
        "_flights",
        "_key",
        "_left",
        "_limits",
        "_on_complete",
        "_room",
        "ended",
        "error",
        "first",
        "last",
        "seats",
        "sleepers",
        "task",
    )

    def __init__(
        self,
        flights: "dict[bytes, _Flight[T]]",
        key: bytes,
        limits: Limits[T],
        on_complete: Callable[[Sequence[T]], None] | None,
    ) -> None:
        self.first: _Stretch[T] | None = _Stretch()
        """The whole bound, where newcomers begin; None once the work has gone past it."""
        self.last = self.first
        self.seats: set[_Shared[T]] = set()
        self.sleepers: list[_Shared[T]] = []
        self.ended = False
        self.error: Exception | None = None
        self.task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._flights = flights
        self._key = key
        self._limits = limits
        self._left = limits.bound
        self._on_complete = on_complete

    async def run(self, make: Callable[[], AsyncIterator[T]]) -> None:
        try:
            source = make()
            try:
                async for item in source:
                    if not self.take(item):
                        await self._go_past()
                        self.take(item)
            finally:
                await close(source)
        except Exception as error:  # noqa: BLE001 - carried to every seat, which raises it
            self._end(error)
        else:
            # Work that swallowed a cancellation ends as if well, but what it produced is not whole.
            self._end(FlightCancelledError("the work was cancelled") if is_cancelling() else None)

    def take(self, item: T) -> bool:
        """Keep an item for all seats; False where this stretch has no room for it, as it always has for a first."""
        weigh, items = self._limits.weigh, self.last.items
        weight = 1 if weigh is None else weigh(item)
        if weight > self._left and items:
            return False
        self._left -= weight
        items.append(item)
        if self.sleepers:
            self._wake()
        return True

    async def _go_past(self) -> None:
        """Begin another stretch once all seats have come to the last one; from the first time on nobody may join."""
        self._free_key()
        self.first = self._on_complete = None
        while self._behind():
            try:
                async with asyncio.timeout(self._limits.patience_s):
                    while self._behind():
                        self._room = asyncio.get_running_loop().create_future()
                        await self._room
            except TimeoutError:
                behind = self._behind()
                if len(behind) < len(self.seats):
                    self._unseat(behind)
        before, self.last = self.last, _Stretch()
        before.next = self.last
        self._left = self._limits.stretch

    def _behind(self) -> "list[_Shared[T]]":
        return [seat for seat in self.seats if seat.stretch is not self.last]

    def _unseat(self, slow: "Sequence[_Shared[T]]") -> None:
        for seat in slow:
            self.seats.remove(seat)
            seat.lose(FlightLaggedError(f"others waited {self._limits.patience_s:g} s for this reader to go on"))

    def moved(self) -> None:
        """Have the work look again whether it may go on: a seat was left, or has come to the next stretch."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

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
            assert self.first is not None, "past the bound the hook is gone"
            complete(self._on_complete, self.first.items)
        self._free_key()
        self._wake()

    def _free_key(self) -> None:
        if self._flights.get(self._key) is self:
            del self._flights[self._key]

    def _wake(self) -> None:
        sleepers, self.sleepers = self.sleepers, []
        for seat in sleepers:
            seat.wake()


class _Shared(Seated[T]):
    """A seat in a flight: a cursor over its items."""

    __slots__ = ("_cursor", "_flight", "_items", "_lost", "_sleeper", "leader", "stretch")

    def __init__(self, flight: _Flight[T], *, leader: bool) -> None:
        super().__init__()
        assert flight.first is not None, "past the bound a flight has no key"
        self.leader = leader
        self.stretch = flight.first
        self._items = flight.first.items
        self._cursor = 0
        self._flight = flight
        self._lost: FlightLaggedError | None = None
        self._sleeper: asyncio.Future[None] | None = None
        flight.seats.add(self)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while self._cursor == len(self._items):
            flight = self._flight
            if self.stretch.next is not None:
                self._move_on(self.stretch.next)
                continue
            if self._lost is not None:
                raise self._lost
            if flight.error is not None:
                raise flight.error
            if flight.ended:
                raise StopAsyncIteration
            self._sleeper = asyncio.get_running_loop().create_future()
            flight.sleepers.append(self)
            await self._sleeper
        item = self._items[self._cursor]
        self._cursor += 1
        return item

    def wake(self) -> None:
        """Go on after a sleep, unless what came is taken at once."""
        sleeper = self._sleeper
        if sleeper is None or sleeper.done():  # who is being cancelled takes nothing more
            return
        if self._taker is not None and self._cursor < len(self._items) and self._taker(self._items[self._cursor]):
            self._cursor += 1
            self._flight.sleepers.append(self)
        else:
            sleeper.set_result(None)

    def lose(self, error: FlightLaggedError) -> None:
        """Read nothing more: what was still to be read is let go of, and the next wait raises the error."""
        self._lost = error
        self._move_on(_Stretch())

    async def leave(self) -> None:
        flight = self._flight
        if self not in flight.seats:
            return
        flight.seats.remove(self)
        if not flight.seats:
            flight.abandon()
        flight.moved()

    def _move_on(self, stretch: _Stretch[T]) -> None:
        self.stretch = stretch
        self._items = stretch.items
        self._cursor = 0
        self._flight.moved()
