"""What the tests of the batch queue share: a database that crashes at a chosen step, drafts, a thread that is none."""

import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from gateway.batch.contract import Draft
from gateway.batch.ledger import Ledger


class Crash(BaseException):
    """The process ends here, as far as the ledger can tell."""


class CrashingConnection(sqlite3.Connection):
    """A connection whose process ends before the statement number `steps_left`, or after it, where it is fractional."""

    steps_left: float | None = None

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """Execute, or crash before or after."""
        return self._crashing(super().execute, *args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        """Execute, or crash before or after."""
        return self._crashing(super().executemany, *args)

    def _crashing(self, execute: Callable[..., sqlite3.Cursor], *args: Any) -> sqlite3.Cursor:
        if self.steps_left is None:
            return execute(*args)
        self.steps_left -= 1
        if self.steps_left <= -1:
            raise Crash
        cursor = execute(*args)
        if self.steps_left <= -0.5:
            raise Crash
        return cursor


def open_ledger(directory: Path) -> tuple[Ledger, CrashingConnection]:
    """Open a ledger whose connection can crash."""
    made: list[CrashingConnection] = []

    def connect(path: Path, **options: Any) -> CrashingConnection:
        made.append(sqlite3.connect(path, factory=CrashingConnection, **options))
        return made[0]

    return Ledger(directory, connect), made[0]


def after_crash(directory: Path, fresh: Path) -> Path:
    """Return a copy of what the files hold now, as the next process finds them."""
    fresh.mkdir()
    for name in ("batch.db", "batch.db-wal"):
        if (directory / name).exists():
            shutil.copyfile(directory / name, fresh / name)
    return fresh


class NoThread(Executor):
    """Does what is submitted at once, where the caller stands."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do it."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future carries it to who asked
            future.set_exception(error)
        return future


def draft(
    name: str, *, scope: str = "", callback_url: str | None = None, key: str | None = None, digest: bytes = b"d"
) -> Draft:
    """Make a draft of this id."""
    return Draft(
        id=name,
        scope=scope,
        model="a",
        operation="generate",
        parameters={"max_tokens": 4},
        callback_url=callback_url,
        idempotency_key=key,
        digest=digest,
        created_at=1.0,
    )
