"""Keeps what trust learned over a restart, in one SQLite file that one thread owns. Knows not what the states mean.

Labels, states and recent hits are written behind, a moment later and in one transaction; a refused pair is on disk
before the call that refused it returns.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from cache.trust.contract import Label, Pair

_log = logging.getLogger(__name__)
_R = TypeVar("_R")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS states (namespace TEXT, version TEXT, state TEXT, PRIMARY KEY (namespace, version));
CREATE TABLE IF NOT EXISTS refused (asked BLOB, stored BLOB, confidence REAL, at REAL, PRIMARY KEY (asked, stored));
CREATE TABLE IF NOT EXISTS labels (
    namespace TEXT, version TEXT, asked BLOB, stored BLOB, confidence REAL, served INTEGER, same INTEGER, source TEXT,
    share REAL, at REAL);
CREATE TABLE IF NOT EXISTS hits (id TEXT PRIMARY KEY, hit BLOB, at REAL);
CREATE INDEX IF NOT EXISTS labels_at ON labels (at);
CREATE INDEX IF NOT EXISTS hits_at ON hits (at);
"""
_BEHIND_S = 0.5
_MOST_PENDING = 4096
_LABELS_KEPT_S = 90 * 86400.0
_MOST_LABELS = 1_000_000
_HITS_KEPT_S = 86400.0
_MOST_HITS = 100_000
_PURGE_EVERY = 200  # writes

_TROUBLES = (sqlite3.Error, OSError)


class Refused(NamedTuple):
    """A pair that is never served again, and how confident one was of it."""

    pair: Pair
    confidence: float


@dataclass(frozen=True, slots=True)
class Kept:
    """What an earlier run left. `states` by namespace and version."""

    states: dict[tuple[str, str], str] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()


@dataclass(slots=True)
class JournalCounters:
    """What became of the writes: `lost` to a full queue or a failing disk."""

    written: int = 0
    lost: int = 0
    troubles: int = 0


class Journal:
    """The file. All methods are for the event loop's thread; the database is touched by its own thread alone."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self.counters = JournalCounters()
        self.states: Callable[[], Sequence[tuple[str, str, str]]] = tuple
        self._file = file
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache-trust")
        self._database: sqlite3.Connection | None = None
        self._pending: list[tuple[str, tuple[object, ...]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._writes = 0
        self._closed = False

    async def open(self) -> Kept:
        """Open the file and read what is in it; a corrupt one is moved aside, and nothing is remembered then."""
        try:
            return await self._call(self._open)
        except _TROUBLES as error:
            self.counters.troubles += 1
            _log.warning("%s cannot be opened: what is learned is not kept: %s", self._file, error)
            return Kept()

    def note_label(self, label: Label, version: str) -> None:
        """Write a label behind."""
        pair = label.pair
        row = (
            label.namespace, version, pair.asked, pair.stored, label.confidence, label.served, label.same,
            label.source, label.share, label.at,
        )  # fmt: skip
        self._behind("INSERT INTO labels VALUES (?,?,?,?,?,?,?,?,?,?)", row)

    def note_hit(self, request_id: str, hit: bytes, at: float) -> None:
        """Write behind what a request was served, for feedback on it."""
        self._behind("INSERT OR REPLACE INTO hits VALUES (?,?,?)", (request_id, hit, at))

    def note_states(self) -> None:
        """Write the states behind, as they are then."""
        self._start_timer()

    async def hit(self, request_id: str) -> bytes | None:
        """Return what `note_hit` kept, or None."""
        if self._closed:
            return None
        try:
            return await self._call(self._read_hit, request_id)
        except _TROUBLES:
            self.counters.troubles += 1
            return None

    async def refuse(self, refused: Refused) -> bool:
        """Write a refused pair down, and all that waits; tell whether it is on disk."""
        rows = [(_REFUSE, _row(refused, self._clock()))]
        if self._closed:
            return False
        try:
            await self._call(self._write, rows)
        except _TROUBLES as error:
            self.counters.troubles += 1
            _log.warning("a refused pair could not be written: %s", error)
            self._pending.extend(rows)
            self._start_timer()
            return False
        return True

    def refuse_behind(self, refused: Refused) -> None:
        """Write a refused pair down at once, without waiting for it."""
        self._behind(_REFUSE, _row(refused, self._clock()))
        self.flush()

    def flush(self) -> None:
        """Write what waits now; never waits."""
        if self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None and not self._writing.done():
            self._start_timer()
            return
        rows, self._pending = self._pending, []
        rows.extend(("INSERT OR REPLACE INTO states VALUES (?,?,?)", row) for row in self.states())
        if rows:
            self._writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write_behind, rows)

    async def close(self) -> None:
        """Write what waits, and close the file; what is told afterwards is lost."""
        while self._writing is not None and not self._writing.done():
            await asyncio.wait([self._writing])
        self.flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._closed = True
        await self._call(self._close)
        self._thread.shutdown(wait=False)

    def _behind(self, statement: str, row: tuple[object, ...]) -> None:
        if self._closed or len(self._pending) >= _MOST_PENDING:
            self.counters.lost += 1
            return
        self._pending.append((statement, row))
        self._start_timer()

    def _start_timer(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(_BEHIND_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.flush()

    def _call(self, call: Callable[..., _R], *args: object) -> asyncio.Future[_R]:
        return asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    def _open(self) -> Kept:
        try:
            return self._read_all(self._connect())
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            _log.warning("%s is corrupt (%s); moved to *.corrupt, what was learned is learned anew", self._file, error)
            self._close()
            for ending in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    path = self._file.with_name(self._file.name + ending)
                    path.replace(path.with_name(f"{path.name}.corrupt"))
            return self._read_all(self._connect())

    def _connect(self) -> sqlite3.Connection:
        if self._database is None:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            database = sqlite3.connect(self._file, timeout=2.0, isolation_level=None, check_same_thread=False)
            try:
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("PRAGMA synchronous=FULL")
                database.executescript(_SCHEMA)
            except sqlite3.Error:
                database.close()
                raise
            self._database = database
        return self._database

    def _read_all(self, database: sqlite3.Connection) -> Kept:
        states = {(row[0], row[1]): row[2] for row in database.execute("SELECT namespace, version, state FROM states")}
        rows = database.execute("SELECT asked, stored, confidence FROM refused")
        return Kept(states, tuple(Refused(Pair(row[0], row[1]), row[2]) for row in rows))

    def _read_hit(self, request_id: str) -> bytes | None:
        found = self._connect().execute("SELECT hit FROM hits WHERE id = ?", (request_id,)).fetchone()
        return None if found is None else found[0]

    def _write_behind(self, rows: list[tuple[str, tuple[object, ...]]]) -> None:
        try:
            self._write(rows)
        except _TROUBLES as error:
            self.counters.troubles += 1
            self.counters.lost += len(rows)
            _log.warning("what was learned of served answers could not be written: %s", error)
            self._close()

    def _write(self, rows: list[tuple[str, tuple[object, ...]]]) -> None:
        database = self._connect()
        database.execute("BEGIN IMMEDIATE")
        try:
            for statement, row in rows:
                database.execute(statement, row)
            self._writes += 1
            if self._writes % _PURGE_EVERY == 1:
                self._purge(database)
            database.execute("COMMIT")
        except BaseException:
            database.execute("ROLLBACK")
            raise
        self.counters.written += len(rows)

    def _purge(self, database: sqlite3.Connection) -> None:
        now = self._clock()
        for table, kept_s, most in (("labels", _LABELS_KEPT_S, _MOST_LABELS), ("hits", _HITS_KEPT_S, _MOST_HITS)):
            database.execute(f"DELETE FROM {table} WHERE at < ?", (now - kept_s,))  # noqa: S608 - our own names
            database.execute(
                f"DELETE FROM {table} WHERE rowid <= (SELECT max(rowid) FROM {table}) - ?",  # noqa: S608
                (most,),
            )

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


_REFUSE = "INSERT OR REPLACE INTO refused VALUES (?,?,?,?)"


def _row(refused: Refused, now: float) -> tuple[object, ...]:
    return (refused.pair.asked, refused.pair.stored, refused.confidence, now)
