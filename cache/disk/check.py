"""Looks through the database row by row for what should not be in it, also while a gateway uses it, and removes that.

It reads what diskcache keeps with SQLite alone, since diskcache writes into a database when it opens it.
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cache.contract import Entry
from cache.disk.marks import read_marks, tell_clock
from cache.disk.row import OtherVersionError, RowError, unpack_row
from cache.purges import Purges

_ROWS_AT_ONCE = 256
_KEY_BYTES = 32
_MODE_RAW = 1
_TIMEOUT_S = 5.0
_NORM_TOLERANCE = 0.01
# diskcache computes the row's own expiry from a clock that it reads later than we do.
_EXPIRY_TOLERANCE_S = 5.0

HARMLESS = ("expired", "purged", "of another release")
"""Rows that are never served, and go by themselves: no fault of the database."""


class CannotCheckError(Exception):
    """There is no database that can be read; the text says why."""


@dataclass(slots=True)
class Report:
    """What was found. `bad` counts rows by what is wrong with them; `faults` are those of the database as a whole.

    `left` is how much is wrong still, `removed` how many rows were deleted.
    """

    rows: int = 0
    sound: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    marks: int = 0
    removed: int = 0
    left: int = 0


class _Row(NamedTuple):
    number: int
    key: object
    is_raw: int
    stored: float
    expires: float | None
    is_ours: int
    value: object


def check(directory: Path, *, repair: bool = False, clock: Callable[[], float] = time.time) -> Report:
    """Check the database in this directory; with `repair` delete what is bad and correct the counts.

    Raises `CannotCheckError`. A row that a gateway has replaced meanwhile is left alone.
    """
    file = directory / "cache.db"
    if not file.is_file():
        raise CannotCheckError(f"{file} is not there")
    uri = f"{file.resolve().as_uri()}?mode={'rw' if repair else 'ro'}"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=_TIMEOUT_S, isolation_level=None)) as base:
            base.execute("PRAGMA mmap_size = 0")
            base.text_factory = bytes  # what somebody else wrote may be no text at all
            return _Check(base, clock(), repair=repair).run()
    except sqlite3.Error as error:
        raise CannotCheckError(f"{file} cannot be read: {error}") from error


class _Check:
    def __init__(self, base: sqlite3.Connection, now: float, *, repair: bool) -> None:
        self._base = base
        self._now = now
        self._repair = repair
        self._report = Report()
        self._purges = Purges()
        self._latest_stamp = 0

    def run(self) -> Report:
        report = self._report
        report.faults += [
            f"the file is damaged: {line.decode(errors='replace')}"
            for (line,) in self._base.execute("PRAGMA quick_check(5)")
            if line != b"ok"
        ]
        if report.faults:
            report.left = len(report.faults)
            return report  # the gateway itself moves such a file aside
        has_marks = self._read_marks()
        for rows in self._batches():
            bad = [(row, what) for row in rows if (what := self._what_is_wrong(row)) is not None]
            report.rows += len(rows)
            report.sound += len(rows) - len(bad)
            report.bad.update(what for _, what in bad)
            if not self._repair:
                report.left += sum(what not in HARMLESS for _, what in bad)
            elif bad:
                self._remove([row for row, _ in bad])
        if has_marks:
            self._check_clock()
        self._check_counts()
        return report

    def _read_marks(self) -> bool:
        known = self._base.execute("SELECT 1 FROM sqlite_master WHERE name = 'warmgate_purges'").fetchone()
        if known is None:
            return False
        _, marks = read_marks(self._base)
        self._purges.merge(marks)
        self._report.marks = len(marks)
        return True

    def _batches(self) -> Iterator[list[_Row]]:
        last = -1
        while True:
            found = self._base.execute(
                "SELECT rowid, key, raw, store_time, expire_time, typeof(value) = 'blob' AND mode = ?, value FROM Cache"
                " WHERE rowid > ? ORDER BY rowid LIMIT ?",
                (_MODE_RAW, last, _ROWS_AT_ONCE),
            )
            rows = [_Row(*row) for row in found]
            if not rows:
                return
            last = rows[-1].number
            yield rows

    def _what_is_wrong(self, row: _Row) -> str | None:
        if not isinstance(row.key, bytes) or not row.is_raw or len(row.key) != _KEY_BYTES:
            return "under no key of ours"
        if not row.is_ours:
            return "of a foreign kind"
        try:
            entry = unpack_row(row.value)
        except OtherVersionError:
            return "of another release"
        except RowError:
            return "torn"
        if entry.key != row.key:
            return "under another entry's key"
        self._latest_stamp = max(self._latest_stamp, entry.stamp)
        return self._what_is_wrong_with(entry, row)

    def _what_is_wrong_with(self, entry: Entry, row: _Row) -> str | None:
        if row.expires is None or row.expires > entry.expires_at + _EXPIRY_TOLERANCE_S:
            return "kept beyond its time"
        if entry.meaning is not None and not _is_normalised(entry.meaning.vector):
            return "with a vector of no use"
        if entry.expires_at <= self._now:
            return "expired"
        return "purged" if self._purges.is_dead(entry) else None

    def _remove(self, rows: list[_Row]) -> None:
        # A row written anew since has another time; diskcache's own triggers keep its counts.
        self._base.execute("BEGIN IMMEDIATE")
        for row in rows:
            done = self._base.execute("DELETE FROM Cache WHERE rowid = ? AND store_time = ?", (row.number, row.stored))
            self._report.removed += done.rowcount
        self._base.execute("COMMIT")

    def _check_clock(self) -> None:
        """Compare: a stamp ahead of what is told may be given again, and a later purge would not end its entry."""
        told, _ = read_marks(self._base)
        if self._latest_stamp <= told:
            return
        self._fault("stamps run ahead of the clock that is kept for them")
        if self._repair:
            tell_clock(self._base, self._latest_stamp)

    def _check_counts(self) -> None:
        """Compare within one look at all rows; only to set something right is everybody else kept from writing."""
        self._base.execute("BEGIN")
        off = self._counts_off()
        self._base.execute("COMMIT")
        if off and self._repair:
            self._base.execute("BEGIN IMMEDIATE")
            off = self._counts_off()
            for name, _, counted in off:
                self._base.execute("UPDATE Settings SET value = ? WHERE key = ?", (counted, name))
            self._base.execute("COMMIT")
        for name, kept, counted in off:
            self._fault(f"the kept {name} is {kept}, counted are {counted}")

    def _counts_off(self) -> list[tuple[str, object, int]]:
        counts = map(int, self._base.execute("SELECT COUNT(*), TOTAL(size) FROM Cache").fetchone())
        settings = dict(self._base.execute("SELECT CAST(key AS TEXT), value FROM Settings").fetchall())
        found = [
            (name, settings.get(name.encode()), count) for name, count in zip(("count", "size"), counts, strict=True)
        ]
        return [each for each in found if each[1] != each[2]]

    def _fault(self, what: str) -> None:
        self._report.faults.append(what)
        self._report.left += not self._repair


def _is_normalised(vector: bytes) -> bool:
    if not vector or len(vector) % 4:
        return False
    norm = float(np.linalg.norm(np.frombuffer(vector, "<f4")))
    return abs(norm - 1.0) <= _NORM_TOLERANCE
