"""A replica on its way: brought up, watched, put to sleep, woken. Knows nothing of queues or of why it should live."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from backends.contract import Backend, Engine, StartFailed
from backends.replica import Replica
from backends.sleeping import NotingEngine, SleepFailed, StartNote

MEMORY_SAMPLE_S = 5.0


async def bring_up(engine: Engine, replica: Replica, timeout_s: float) -> Backend | None:
    """Start a backend; return `None` when the replica is told to stop meanwhile.

    Raises `StartFailed`, also when `timeout_s` has passed. Nothing of the start is left behind in either case.
    """
    begin = engine.climb(replica.note) if isinstance(engine, NotingEngine) else engine.start()
    start = asyncio.ensure_future(begin)
    stop = asyncio.ensure_future(replica.stopping.wait())
    backend: Backend | None = None
    try:
        await asyncio.wait({start, stop}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            return None
        if not start.done():
            raise StartFailed(f"not ready after {timeout_s:g} s, the limit for a start{_known_of(replica.note)}")
        backend = start.result()
        return backend
    finally:
        await _end(stop)
        if backend is None:
            await _undo(start)


async def watch(backend: Backend, replica: Replica, sample: Callable[[int], None]) -> str | None:
    """Watch a backend until it ends (return why), or it is told to stop or to move (return `None`).

    `sample` gets its memory.
    """
    ended = asyncio.ensure_future(backend.wait_exit())
    told = [asyncio.ensure_future(event.wait()) for event in (replica.stopping, replica.moved)]
    try:
        while True:
            await asyncio.wait({ended, *told}, timeout=MEMORY_SAMPLE_S, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return ended.result()
            if any(each.done() for each in told):
                return None
            sample(backend.memory_bytes())
    finally:
        await _end(ended, *told)


async def doze(backend: Backend, replica: Replica, timeout_s: float) -> str | None:
    """Put a replica to sleep; return as `watch` does. Raises `SleepFailed`, also when `timeout_s` has passed."""
    assert replica.sleeping is not None
    try:
        return await _move(replica.sleeping.sleep(), backend, replica, timeout_s)
    except TimeoutError:
        raise SleepFailed(f"not asleep after {timeout_s:g} s") from None


async def rouse(backend: Backend, replica: Replica, timeout_s: float) -> str | None:
    """Wake a replica; return as `watch` does. Raises `StartFailed`, also when `timeout_s` has passed."""
    assert replica.sleeping is not None
    try:
        return await _move(replica.sleeping.wake(), backend, replica, timeout_s)
    except TimeoutError:
        raise StartFailed(f"not awake after {timeout_s:g} s, the limit for a start") from None


async def _move(work: Coroutine[Any, Any, None], backend: Backend, replica: Replica, timeout_s: float) -> str | None:
    """Do the work of a move between two levels; return why the backend ended where it did.

    It is broken off where the replica is told to stop. Raises `TimeoutError` and what the work raises.
    """
    doing = asyncio.ensure_future(work)
    ended = asyncio.ensure_future(backend.wait_exit())
    stop = asyncio.ensure_future(replica.stopping.wait())
    try:
        await asyncio.wait({doing, ended, stop}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            return ended.result()
        if doing.done():
            doing.result()
        elif not stop.done():
            raise TimeoutError
        return None
    finally:
        await _end(doing, ended, stop)


def _known_of(note: StartNote) -> str:
    """Say what a start was at when it was given up, and what its process printed."""
    said = note.said()
    return (f"; {note.phase}" if note.phase else "") + (f"\nits last lines:\n{said}" if said else "")


async def _end(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks, all before the first wait, and wait for their ends; what they raise is of no interest any more."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()


async def _undo(start: "asyncio.Future[Backend]") -> None:
    """Cancel a start; where it had come through after all, close what it made."""
    await _end(start)
    if not start.cancelled() and start.exception() is None:
        with suppress(asyncio.CancelledError):
            await start.result().close()
