"""What the disk's tier knows of its keys without asking the disk."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from cache.contract import Entry
from cache.disk import DiskStore
from cache.disk.database import Database
from cache.disk.known import Known


@given(st.sets(st.binary(min_size=32, max_size=32), max_size=200))
def test_no_key_that_was_added_is_denied(keys):
    """Also where there are more of them than it has room for."""
    known = Known(0)

    for key in keys:
        known.add(key)

    assert all(key in known for key in keys)


def test_most_keys_that_were_not_added_are_denied():
    """With as many keys as it has room for a yes in vain is rare."""
    known = Known(5000)
    for number in range(known.capacity):
        known.add(number.to_bytes(32))

    in_vain = sum((number + (1 << 40)).to_bytes(32) in known for number in range(10_000))

    assert in_vain < 100


def entry(number: int) -> Entry:
    """Make an entry that lives long."""
    return Entry(number.to_bytes(32), b"answer", 1.0, 1e12)


async def keys_are_learned() -> None:
    """Wait until the store knows what is on disk."""
    await asyncio.wait([task for task in asyncio.all_tasks() if task.get_name() == "cache-disk-keys"])


async def test_what_may_be_there_is_looked_for_and_nothing_else(tmp_path, monkeypatch):
    """Keys are learned at the start, and again once many have come since; no row is denied at any moment."""
    former = DiskStore(tmp_path, 1 << 26)
    await former.open()
    former.keep(entry(1))
    await former.close()
    store = DiskStore(tmp_path, 1 << 26, queue_entries=10_000)
    await store.open()
    assert await store.get(entry(1).key) is not None
    await keys_are_learned()
    for number in range(2, 5000):
        store.keep(entry(number))
    await keys_are_learned()
    await store.flush()

    looked_for: list[bytes] = []
    monkeypatch.setattr(Database, "read", lambda _, key: looked_for.append(key))
    assert [await store.get(entry(number).key) for number in range(1, 10_000)] == [None] * 9_999
    await store.close()
    assert set(looked_for) >= {entry(number).key for number in range(1, 5000)}
    assert len(looked_for) < 5100
