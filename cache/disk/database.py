"""The diskcache database behind the disk tier, for one thread. Knows nothing of queues or of the event loop."""

import itertools
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import diskcache

from cache.contract import Entry
from cache.disk.marks import MarkTable
from cache.disk.row import RowError, pack_row, unpack_row
from cache.purges import Mark, Purges

_log = logging.getLogger(__name__)
_R = TypeVar("_R")

TROUBLES = (sqlite3.Error, diskcache.Timeout, OSError, RowError)
"""What a call may raise. All of them are a miss or a lost write to those who asked."""

_CORRUPT_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_MODE_RAW = 1
_REOPEN_AFTER_S = 30.0
_SCAN_ENTRIES = 128


class _RawDisk(diskcache.Disk):  # type: ignore[misc]
    """Keeps byte strings inside the database. Nothing is ever unpickled, and no value lies in a file of its own.

    A file beside the database could be torn or orphaned by a crash between the two; a row is whole or not there.
    """

    def put(self, key: bytes) -> tuple[memoryview, bool]:
        return sqlite3.Binary(key), True

    def get(self, key: object, raw: bool) -> bytes:
        if not raw or not isinstance(key, bytes):
            raise RowError("key in the database is not a byte string")
        return key

    def store(self, value: bytes, read: bool, key: object = None) -> tuple[int, int, None, memoryview]:  # noqa: ARG002
        return 0, _MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> object:  # noqa: ARG002
        if mode != _MODE_RAW:
            raise RowError(f"row has mode {mode}, only raw bytes ({_MODE_RAW}) are read")
        return value


class Database:
    """The database itself; every call runs on the store's one thread and raises one of `TROUBLES`."""

    def __init__(self, directory: Path, max_bytes: int, clock: Callable[[], float], purges: Purges) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._clock = clock
        self._purges = purges
        self._cache: Any = None
        self._marks: MarkTable | None = None
        self._reopen_at: float | None = None
        self._file: tuple[int, int] | None = None

    def attempt(self, call: Callable[..., _R], *args: Any) -> _R:
        """Make the call; where the database fails in it, leave it so that the next call can work."""
        try:
            return call(*args)
        except sqlite3.DatabaseError as error:
            self._recover(error)
            raise
        except diskcache.Timeout:
            self._recover(None)
            raise

    def open(self) -> None:
        """Open the database, starting an empty one in place of a corrupt one."""
        if self._reopen_at is not None and self._clock() < self._reopen_at:
            raise OSError(f"{self._directory} could not be opened; tried again every {_REOPEN_AFTER_S:.0f} s")
        self._reopen_at = self._clock() + _REOPEN_AFTER_S
        try:
            self._cache = self._connect()
        except sqlite3.DatabaseError as error:
            if not _is_corrupt(error):
                raise
            self.close()
            self._move_aside(error)
            self._cache = self._connect()
        self._file = self._find_file()
        self._reopen_at = None

    def read(self, key: bytes) -> Entry | None:
        """Return the entry of this key, or None."""
        row = self._opened().get(key)
        if row is None:
            return None
        entry = unpack_row(row)
        if entry.key != key:
            raise RowError("row lies under another entry's key")
        return entry

    def resize(self, max_bytes: int) -> None:
        """Change the bound; the next write culls what is over it."""
        self._max_bytes = max_bytes
        self._opened().reset("size_limit", max_bytes)

    def write(self, batch: list[Entry]) -> int:
        """Write the batch in one transaction; return how many rows were evicted for it.

        Raises `OSError` where the database's file is no longer in its place; the next call opens another one there.
        """
        cache = self._opened()
        if self._find_file() != self._file:
            # SQLite goes on writing to the removed file, and no restart would ever find what it wrote.
            self.close()
            raise OSError(f"{self._directory} was removed or replaced while in use; opened anew")
        now = self._clock()
        assert self._marks is not None
        self._marks.reach(max((entry.stamp for entry in batch), default=0))
        with cache.transact():
            for entry in batch:
                if entry.expires_at > now:
                    cache.set(entry.key, pack_row(entry), expire=entry.expires_at - now)
        return int(cache.cull()) if cache.volume() > self._max_bytes else 0

    def write_marks(self, marks: Iterable[Mark]) -> bool:
        """Make purges durable."""
        self._opened()
        if self._find_file() != self._file:
            self.close()
            raise OSError(f"{self._directory} was removed or replaced while in use; opened anew")
        assert self._marks is not None
        self._marks.write(marks)
        return True

    def volume(self) -> tuple[int, int]:
        """Return how many rows there are, and what the files take in bytes."""
        cache = self._opened()
        return len(cache), int(cache.volume())

    def delete(self, key: bytes) -> None:
        """Delete the row of this key, if there is one."""
        self._opened().delete(key)

    def clear(self) -> None:
        """Delete all rows."""
        self._opened().clear()

    def keys(self) -> Iterator[bytes]:
        """Return the keys, oldest row first, for `read_next`."""
        return iter(self._opened())

    def read_next(self, keys: Iterator[bytes], skip: Callable[[bytes], bool]) -> list[Entry] | None:
        """Read the next rows, leaving out the unreadable and those to skip; None when there are no more."""
        batch = list(itertools.islice(keys, _SCAN_ENTRIES))
        if not batch:
            return None
        entries = []
        for key in batch:
            if skip(key):
                continue
            try:
                entry = self.read(key)
            except RowError:
                continue
            if entry is not None:
                entries.append(entry)
        return entries

    def sweep_next(self, keys: Iterator[bytes], is_dead: Callable[[Entry], bool]) -> int | None:
        """Delete what is dead, expired or unreadable among the next rows; None when there are no more."""
        batch = list(itertools.islice(keys, _SCAN_ENTRIES))
        if not batch:
            return None
        now = self._clock()
        gone = [key for key in batch if self._is_gone(key, is_dead, now)]
        if gone:
            with self._opened().transact():
                for key in gone:
                    self.delete(key)
        return len(gone)

    def _is_gone(self, key: bytes, is_dead: Callable[[Entry], bool], now: float) -> bool:
        try:
            entry = self.read(key)
        except RowError:
            return True
        # What diskcache finds expired it does not read.
        return entry is None or entry.expires_at <= now or is_dead(entry)

    def close(self) -> None:
        """Close the database; a later call opens it again."""
        if self._marks is not None:
            self._marks.close()
            self._marks = None
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    def _find_file(self) -> tuple[int, int] | None:
        """Return the device and inode of the database's file; None where there is none."""
        try:
            found = (self._directory / "cache.db").stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _opened(self) -> Any:
        if self._cache is None:
            self.open()
        return self._cache

    def _connect(self) -> Any:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        cache = diskcache.Cache(
            str(self._directory),
            timeout=2.0,
            disk=_RawDisk,
            size_limit=self._max_bytes,
            # Least recently used would write on every read.
            eviction_policy="least-recently-stored",
            # `write` culls after its transaction, where it can be counted.
            cull_limit=0,
            # A truncated file under a memory map is a SIGBUS for the whole process; a read is only an error.
            sqlite_mmap_size=0,
        )
        try:
            # No row is read before it is known what was purged.
            self._marks = MarkTable(self._directory / "cache.db", self._purges)
        except BaseException:
            cache.close()
            raise
        return cache

    def _recover(self, error: sqlite3.DatabaseError | None) -> None:
        # diskcache leaves its transaction open when COMMIT fails (a full disk), and every later BEGIN would fail.
        # Closing the connection rolls back; the next call opens a new one.
        if self._cache is not None:
            self._cache.close()
        if error is not None and _is_corrupt(error):
            self.close()
            self._move_aside(error)

    def _move_aside(self, error: sqlite3.DatabaseError) -> None:
        """Rename the database's files, over those of an earlier time, so that an empty one takes their place."""
        _log.warning("cache on disk: %s is corrupt (%s); moved to *.corrupt, starting empty", self._directory, error)
        for name in ("cache.db", "cache.db-wal", "cache.db-shm"):
            path = self._directory / name
            if path.exists():
                path.replace(path.with_name(f"{name}.corrupt"))


def _is_corrupt(error: sqlite3.DatabaseError) -> bool:
    # The low byte is the primary result code; the rest says where it was found.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT_CODES
