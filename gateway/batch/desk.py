"""The thread that the ledger lives in, so that no disk makes the event loop wait. Knows no table."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from gateway.batch.ledger import Ledger

P = ParamSpec("P")
R = TypeVar("R")


class Desk:
    """Does things to the ledger, one after the other, in the order in which they were asked for."""

    def __init__(self, directory: Path, thread: Executor | None = None) -> None:
        self._directory = directory
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="batch")
        self._ledger: Ledger | None = None

    async def open(self) -> None:
        """Open the ledger. Raises `OSError`."""
        self._ledger = await asyncio.get_running_loop().run_in_executor(self._thread, Ledger, self._directory)

    async def do(self, action: Callable[Concatenate[Ledger, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do one thing. Raises `sqlite3.Error`, and what the action raises.

        Who is cancelled while he waits does not know whether it was done.
        """
        ledger = self._ledger
        assert ledger is not None, "`open` comes first"
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: action(ledger, *args, **kwargs))

    async def close(self) -> None:
        """Close the ledger after all that was asked for is done."""
        if self._ledger is not None:
            await self.do(Ledger.close)
            self._ledger = None
        self._thread.shutdown(wait=False)
