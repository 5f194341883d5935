"""Makes answers anew that were served stale: in the background, each once at a time, and never more than a few.

Knows no cache and no model.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine

from backends.contract import BackendError
from gateway.counting.telemetry import Telemetry
from gateway.errors import RequestRefused

_log = logging.getLogger(__name__)

_MOST_AT_A_TIME = 64


class Renewals:
    """Owns the renewals under way, by key. Each ends within `deadline_s`; one that fails leaves the stale answer."""

    def __init__(self, telemetry: Telemetry, deadline_s: float, most: int = _MOST_AT_A_TIME) -> None:
        self._telemetry = telemetry
        self._deadline_s = deadline_s
        self._most = most
        self._tasks: dict[bytes, asyncio.Task[None]] = {}

    def begin(self, key: bytes, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Begin a renewal, unless it is under way or there are too many; never waits."""
        if key in self._tasks:
            return
        if len(self._tasks) >= self._most:
            self._telemetry.renewal("dropped")
            return
        task = self._tasks[key] = asyncio.create_task(self._run(work), name="renewal")
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def close(self) -> None:
        """Cancel what is under way, and wait for its end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                await work()
        except (BackendError, RequestRefused, TimeoutError) as error:
            self._telemetry.renewal(type(error).__name__)
        except Exception:  # noqa: BLE001 - nobody waits for it; the log has it
            self._telemetry.renewal("internal error")
            _log.exception("an answer could not be renewed")
        else:
            self._telemetry.renewal("renewed")
