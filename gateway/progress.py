"""What a client of a stream is told while it waits for a model that is not up: comments between events, never text.

A line that begins with a colon is none of an event's (WHATWG HTML, "Server-sent events", 9.2.6), so that every client
of such a stream passes over it. Knows no wire and no pool.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from backends.contract import Job, Task
from gateway.query import Outcome
from gateway.router import Coming, Way
from gateway.surfaces.wire import SSE, Outlet, Reply

# Whatever is known so soon still has a status and headers of its own: a refusal, a hit, a failed start.
PATIENCE_S = 2.0
EVERY_S = 5.0

_DOING = {
    Way.START: "starting",
    Way.STARTING: "starting",
    Way.WAKE: "waking",
    Way.QUEUE: "waiting for",
    Way.ROOM: "waiting for memory for",
}


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a stream waits in silence at first, and then between two comments."""

    patience_s: float = PATIENCE_S
    every_s: float = EVERY_S


class Waiting:
    """A request of a stream whose models are not up: its outcome, once there is one, and what to tell until then.

    `coming` tells how the request would come to a model at the moment, `leave` gives up an outcome that nobody reads.
    """

    def __init__(
        self,
        answering: Coroutine[Any, Any, Outcome],
        coming: Callable[[], Coming | None],
        leave: Callable[[Outcome], Awaitable[None]],
        pace: Pace,
    ) -> None:
        self._task = asyncio.create_task(answering, name="answer of a stream that waits")
        self._coming = coming
        self._leave = leave
        self._pace = pace

    async def at_once(self) -> Outcome | None:
        """Return the outcome, or raise what came of it, where that is soon; else None, and `told` is to follow."""
        try:
            return await self._within(self._pace.patience_s)
        except BaseException:
            await self._close()
            raise

    async def told(
        self, outlet: Outlet, go_on: Callable[[Outcome], Awaitable[Reply]], failed: Callable[[Exception], bytes]
    ) -> AsyncIterator[bytes]:
        """Yield comments until there is an outcome, then what `go_on` makes of it; an error is told by `failed`."""
        outcome, told_s = None, math.inf
        try:
            while outcome is None:
                coming = self._coming()
                told_s = told_s if coming is None else min(told_s, coming.wait.p50_s)
                yield comment(coming, told_s)
                outcome = await self._within(self._pace.every_s)
            reply = await go_on(outcome)
        except Exception as error:  # noqa: BLE001 - the status has been sent: whatever went wrong is told in the stream
            yield failed(error)
            return
        finally:
            if outcome is None:
                await self._close()
        if isinstance(reply.body, bytes):
            yield reply.body
            return
        if reply.outlet is not None:
            reply.outlet.write = outlet.write
        async with aclosing(cast("Any", reply.body)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _within(self, seconds: float) -> Outcome | None:
        await asyncio.wait({self._task}, timeout=seconds)
        return self._task.result() if self._task.done() else None

    async def _close(self) -> None:
        """End the work, or give up its outcome where it had one by then."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled() and self._task.exception() is None:
            await self._leave(self._task.result())


def may_be_told(job: Job) -> bool:
    """Tell whether a job's client reads server-sent events; what is relayed may stream anything."""
    return job.stream and job.task in (Task.CHAT, Task.COMPLETION)


def head(request_headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a stream that begins with comments, with those that tell of its request."""
    return {"Content-Type": SSE, "X-Accel-Buffering": "no", **request_headers}


def comment(coming: Coming | None, most_s: float = math.inf) -> bytes:
    """Write what a request waits for as a comment; None: nothing but the model's first word.

    No more than `most_s` are told to be left: what was told before is not taken back, however long it takes.
    """
    if coming is None or coming.way is Way.FREE:
        return b": at work\n\n"
    left_s = min(most_s, coming.wait.p50_s)
    left = f"about {math.ceil(left_s)} s left" if left_s > 0 else "any moment now"
    return f": {_DOING[coming.way]} {_plain(coming.model)}, {left}\n\n".encode()


def _plain(name: str) -> str:
    return "".join(char if char.isprintable() else " " for char in name)
