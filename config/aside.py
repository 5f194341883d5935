"""Calls what may hang, as reading a file of a mount that does not answer. Knows nothing of what is called."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from queue import Queue
from threading import Thread
from typing import Any, ParamSpec, TypeVar

HANGS_AFTER_S = 10.0
# What hangs is asked for again now and then; nothing is gained by more that wait behind it.
_MAX_WAITING = 8

P = ParamSpec("P")
T = TypeVar("T")


class HangsError(Exception):
    """A call has not returned in time; it may still hang."""


class Aside:
    """One thread for calls that block. The end of the process does not wait for it, as it would for an executor's."""

    def __init__(self, within_s: float = HANGS_AFTER_S) -> None:
        self._within_s = within_s
        self._calls: Queue[tuple[Future[Any], Callable[[], Any]] | None] = Queue(_MAX_WAITING + 1)
        self._thread: Thread | None = None

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the function returns, or raise what it raises. Raises `HangsError` where it takes too long."""
        future: Future[T] = Future()
        if self._thread is None:
            self._thread = Thread(target=_work, args=(self._calls,), name="aside", daemon=True)
            self._thread.start()
        try:
            if self._calls.qsize() < _MAX_WAITING:
                self._calls.put_nowait((future, lambda: function(*args, **kwargs)))
            # Not `wait_for`: until Python 3.12 that loses a cancellation that comes with the result.
            async with asyncio.timeout(self._within_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if future.done() and not future.cancelled():
                raise  # the function's own
            raise HangsError(f"nothing has come within {self._within_s:g} s") from None

    def close(self) -> None:
        """Let the thread end once it has nothing to do; one that hangs ends when that does."""
        if self._thread is not None:
            self._calls.put_nowait(None)
            self._thread = None


def _work(calls: "Queue[tuple[Future[Any], Callable[[], Any]] | None]") -> None:
    while (call := calls.get()) is not None:
        future, function = call
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised to who called
                future.set_exception(error)
