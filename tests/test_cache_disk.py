"""The disk tier: what survives, what a broken disk costs, and what its queue does."""

import asyncio
import contextlib
import logging
import shutil
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.contract import Entry, Meaning
from cache.disk import DiskStore
from cache.disk.row import ROW_VERSION, RowError, pack_row, unpack_row
from tests.disk_writer import make_entry
from tests.fakes import VirtualClock

ROOT = Path(__file__).parent.parent


@contextlib.asynccontextmanager
async def opened(
    directory: Path, max_bytes: int = 64 << 20, clock=time.time, **options: float
) -> AsyncIterator[DiskStore]:
    """Open a store, patient with a busy machine, and close it."""
    store = DiskStore(directory, max_bytes, clock, **{"read_deadline_s": 5.0} | options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def read_meanings(store: DiskStore) -> list[Entry]:
    """Return all entries that have a meaning."""
    return [entry async for batch in store.meanings() for entry in batch]


async def test_an_entry_survives_a_restart_with_its_meaning(tmp_path):
    """What one store wrote another reads, whole."""
    entries = [make_entry(n) for n in range(6)]
    async with opened(tmp_path / "new" / "directory") as store:
        for entry in entries:
            await store.put(entry)

    async with opened(tmp_path / "new" / "directory") as store:
        assert [await store.get(entry.key) for entry in entries] == entries
        assert await read_meanings(store) == [entry for entry in entries if entry.meaning]
        assert (store.counters.hits, store.counters.errors) == (6, 0)


async def test_a_queued_entry_is_found_before_it_is_written(tmp_path):
    """A read sees what put has queued, and the latest of one key."""
    async with opened(tmp_path) as store:
        store.keep(make_entry(1))
        replaced = Entry(make_entry(1).key, b"later", 0.0, 4e9)
        store.keep(replaced)

        assert await store.get(replaced.key) == replaced
        assert store.counters.writes == 0
        await store.flush()
        assert await store.get(replaced.key) == replaced
        assert store.counters.writes == 1


async def test_removal_wins_over_the_queue_and_over_the_row(tmp_path):
    """A removed entry is gone whether it was queued, being written, or on disk."""
    async with opened(tmp_path) as store:
        for flush_first in (False, True):
            entry = make_entry(3)
            store.keep(entry)
            if flush_first:
                await store.flush()
            else:
                await asyncio.sleep(0)
            await store.remove(entry.key)
            await store.flush()

            assert await store.get(entry.key) is None
        store.keep(make_entry(4))
        await store.clear()
        await store.flush()
        assert await store.get(make_entry(4).key) is None


async def test_an_expired_row_is_a_miss_and_not_a_meaning(tmp_path):
    """Time to live counts from when the entry was stored, also on disk."""
    clock = VirtualClock()
    async with opened(tmp_path, clock=clock) as store:
        entry = Entry(bytes(32), b"v", clock(), clock() + 10, Meaning(b"p", "t", b""))
        await store.put(entry)
        await store.flush()
        clock.advance(9)
        assert await store.get(entry.key) == entry
        clock.advance(1)

        assert await store.get(entry.key) is None
        assert await read_meanings(store) == []


async def test_a_full_queue_drops_and_counts(tmp_path):
    """A write never waits: what the queue cannot take is lost and counted, by number and by bytes."""
    async with opened(tmp_path, queue_entries=2) as store:
        for n in range(5):
            store.keep(make_entry(n))
        assert store.counters.dropped == 3
    async with opened(tmp_path / "b", queue_bytes=1000) as store:
        store.keep(Entry(bytes(32), bytes(600), 0.0, 4e9))
        store.keep(Entry(bytes([1]) * 32, bytes(600), 0.0, 4e9))
        assert store.counters.dropped == 1


async def test_the_oldest_rows_go_when_the_budget_is_full(tmp_path):
    """The database stays within its bytes, and the latest entries are the ones kept."""
    budget = 1 << 20
    async with opened(tmp_path, budget) as store:
        entries = [Entry(n.to_bytes(32), bytes(20_000), 0.0, 4e9) for n in range(120)]
        for entry in entries:
            store.keep(entry)
            await store.flush()

        assert (tmp_path / "cache.db").stat().st_size <= budget + 200_000
        assert await store.get(entries[0].key) is None
        assert await store.get(entries[-1].key) == entries[-1]
        assert store.counters.evictions > 60


async def test_close_writes_what_is_queued(tmp_path):
    """Entries put just before the end are there after a restart."""
    async with opened(tmp_path) as store:
        for n in range(300):
            store.keep(make_entry(n))
    async with opened(tmp_path) as store:
        assert await store.get(make_entry(299).key) == make_entry(299)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda row: row[:-1],
        lambda row: row[:3],
        lambda row: bytes([ROW_VERSION + 1]) + row[1:],
        lambda row: row[:40] + bytes([row[40] ^ 1]) + row[41:],
        lambda _: b"",
    ],
)
async def test_a_torn_or_foreign_row_is_a_miss(tmp_path, spoil, caplog):
    """A row that is not whole, or of another version, is never served, and is one line in the log."""
    entry = make_entry(5)
    async with opened(tmp_path) as store:
        await store.put(entry)
    with contextlib.closing(sqlite3.connect(tmp_path / "cache.db")) as raw, raw:
        raw.execute("UPDATE Cache SET value = ?", (spoil(pack_row(entry)),))

    async with opened(tmp_path) as store:
        for _ in range(3):
            assert await store.get(entry.key) is None
        assert await read_meanings(store) == []
        assert (store.counters.misses, store.counters.errors) == (3, 3)
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 1


async def test_a_pickle_in_the_database_is_never_loaded(tmp_path):
    """Who can write to the directory cannot run code in the gateway."""
    entry = make_entry(5)
    async with opened(tmp_path) as store:
        await store.put(entry)
    with contextlib.closing(sqlite3.connect(tmp_path / "cache.db")) as raw, raw:
        raw.execute("UPDATE Cache SET mode = 4, value = ?", (b"cos\nsystem\n(S'exit 1'\ntR.",))

    async with opened(tmp_path) as store:
        assert await store.get(entry.key) is None
        assert store.counters.errors == 1


@given(
    st.builds(
        Entry,
        st.binary(min_size=32, max_size=32),
        st.binary(max_size=200),
        st.floats(allow_nan=False),
        st.floats(allow_nan=False),
        st.none() | st.builds(Meaning, st.binary(max_size=40), st.text(st.characters(), max_size=40), st.binary()),
    )
)
def test_a_row_unpacks_to_what_was_packed(entry):
    """Any entry comes back equal, lone surrogates in its text included."""
    assert unpack_row(pack_row(entry)) == entry


@given(st.binary(max_size=100))
def test_no_bytes_make_unpacking_fail_otherwise(row):
    """Bytes that are no row are a `RowError` and nothing else."""
    with pytest.raises(RowError):
        unpack_row(row)


async def test_a_corrupt_database_is_moved_aside_and_replaced(tmp_path, caplog):
    """A file that is no database costs its entries, a warning, and nothing more."""
    (tmp_path / "cache.db").write_bytes(b"not a database" * 1000)

    async with opened(tmp_path) as store:
        await store.put(make_entry(1))
        await store.flush()
        assert await store.get(make_entry(1).key) == make_entry(1)

    assert (tmp_path / "cache.db.corrupt").exists()
    assert "moved to" in caplog.text


async def test_corruption_found_later_heals_too(tmp_path):
    """Pages spoilt in the middle of the file are found by a read or a write; after that the store works again."""
    async with opened(tmp_path) as store:
        for n in range(200):
            store.keep(make_entry(n))
    pages = (tmp_path / "cache.db").stat().st_size // 4096
    with (tmp_path / "cache.db").open("r+b") as file:
        file.seek(4096 * (pages // 2))
        file.write(b"\xff" * 4096 * (pages // 2))

    async with opened(tmp_path) as store:
        for n in range(200):
            found = await store.get(make_entry(n).key)
            assert found is None or found == make_entry(n)
            store.keep(make_entry(n))
            await store.flush()
        await store.put(make_entry(1000))
        await store.flush()

        assert await store.get(make_entry(1000).key) == make_entry(1000)
        assert store.counters.errors > 0


async def test_a_directory_that_cannot_be_used_costs_only_misses(tmp_path, caplog):
    """Where a file stands in the directory's place, every call is a miss or a lost write, and the log stays short."""
    (tmp_path / "file").write_text("in the way")

    async with opened(tmp_path / "file") as store:
        for n in range(20):
            await store.put(make_entry(n))
            await store.flush()
            assert await store.get(make_entry(n).key) is None
            await store.remove(make_entry(n).key)
        assert await read_meanings(store) == []
        assert (store.counters.misses, store.counters.dropped) == (20, 20)
        assert store.counters.errors >= 60
    assert len(caplog.records) <= 6


async def test_a_directory_that_becomes_usable_is_used(tmp_path):
    """The disk is tried again after a while, without a restart."""
    clock = VirtualClock()
    (tmp_path / "place").write_text("in the way")
    async with opened(tmp_path / "place", clock=clock) as store:
        (tmp_path / "place").unlink()
        clock.advance(31)
        await store.put(make_entry(1))
        await store.flush()

        assert await store.get(make_entry(1).key) == make_entry(1)


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_directory_removed_while_in_use_is_noticed_and_made_anew(tmp_path, replaced, caplog):
    """The batch that finds its database gone is an error and dropped, never a write; the next survives a restart."""
    place = tmp_path / "place"
    async with opened(place) as store:
        await store.put(make_entry(1))
        await store.flush()
        shutil.rmtree(place)
        if replaced:
            async with opened(place):
                pass
        await store.put(make_entry(2))
        await store.flush()
        assert (store.counters.writes, store.counters.dropped, store.counters.errors) == (1, 1, 1)

        await store.put(make_entry(3))
        await store.flush()
        assert (store.counters.writes, store.counters.errors) == (2, 1)
    assert "removed or replaced" in caplog.text

    async with opened(place) as store:
        assert await store.get(make_entry(3).key) == make_entry(3)


async def start_writer(directory: Path, *arguments: str) -> asyncio.subprocess.Process:
    """Start a process that writes to the directory until it is killed."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.disk_writer", str(directory), *arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )


@pytest.mark.parametrize("lines", [1, 2, 5, 11])
async def test_no_acknowledged_entry_is_lost_to_kill_9(tmp_path, lines):
    """A writer killed at any point leaves, whole, every entry that `flush` had waited for, and nothing torn."""
    writer = await start_writer(tmp_path)
    for _ in range(lines):
        acknowledged = int((await writer.stdout.readline()).split()[0])
    writer.kill()
    rest, _ = await writer.communicate()
    if (said := rest.rpartition(b"\n")[0]) != b"":
        acknowledged = int(said.splitlines()[-1].split()[0])

    async with opened(tmp_path) as store:
        for n in range(acknowledged):
            assert await store.get(make_entry(n).key) == make_entry(n)
        for n in range(acknowledged, acknowledged + 20):
            assert await store.get(make_entry(n).key) in (None, make_entry(n))
        assert store.counters.errors == 0


async def test_a_full_disk_loses_writes_and_nothing_else(tmp_path):
    """When no byte can be added any more the writer goes on, counting; what was written before can be read."""
    writer = await start_writer(tmp_path, str(1 << 20))
    errors = 0
    while errors < 3:
        errors = int((await writer.stdout.readline()).split()[1])
    writer.kill()
    await writer.communicate()

    async with opened(tmp_path) as store:
        assert await store.get(make_entry(0).key) == make_entry(0)
        await store.put(make_entry(10_000))
        await store.flush()
        assert await store.get(make_entry(10_000).key) == make_entry(10_000)
        assert store.counters.errors == 0
