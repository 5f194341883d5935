"""One JSON line for each request that has ended, for the operator and the tuner: no prompt, no answer, no key in it.

Lines wait in memory, a bounded number of them, and a thread writes them every second; what finds no room is counted.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import orjson

_log = logging.getLogger(__name__)

MOST_WAITING = 100_000
_EVERY_S = 1.0
_HANGS_AFTER_S = 5.0

CLIENT_LEFT = 499
"""The status of a request whose client left before its end; nginx' word for it."""
BROKEN_OFF = 502
"""The status of a request whose answer broke off after it had begun."""


class Entry(NamedTuple):
    """One request: when it came (Unix time), the model that answered (or that was asked for), and how it went.

    `cache` is the word of the metrics: the tier of a hit, `collapsed`, or why it went on to a model. `service_s` is
    what the model took, `wait_s` what came before: the queue, and the start of a replica.
    """

    timestamp_s: float
    model: str
    service_s: float
    cache: str
    status: int
    wait_s: float


class AccessLog:
    """Where the requests are written to; nowhere while `file` is None."""

    def __init__(
        self,
        *,
        wall_clock: Callable[[], float] = time.time,
        most_waiting: int = MOST_WAITING,
        patience_s: float = _HANGS_AFTER_S,
    ) -> None:
        self.file: Path | None = None
        self.written = 0
        self.dropped = 0
        self._wall_clock = wall_clock
        self._most_waiting = most_waiting
        self._waiting: list[Entry] = []
        self._in_trouble = False
        self._patience_s = patience_s
        self._last: tuple[Path, Future[None]] | None = None

    def note(
        self, model: str, *, total_s: float, cache: str, status: int, away_s: float = 0.0, wait_s: float = 0.0
    ) -> None:
        """Note a request that has ended now, `total_s` after it came. Of these it waited `wait_s` for a replica.

        `away_s` is what went into other things than the model's work, the wait among them.
        """
        if self.file is None:
            return
        if len(self._waiting) >= self._most_waiting:
            self.dropped += 1
            return
        came = self._wall_clock() - total_s
        self._waiting.append(Entry(came, model, max(0.0, total_s - away_s), cache, status, wait_s))

    async def write(self) -> None:
        """Write what waits. A file that cannot be written, or not in time, costs these lines, and is told of once.

        While it hangs, more lines wait.
        """
        file = self.file
        if self._last is not None and self._last[0] == file and not self._last[1].done():
            return
        lines, self._waiting = self._waiting, []
        if not lines or file is None:
            return
        try:
            await self._written(file, lines)
        except OSError as error:
            self.dropped += len(lines)
            if not self._in_trouble:
                why = str(error) or f"nothing was written within {self._patience_s:g} s"
                _log.warning("the access log cannot be written: %s", why)
            self._in_trouble = True
        else:
            self.written += len(lines)
            self._in_trouble = False

    async def _written(self, file: Path, lines: Sequence[Entry]) -> None:
        """Return when the lines are written. Raises `OSError`, also when that takes too long.

        In a thread of its own: one that hangs, on a full pipe or a lost mount, holds neither others nor a stop.
        """
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()  # who waits no longer does not undo it
        self._last = file, done
        Thread(target=_append_aside, args=(done, file, lines), name="access log", daemon=True).start()
        async with asyncio.timeout(self._patience_s):
            await asyncio.wrap_future(done)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Write every second, and at the end."""
        stop = asyncio.Event()
        writing = asyncio.create_task(self._write_until(stop), name="access log")
        try:
            yield
        finally:
            stop.set()
            await writing

    async def _write_until(self, stop: asyncio.Event) -> None:
        is_last = False
        while not is_last:
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await stop.wait()
            is_last = stop.is_set()
            await self.write()


def _append_aside(done: "Future[None]", file: Path, entries: Sequence[Entry]) -> None:
    try:
        _append(file, entries)
    except BaseException as error:  # noqa: BLE001 - raised to who waits
        done.set_exception(error)
    else:
        done.set_result(None)


def _append(file: Path, entries: Sequence[Entry]) -> None:
    lines = b"".join(orjson.dumps(entry._asdict()) + b"\n" for entry in entries)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Opened each time, so that whoever rotates logs may rename it at any time.
    with open(file, "ab", opener=_open) as log:
        os.set_blocking(log.fileno(), True)
        log.write(lines)


def _open(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody reads is an error, and not waited for."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)
