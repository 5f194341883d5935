"""Work that nobody shares: its only seat, and what all kinds of seats need. Knows no key and no other seats."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

_log = logging.getLogger(__name__)
_STRETCHES_A_BOUND = 16

T = TypeVar("T")


class Limits(Generic[T]):
    """What a flight may keep, and how long it waits for the slow."""

    __slots__ = ("bound", "patience_s", "stretch", "weigh")

    def __init__(self, bound: int, weigh: Callable[[T], int] | None, patience_s: float) -> None:
        self.bound = bound
        self.stretch = max(1, bound // _STRETCHES_A_BOUND)
        self.weigh = weigh
        self.patience_s = patience_s


class Tap(Generic[T]):
    """Lets work give an item to its flight without waiting: call it with one, and it tells whether that was taken.

    The work may call it while its flight waits for the next item of it. What was not taken comes as it always does.
    """

    __slots__ = ("take",)

    def __init__(self) -> None:
        self.take: Callable[[T], bool] | None = None

    def __call__(self, item: T) -> bool:
        """Give an item, and tell whether it was taken."""
        take = self.take
        return take is not None and take(item)


class Left:
    """What is left in the end: the `async with` form of `leave`."""

    __slots__ = ()

    async def leave(self) -> None:
        """Give up the seat."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()


class Seated(Left, Generic[T]):
    """What both kinds of seat have in common."""

    __slots__ = ("_taker",)

    def __init__(self) -> None:
        self._taker: Callable[[T], bool] | None = None

    def give_to(self, taker: Callable[[T], bool]) -> None:
        """Call `taker` with an item that comes while this waits for one; where it takes it, this waits on."""
        self._taker = taker


class Alone(Seated[T]):
    """The only seat of work that nobody shares: no task, and no buffer unless the items are wanted at the end."""

    __slots__ = ("_items", "_left", "_on_complete", "_source", "_weigh")

    leader = True

    def __init__(
        self, source: AsyncIterator[T], on_complete: Callable[[Sequence[T]], None] | None, limits: Limits[T]
    ) -> None:
        super().__init__()
        self._source = source
        self._on_complete = on_complete
        self._items: list[T] | None = None if on_complete is None else []
        self._weigh = limits.weigh
        self._left = limits.bound

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

    def take(self, item: T) -> bool:
        """Give an item to the reader, who waits for it; False where that one would rather be woken."""
        taker = self._taker
        if taker is None or not taker(item):
            return False
        if self._items is not None:
            self._record(item, self._items)
        return True

    async def leave(self) -> None:
        """Close the work."""
        self._items = None
        await close(self._source)

    def _record(self, item: T, items: list[T]) -> None:
        self._left -= 1 if self._weigh is None else self._weigh(item)
        if self._left < 0:
            self._items = None  # past the bound it is not remembered
        else:
            items.append(item)

    def _finish(self) -> None:
        items, self._items = self._items, None
        if items is not None and self._on_complete is not None and not is_cancelling():
            complete(self._on_complete, items)


def complete(on_complete: Callable[[Sequence[T]], None], items: Sequence[T]) -> None:
    """Give all items to the hook; an error of it is logged."""
    try:
        on_complete(items)
    except Exception:  # noqa: BLE001 - the hook may raise anything, and the log has it
        # The answer is whole; that it could not be remembered is no reason to fail those who wait for it.
        _log.exception("the hook of a completed flight failed")


def is_cancelling() -> bool:
    """Tell whether the task that runs has been told to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def close(source: AsyncIterator[T]) -> None:
    """Close a generator; iterators that are none have nothing to close."""
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()
