"""Entries that wait to be written: one of a key, in their order, within both bounds."""

from hypothesis import given
from hypothesis import strategies as st

from cache.contract import Entry
from cache.write_queue import WriteQueue

MOST_ENTRIES, MOST_BYTES = 4, 100
PUTS = st.tuples(st.just("put"), st.sampled_from(b"abcdef"), st.integers(0, 60))
OTHERS = st.tuples(st.sampled_from(["remove", "take", "clear"]), st.sampled_from(b"abcdef"), st.just(0))


def entry(key: bytes, size: int) -> Entry:
    """Make an entry of this size."""
    return Entry(key=key, value=bytes(size), stored_at=0.0, expires_at=1.0)


@given(st.lists(st.one_of(PUTS, PUTS, OTHERS), max_size=30))
def test_it_holds_what_was_put_last_as_long_as_there_is_room(steps):
    """Whatever comes, it is the dictionary that one would write down, and its account of bytes is that one's."""
    queue = WriteQueue(MOST_ENTRIES, MOST_BYTES)
    expected: dict[bytes, int] = {}
    for what, letter, size in steps:
        key = bytes([letter])
        if what == "put":
            expected.pop(key, None)
            fits = len(expected) < MOST_ENTRIES and sum(expected.values()) + size <= MOST_BYTES
            if fits:
                expected[key] = size
            assert queue.put(entry(key, size)) is fits
        elif what == "remove":
            expected.pop(key, None)
            queue.remove(key)
        elif what == "take":
            assert [(each.key, len(each.value)) for each in queue.take()] == list(expected.items())
            expected.clear()
        else:
            assert queue.clear() == len(expected)
            expected.clear()
        assert {each: len(queued.value) for each, queued in queue.entries.items()} == expected


def test_much_is_taken_in_several_batches():
    """A batch ends with the entry that fills it, so that a reader need not wait long; nothing is taken twice."""
    queue = WriteQueue(1000, 1 << 30)
    for number in range(200):
        queue.put(entry(b"%d" % number, 40_000))
    batches = []
    while batch := queue.take():
        batches.append([each.key for each in batch])
    assert max(map(len, batches)) == 27
    assert [key for batch in batches for key in batch] == [b"%d" % number for number in range(200)]
