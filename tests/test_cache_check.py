"""The check of the database: what it finds, what it leaves alone, and what it repairs, also while a store is open."""

import asyncio
import sqlite3
import struct
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cache.contract import Entry, Meaning
from cache.disk import DiskStore
from cache.disk.check import HARMLESS, CannotCheckError, check
from cache.disk.row import pack_row
from cache.purges import Purges, of_tag
from scripts.running_gateway import ROOT

UNIT = struct.pack("<4f", 0.5, 0.5, 0.5, 0.5)


def make_entry(number: int, *, vector: bytes = UNIT, stamp: int = 0, groups: tuple[str, ...] = ()) -> Entry:
    """Return the entry of this number."""
    meaning = Meaning(b"p", f"question {number}", vector)
    return Entry(number.to_bytes(32), b"v" * 100, 1000.0, 4e9, meaning, groups=groups, stamp=stamp)


async def filled(directory: Path, *entries: Entry, purges: Purges | None = None) -> DiskStore:
    """Return an open store that holds these entries."""
    store = DiskStore(directory, 1 << 26, purges=purges, read_deadline_s=5.0)
    await store.open()
    for entry in entries:
        store.keep(entry)
    assert await store.flush()
    return store


def spoil(directory: Path, statement: str, *values: object) -> None:
    """Change the database behind everybody's back."""
    with closing(sqlite3.connect(directory / "cache.db")) as base, base:
        base.execute(statement, values)


async def test_a_sound_database_has_no_fault_and_is_left_as_it_is(tmp_path):
    """While a store has it open, every row is sound, and looking changes no byte of it."""
    purges = Purges()
    store = await filled(tmp_path, *[make_entry(n, stamp=purges.stamp()) for n in range(600)], purges=purges)
    before = (tmp_path / "cache.db").read_bytes()

    report = check(tmp_path)

    assert (report.rows, report.sound, report.left, report.faults) == (600, 600, 0, [])
    assert (tmp_path / "cache.db").read_bytes() == before
    assert await store.get(make_entry(3).key) is not None
    await store.close()


SPOILT: dict[str, Callable[[Path], None]] = {
    "torn": lambda place: spoil(place, "UPDATE Cache SET value = substr(value, 1, 30) WHERE rowid = 1"),
    "of another release": lambda place: spoil(
        place, "UPDATE Cache SET value = CAST(x'01' || substr(value, 2) AS BLOB) WHERE rowid = 1"
    ),
    "under another entry's key": lambda place: spoil(
        place, "UPDATE Cache SET value = ? WHERE rowid = 1", pack_row(make_entry(99))
    ),
    "under no key of ours": lambda place: spoil(place, "UPDATE Cache SET key = x'0102' WHERE rowid = 1"),
    "of a foreign kind": lambda place: spoil(place, "UPDATE Cache SET mode = 4 WHERE rowid = 1"),
    "of a foreign kind ": lambda place: spoil(place, "UPDATE Cache SET value = 'text' || value WHERE rowid = 1"),
    "kept beyond its time": lambda place: spoil(place, "UPDATE Cache SET expire_time = NULL WHERE rowid = 1"),
}


@pytest.mark.parametrize("what", SPOILT)
async def test_a_bad_row_is_named_and_repaired(tmp_path, what):
    """It is counted under what is wrong with it; a repair deletes just that row, and the store goes on."""
    store = await filled(tmp_path, *[make_entry(n) for n in range(3)])
    SPOILT[what](tmp_path)

    found = check(tmp_path)
    assert found.bad == Counter({what.strip(): 1})
    assert found.left == (what != "of another release")
    assert (found.rows, found.sound, found.removed) == (3, 2, 0)

    repaired = check(tmp_path, repair=True)
    assert (repaired.removed, repaired.left) == (1, 0)
    again = check(tmp_path)
    assert (again.rows, again.sound, again.left, again.faults) == (2, 2, 0, [])
    assert await store.get(make_entry(2).key) == make_entry(2)
    await store.close()


@pytest.mark.parametrize("vector", [b"", b"\x01", bytes(16), struct.pack("<2f", float("nan"), 1.0)])
async def test_a_vector_of_no_use_is_found(tmp_path, vector):
    """One that is no row of numbers, or not normalised, can match nothing."""
    store = await filled(tmp_path, make_entry(1, vector=vector), make_entry(2))

    assert check(tmp_path, repair=True).bad == Counter({"with a vector of no use": 1})
    assert check(tmp_path).sound == 1
    await store.close()


async def test_what_is_purged_or_expired_is_no_fault_and_is_tidied_up(tmp_path):
    """Such rows are told of, and a repair frees their room."""
    purges = Purges()
    store = await filled(
        tmp_path, make_entry(1, stamp=purges.stamp(), groups=("tag:x",)), make_entry(2, stamp=purges.stamp())
    )
    store.keep(make_entry(3, stamp=purges.stamp()))
    await store.close()
    purges.purge(of_tag("x"))
    store = await filled(tmp_path, make_entry(4, stamp=purges.stamp()), purges=purges)

    report = check(tmp_path)
    assert (report.bad, report.left, report.marks) == (Counter({"purged": 1}), 0, 1)
    assert check(tmp_path, clock=lambda: 5e9).bad["expired"] + report.bad["purged"] >= 4
    assert check(tmp_path, repair=True).removed == 1
    await store.close()


async def test_counts_and_clock_that_are_off_are_set_right(tmp_path):
    """The counts of diskcache, and the moment up to which stamps were given, are compared with the rows."""
    purges = Purges()
    store = await filled(tmp_path, make_entry(1, stamp=purges.stamp()), purges=purges)
    await store.close()
    spoil(tmp_path, "UPDATE Settings SET value = 7 WHERE key = 'count'")
    spoil(tmp_path, "UPDATE warmgate_purges SET stamp = 1 WHERE name = CAST('clock' AS BLOB)")

    report = check(tmp_path)
    assert (report.left, len(report.faults)) == (2, 2)
    assert check(tmp_path, repair=True).left == 0
    assert check(tmp_path).faults == []
    again = Purges(lambda: 0.0)
    store = await filled(tmp_path, purges=again)
    assert again.stamp() > purges.stamp() - 1_000_000
    await store.close()


async def test_what_cannot_be_read_is_said_so(tmp_path):
    """No database, or none of SQLite's, is an error of its own."""
    with pytest.raises(CannotCheckError, match="is not there"):
        check(tmp_path)
    (tmp_path / "cache.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(CannotCheckError, match="cannot be read"):
        check(tmp_path)


async def test_a_damaged_file_is_a_fault(tmp_path):
    """Pages that were overwritten are found before any row is believed."""
    store = await filled(tmp_path, *[make_entry(n) for n in range(400)])
    await store.close()
    pages = (tmp_path / "cache.db").stat().st_size // 4096
    with (tmp_path / "cache.db").open("r+b") as file:
        file.seek(4096 * (pages // 2))
        file.write(b"\xff" * 4096 * 3)

    try:
        report = check(tmp_path)
    except CannotCheckError as error:
        assert "malformed" in str(error)  # noqa: PT017 - which pages are hit decides what SQLite says
    else:
        assert report.left > 0


async def test_a_check_and_a_repair_do_not_disturb_who_writes(tmp_path):
    """Beside a process that keeps and purges all the time, nothing wrong is found, and it goes on without an error."""
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.purge_writer", str(tmp_path), "1", stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert writer.stdout is not None
    try:
        for turn in range(6):
            for _ in range(10):
                assert await writer.stdout.readline()
            report = await asyncio.to_thread(check, tmp_path, repair=bool(turn % 2))
            assert (report.faults, report.left) == ([], 0)
            assert set(report.bad) <= set(HARMLESS)
            assert report.sound > 0
    finally:
        writer.kill()
        await writer.communicate()
