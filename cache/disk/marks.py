"""The table of purges beside the rows, in one file with them: what removes or replaces one does so to the other.

Knows what a mark is, and nothing of what it ends.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from cache.purges import ALL, Mark, Purges

# Stamps are told to the disk ahead of their use, so that not every batch of rows has to.
_AHEAD_US = 10_000_000
_CLOCK = b"clock"


class MarkTable:
    """What `purges` must not forget, on disk. A write that has returned survives the loss of power."""

    def __init__(self, file: Path, purges: Purges) -> None:
        self._purges = purges
        # Without `isolation_level` every statement commits by itself; the default of `synchronous` is FULL.
        self._base = sqlite3.connect(file, timeout=2.0, isolation_level=None)
        self._told = 0
        try:
            self._base.execute("PRAGMA mmap_size = 0")
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS warmgate_purges"
                " (name BLOB PRIMARY KEY, stamp INTEGER NOT NULL, stored_by REAL NOT NULL) WITHOUT ROWID"
            )
            self._agree()
        except BaseException:
            self.close()
            raise

    def write(self, marks: Iterable[Mark]) -> None:
        """Make the marks durable, together."""
        with self._transaction() as base:
            for mark in marks:
                if mark.group == ALL:
                    base.execute("DELETE FROM warmgate_purges WHERE stamp <= ? AND name != ?", (mark.stamp, _CLOCK))
                _put(base, _name(mark.group), mark.stamp, mark.stored_by)

    def reach(self, stamp: int) -> None:
        """Make sure that no later life of this cache gives a stamp up to this one again."""
        if stamp > self._told:
            self._told = tell_clock(self._base, stamp)

    def close(self) -> None:
        """Close the connection."""
        self._base.close()

    def _agree(self) -> None:
        """Let the purges know what is on disk, and the disk what is not there yet."""
        self._told, known = read_marks(self._base)
        self._purges.observe(self._told)
        self._purges.merge(known)
        if news := set(self._purges.marks()) - known:
            self.write(news)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield self._base
            self._base.execute("COMMIT")
        except BaseException:
            if self._base.in_transaction:
                self._base.execute("ROLLBACK")
            raise


def read_marks(base: sqlite3.Connection) -> tuple[int, set[Mark]]:
    """Return up to where stamps may have been given, and the marks."""
    rows = base.execute("SELECT name, stamp, stored_by FROM warmgate_purges").fetchall()
    told = max((stamp for name, stamp, _ in rows if name == _CLOCK), default=0)
    return told, {Mark(name.decode(errors="surrogatepass"), *rest) for name, *rest in rows if name != _CLOCK}


def tell_clock(base: sqlite3.Connection, stamp: int) -> int:
    """Note that stamps up to this one, and somewhat beyond, may have been given; return how far."""
    told = stamp + _AHEAD_US
    _put(base, _CLOCK, told, 0.0)
    return told


def _put(base: sqlite3.Connection, name: bytes, stamp: int, stored_by: float) -> None:
    base.execute("INSERT OR REPLACE INTO warmgate_purges VALUES (?, ?, ?)", (name, stamp, stored_by))


def _name(group: str) -> bytes:
    return group.encode(errors="surrogatepass")
