"""The exact cache: how its two tiers stand in for each other."""

import asyncio
from pathlib import Path

from cache.contract import Entry
from cache.disk import DiskStore
from cache.exact import ExactCache
from cache.memory import MemoryStore
from tests.fakes import VirtualClock

KEY = bytes(32)


def make_entry(value: bytes = b"old", expires_at: float = 2000.0) -> Entry:
    """Return an entry of the one key."""
    return Entry(KEY, value, 1000.0, expires_at)


class ScriptedDisk(DiskStore):
    """A disk whose reads wait until the test lets them through."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, 1 << 20, VirtualClock())
        self.row: Entry | None = None
        self.reading = asyncio.Event()
        self.go_on = asyncio.Event()

    async def get(self, key: bytes) -> Entry | None:
        """Return the row as it was when the read began."""
        row = self.row
        self.reading.set()
        await self.go_on.wait()
        return row

    def keep(self, entry: Entry) -> None:
        """Replace the row."""
        self.row = entry

    async def remove(self, key: bytes) -> None:
        """Drop the row."""
        self.row = None

    async def clear(self) -> None:
        """Drop the row."""
        self.row = None


async def test_memory_answers_without_the_disk(tmp_path):
    """What is in memory is found at once; there may be no disk at all."""
    cache = ExactCache(MemoryStore(10_000, VirtualClock()), None)
    cache.keep(make_entry())

    assert cache.peek(KEY) == await cache.get(KEY) == make_entry()
    await cache.remove(KEY)
    assert await cache.get(KEY) is None


async def test_a_row_of_the_disk_is_promoted_with_the_life_it_has_left(tmp_path):
    """After a restart the disk answers once, then memory does, until the moment the entry was always to end."""
    clock = VirtualClock()
    disk = DiskStore(tmp_path, 1 << 20, clock)
    await disk.open()
    await disk.put(make_entry(expires_at=clock() + 10))
    cache = ExactCache(MemoryStore(10_000, clock), disk)

    assert cache.peek(KEY) is None
    assert await cache.get(KEY) is not None
    clock.advance(9)
    assert cache.peek(KEY) is not None
    clock.advance(1)
    assert await cache.get(KEY) is None

    await disk.close()


async def test_an_old_row_read_meanwhile_does_not_shadow_a_new_entry(tmp_path):
    """A get waits for the disk, put comes in between: both tiers and the reader have the new entry."""
    disk = ScriptedDisk(tmp_path)
    disk.row = make_entry(b"old")
    cache = ExactCache(MemoryStore(10_000, VirtualClock()), disk)

    read = asyncio.create_task(cache.get(KEY))
    await disk.reading.wait()
    await cache.put(make_entry(b"new"))
    disk.go_on.set()

    assert (await read).value == b"new"
    assert cache.peek(KEY).value == b"new"


async def test_a_row_removed_while_it_is_read_is_not_served(tmp_path):
    """A get waits for the disk, remove or clear comes in between: the entry is gone for the reader too."""
    for forget in ("remove", "clear"):
        disk = ScriptedDisk(tmp_path)
        disk.row = make_entry()
        cache = ExactCache(MemoryStore(10_000, VirtualClock()), disk)

        read = asyncio.create_task(cache.get(KEY))
        await disk.reading.wait()
        await (cache.remove(KEY) if forget == "remove" else cache.clear())
        disk.go_on.set()

        assert await read is None
        assert cache.peek(KEY) is None
        assert not cache._reading
        assert not cache._changed


async def test_a_much_smaller_budget_is_reached_while_others_are_served():
    """Between its steps other tasks run; in the end memory is within the budget, and still answers."""
    memory = MemoryStore(64 << 20, VirtualClock())
    cache = ExactCache(memory, None)
    for number in range(40):
        memory.keep(Entry(number.to_bytes(32), bytes(1 << 20), 1000.0, 2000.0))
    sizes = []

    async def watch() -> None:
        while memory.max_bytes != 2 << 20:
            sizes.append(memory.used_bytes)
            await asyncio.sleep(0)

    await asyncio.gather(watch(), cache.resize(2 << 20))

    assert len(set(sizes)) > 5
    assert 0 < memory.used_bytes <= memory.max_bytes


async def test_a_clock_that_is_set_back_prolongs_nothing(tmp_path):
    """What was stored under a clock far ahead is gone in both tiers: nobody knows its age. A minute is no matter."""
    clock = VirtualClock(5000.0)
    disk = DiskStore(tmp_path, 1 << 20, clock)
    await disk.open()
    cache = ExactCache(MemoryStore(10_000, clock), disk)
    cache.keep(Entry(KEY, b"v", 5000.0, 5100.0))
    await disk.flush()

    clock.now = 4950.0
    assert cache.peek(KEY) is not None
    clock.now = 4000.0
    assert [batch async for batch in cache.entries() if batch] == []
    assert cache.peek(KEY) is None
    assert await disk.get(KEY) is None
    await cache.close()
    await disk.close()
