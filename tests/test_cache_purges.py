"""Purges: what a mark ends and what it does not, clocks that jump, restarts, and answers that a purge overtakes."""

import asyncio
import itertools
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.contract import Entry, Meaning
from cache.disk import DiskStore
from cache.exact import Census, ExactCache
from cache.memory import MemoryStore
from cache.purges import AGE, ALL, Mark, Purges, of_key, of_model, of_tag
from cache.semantic.lookup import Miss, SemanticCache
from tests.fakes import VirtualClock

GROUPS = ("model:a", "model:b", "tag:x", "tag:y")


def make_entry(number: int, stamp: int, *groups: str, stored_at: float = 1000.0, expires_at: float = 4e9) -> Entry:
    """Return an entry of these groups."""
    return Entry(number.to_bytes(32), b"v" * 100, stored_at, expires_at, groups=groups, stamp=stamp)


def cache_of(purges: Purges, disk: DiskStore | None = None) -> ExactCache:
    """Make an exact cache of these tiers."""
    return ExactCache(MemoryStore(1 << 20, VirtualClock()), disk, purges)


async def open_disk(directory: Path, purges: Purges) -> DiskStore:
    """Open a disk store that is patient with a busy machine."""
    disk = DiskStore(directory, 1 << 26, purges=purges, read_deadline_s=5.0)
    await disk.open()
    return disk


async def close(cache: ExactCache) -> None:
    """Close the cache, then its disk."""
    await cache.close()
    if cache.disk is not None:
        await cache.disk.close()


def test_a_mark_ends_what_its_group_had_and_nothing_that_comes_later():
    """Who belongs to the group and was stamped before is dead; other groups and later entries live."""
    purges = Purges(VirtualClock())
    before = make_entry(1, purges.stamp(), of_model("a"), of_tag("x"))
    other = make_entry(2, purges.stamp(), of_model("b"))

    purges.purge(of_tag("x"))
    after = make_entry(3, purges.stamp(), of_tag("x"))

    assert [purges.is_dead(entry) for entry in (before, other, after)] == [True, False, False]
    purges.purge(ALL)
    assert all(purges.is_dead(entry) for entry in (before, other, after))


def test_an_entry_can_be_purged_by_its_key_alone():
    """A key's purge ends one entry and its next life may be kept."""
    purges = Purges(VirtualClock())
    one, two = make_entry(1, purges.stamp()), make_entry(2, purges.stamp())

    purges.purge(of_key(one.key))

    assert (purges.is_dead(one), purges.is_dead(two)) == (True, False)
    assert not purges.is_dead(make_entry(1, purges.stamp()))


def test_a_purge_by_age_goes_by_the_time_of_storing():
    """What was stored by the moment is dead, what was stored later is not."""
    purges = Purges(VirtualClock(1000.0))
    old = make_entry(1, purges.stamp(), stored_at=900.0)
    new = make_entry(2, purges.stamp(), stored_at=990.0)

    purges.purge_stored_by(950.0)

    assert (purges.is_dead(old), purges.is_dead(new)) == (True, False)


def test_stamps_rise_whatever_the_clock_does():
    """A clock that is set back, or stands still, gives later stamps all the same."""
    clock = VirtualClock(5000.0)
    purges = Purges(clock)
    stamps = [purges.stamp()]
    for step in (-4000.0, 0.0, 0.0, 10.0, -1.0, 9000.0):
        clock.now += step
        stamps.append(purges.stamp())

    assert all(first < second for first, second in itertools.pairwise(stamps))
    assert stamps[-1] == int(clock.now * 1e6)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("keep"), st.sets(st.sampled_from(GROUPS))),
        st.tuples(st.just("purge"), st.sampled_from((*GROUPS, ALL))),
        st.tuples(st.just("age"), st.floats(-50, 50)),
        st.tuples(st.just("clock"), st.floats(-1e4, 1e4)),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=40,
)


@given(STEPS, st.integers(4, 64))
def test_what_was_purged_stays_dead_and_what_was_not_lives(steps, most_marks):
    """A model that remembers every purge agrees, across jumps of the clock and restarts, while the table is large.

    With a small table more may be dead than was asked for, and never less.
    """
    clock = VirtualClock(1e6)
    purges = Purges(clock, most_marks)
    entries: list[tuple[Entry, bool]] = []
    highest = 0
    for what, argument in steps:
        if what == "keep":
            highest = purges.stamp()
            entry = make_entry(len(entries), highest, *sorted(argument), stored_at=clock())
            entries.append((entry, False))
        elif what == "purge":
            highest = purges.purge(argument).stamp
            entries = [(e, gone or argument == ALL or argument in e.groups) for e, gone in entries]
        elif what == "age":
            by = clock() + argument
            former = next((mark.stored_by for mark in purges.marks() if mark.group == AGE), 0.0)
            highest = purges.purge_stored_by(by).stamp
            entries = [(e, gone or e.stored_at <= max(by, former)) for e, gone in entries]
        elif what == "clock":
            clock.now += argument
        else:
            marks = purges.marks()
            purges = Purges(clock, most_marks)
            purges.observe(highest)
            purges.merge(marks)
    assert len(purges.marks()) <= most_marks
    for entry, gone in entries:
        assert purges.is_dead(entry) or not gone
        if most_marks > len(GROUPS) + 2:
            assert purges.is_dead(entry) == gone


def test_a_stamp_beyond_all_time_is_none():
    """Whoever tells one, later ones would fit into no store; and no purge could end an entry that bears it."""
    purges, beyond = Purges(VirtualClock()), 1 << 63
    purges.observe(beyond)
    assert purges.merge([Mark("model:a", beyond)]) == []
    assert purges.stamp() < beyond
    assert purges.is_dead(make_entry(1, beyond, "model:a"))


@given(st.lists(st.tuples(st.sampled_from(GROUPS), st.integers(1, 50)), max_size=30), st.randoms())
def test_marks_merge_in_any_order_and_any_number_of_times(told, random):
    """Two gateways that saw the same marks agree on what is dead."""
    marks = [Mark(group, stamp) for group, stamp in told]
    one, two = Purges(VirtualClock()), Purges(VirtualClock())
    one.merge(marks)
    shuffled = marks * 2
    random.shuffle(shuffled)
    for mark in shuffled:
        two.merge([mark])

    assert set(one.marks()) == set(two.marks())
    assert all(one.stamp() > stamp for _, stamp in told)


def test_a_table_that_is_full_folds_its_oldest_marks_into_one():
    """The table is bounded; who was purged by a mark that is folded stays dead, and the newest marks stay precise."""
    purges = Purges(VirtualClock(), most_marks=100)
    purged = make_entry(1, purges.stamp(), of_tag("0"))
    for number in range(150):
        purges.purge(of_tag(str(number)))
    alive = make_entry(2, purges.stamp(), of_tag("149"))
    purges.purge(of_tag("150"))

    assert len(purges.marks()) <= 100
    assert purges.is_dead(purged)
    assert not purges.is_dead(alive)


async def test_every_tier_honours_a_purge(tmp_path):
    """What is purged is found neither in memory nor on disk, and by no later read."""
    purges = Purges()
    disk = await open_disk(tmp_path, purges)
    cache = cache_of(purges, disk)
    purged = make_entry(1, purges.stamp(), of_model("a"))
    kept = make_entry(2, purges.stamp(), of_model("b"))
    for entry in (purged, kept):
        assert cache.keep(entry)
    await disk.flush()

    assert await cache.census(lambda _: True) == Census(2, 200)
    assert await cache.purge(of_model("a"))

    assert cache.peek(purged.key) is None
    assert await cache.get(purged.key) is None
    cache.memory.clear()
    assert await cache.get(purged.key) is None
    assert await cache.get(kept.key) == kept
    assert await cache.census(lambda _: True) == Census(1, 100)
    assert cache.counters.purged >= 1
    await close(cache)


async def test_what_is_purged_is_cleared_away_behind_the_reply(tmp_path):
    """Memory, disk and who finds it are rid of it though nobody asks; what came since under the same key stays."""
    purges = Purges()
    disk = await open_disk(tmp_path, purges)
    cache = cache_of(purges, disk)
    for number in range(300):
        cache.keep(make_entry(number, purges.stamp(), of_tag("odd" if number % 2 else "even")))
    await disk.flush()

    for number in range(100, 200):
        cache.memory.discard(make_entry(number, 0).key)
    forgotten = set[bytes]()
    cache.sweeper.forget = forgotten.add
    assert await cache.purge(of_tag("odd"))
    cache.keep(make_entry(1, purges.stamp(), of_tag("odd")))
    await cache.sweeper.wait()

    assert forgotten == {make_entry(number, 0).key for number in range(3, 300, 2)}
    assert len(cache.memory) == 101
    await disk.flush()
    assert (await disk.volume())[0] == 151
    assert await disk.get(make_entry(1, 0).key) is not None
    await close(cache)


async def test_an_answer_that_a_purge_overtook_is_not_kept():
    """Asked for before the purge and given after it, it is let go and counted; one asked for after it is kept."""
    cache = cache_of(Purges())
    stamp = cache.purges.stamp()
    await cache.purge(of_model("a"))

    assert not cache.keep(make_entry(1, stamp, of_model("a")))
    assert cache.peek(make_entry(1, stamp).key) is None
    assert cache.counters.late == 1
    assert cache.keep(make_entry(1, cache.purges.stamp(), of_model("a")))
    await close(cache)


async def test_a_purge_while_the_disk_is_read_wins(tmp_path):
    """A row that was read just before the purge is not served after it."""
    purges = Purges()
    disk = await open_disk(tmp_path, purges)
    cache = cache_of(purges, disk)
    entry = make_entry(1, purges.stamp(), of_tag("x"))
    cache.keep(entry)
    await disk.flush()
    cache.memory.clear()

    reading = asyncio.create_task(cache.get(entry.key))
    await asyncio.sleep(0)
    purges.purge(of_tag("x"))

    assert await reading is None
    assert cache.peek(entry.key) is None
    await close(cache)


@pytest.mark.parametrize("jump", [0.0, -86400.0, 86400.0])
async def test_a_restart_brings_nothing_back(tmp_path, jump):
    """Marks are read before any row; a clock that jumped meanwhile changes nothing, and new entries live."""
    clock = VirtualClock(1e9)
    purges = Purges(clock)
    disk = await open_disk(tmp_path, purges)
    purged = make_entry(1, purges.stamp(), of_tag("x"), expires_at=4e9)
    kept = make_entry(2, purges.stamp(), of_tag("y"), expires_at=4e9)
    for entry in (purged, kept):
        disk.keep(entry)
    await disk.flush()
    purges.purge(of_tag("x"))
    assert await disk.save()
    await disk.close()

    clock.now += jump
    again = Purges(clock)
    cache = cache_of(again, await open_disk(tmp_path, again))
    assert await cache.get(purged.key) is None
    assert await cache.get(kept.key) == kept
    # The clock may be behind the stamps of rows: a purge now ends them all the same.
    assert await cache.purge(of_tag("y"))
    assert await cache.get(kept.key) is None
    assert cache.keep(make_entry(3, again.stamp(), of_tag("y")))
    await close(cache)


async def test_a_purge_that_the_disk_does_not_take_says_so_and_is_tried_again(tmp_path):
    """While the database is locked the purge is in force and not durable; the next write brings it to the disk."""
    purges = Purges()
    disk = await open_disk(tmp_path, purges)
    cache = cache_of(purges, disk)
    entry = make_entry(1, purges.stamp(), of_tag("x"))
    cache.keep(entry)
    await disk.flush()
    with closing(sqlite3.connect(tmp_path / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not await cache.purge(of_tag("x"))
        assert await cache.get(entry.key) is None
        other.execute("ROLLBACK")
    assert disk.counters.unsaved == 1

    cache.keep(make_entry(2, purges.stamp()))
    await disk.flush()
    await close(cache)
    again = Purges()
    cache = cache_of(again, await open_disk(tmp_path, again))
    assert await cache.get(entry.key) is None
    await close(cache)


async def test_marks_from_elsewhere_reach_the_disk_with_the_next_write(tmp_path):
    """What another gateway purged is known after a restart too."""
    purges = Purges()
    disk = await open_disk(tmp_path, purges)
    purges.merge([Mark(of_tag("x"), 77)])
    disk.keep(make_entry(1, purges.stamp()))
    await disk.flush()
    await disk.close()

    again = Purges()
    disk = await open_disk(tmp_path, again)
    assert again.marks() == [Mark(of_tag("x"), 77)]
    await disk.close()


async def test_what_is_purged_is_not_found_by_meaning():
    """The index may propose it still; the store says that it is gone."""
    cache = cache_of(Purges())
    vector = b"\x00\x00\x80\x3f" + bytes(12)
    semantic = SemanticCache(cache)
    entry = Entry(
        bytes(32), b"v", 1000.0, 4e9, Meaning(b"p", "a question", vector), groups=("tag:x",), stamp=cache.purges.stamp()
    )
    cache.keep(entry)
    semantic.add(entry)
    meaning = Meaning(b"p", "a question", vector)
    assert not isinstance(await semantic.find("m", meaning, 5.0), Miss)

    await cache.purge(of_tag("x"))

    assert isinstance(await semantic.find("m", meaning, 5.0), Miss)
    await semantic.close()
    await close(cache)
