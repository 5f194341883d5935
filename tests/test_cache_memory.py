"""The memory tier: its bound, its order of eviction, its time to live."""

import tracemalloc
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from cache.contract import Entry, Meaning
from cache.memory import MemoryStore, footprint_bytes
from tests.fakes import VirtualClock


def key_of(number: int) -> bytes:
    """Return the key of this number."""
    return sha256(number.to_bytes(8)).digest()


def make_entry(
    number: int = 0, *, size: int = 100, expires_at: float = 2000.0, meaning: Meaning | None = None
) -> Entry:
    """Return the entry of this number."""
    return Entry(key_of(number), b"v" * size, 1000.0, expires_at, meaning)


def test_a_kept_entry_is_found_by_its_key():
    """What was kept is what is returned."""
    store = MemoryStore(10_000, VirtualClock())
    entry = make_entry()

    store.keep(entry)

    assert store.peek(entry.key) is entry
    assert store.peek(b"another") is None


async def test_the_store_protocol_is_the_same_store():
    """put, get and remove do what keep, peek and discard do."""
    store = MemoryStore(10_000, VirtualClock())
    entry = make_entry()

    await store.put(entry)
    assert await store.get(entry.key) is entry
    await store.remove(entry.key)

    assert await store.get(entry.key) is None
    assert store.used_bytes == 0


def test_reading_never_extends_the_time_to_live():
    """An entry read until its last moment is gone at that moment, and leaves its bytes."""
    clock = VirtualClock()
    store = MemoryStore(10_000, clock)
    entry = make_entry(expires_at=clock() + 10)
    store.keep(entry)

    for _ in range(9):
        clock.advance(1)
        assert store.peek(entry.key) is entry
    clock.advance(1)

    assert store.peek(entry.key) is None
    assert (store.used_bytes, store.counters.expired) == (0, 1)


def test_what_was_asked_for_again_outlives_what_was_not():
    """Reading an entry saves it from a scan of three times as many as there is room for."""
    entries = [make_entry(n) for n in range(60)]
    store = MemoryStore(20 * footprint_bytes(entries[0]), VirtualClock())
    store.keep(entries[0])
    store.keep(entries[1])
    store.peek(entries[0].key)

    for entry in entries[2:]:
        store.keep(entry)

    assert store.peek(entries[0].key) is not None
    assert store.peek(entries[1].key) is None


def test_who_comes_back_soon_after_it_left_is_taken_for_good():
    """Those that are kept a second time outlive a scan, though nobody read them; their keys are nearly all known."""
    entries = [make_entry(n) for n in range(400)]
    store = MemoryStore(100 * footprint_bytes(entries[0]), VirtualClock())
    for entry in entries[:140]:
        store.keep(entry)
    left = [entry for entry in entries[:140] if store.peek(entry.key) is None]

    for entry in [*left, *entries[140:]]:
        store.keep(entry)

    assert sum(store.peek(entry.key) is not None for entry in left) > len(left) / 2 > 15


def test_a_large_newcomer_is_let_in_when_it_comes_again():
    """What would push out all other newcomers is refused at first, and believed the second time."""
    store = MemoryStore(40_000, VirtualClock())
    for n in range(60):
        store.keep(make_entry(n))
    kept = len(store)

    store.keep(make_entry(100, size=10_000))
    assert store.peek(make_entry(100).key) is None
    assert (len(store), store.counters.refused) == (kept, 1)
    store.keep(make_entry(100, size=10_000))

    assert store.peek(make_entry(100).key) is not None


def test_an_entry_beyond_the_whole_budget_is_not_kept_and_evicts_nobody():
    """A giant is refused, and what it would have replaced is forgotten as it is out of date."""
    store = MemoryStore(2_000, VirtualClock())
    store.keep(make_entry(1))
    store.keep(make_entry(2))

    store.keep(make_entry(2, size=5_000))

    assert store.peek(make_entry(1).key) is not None
    assert store.peek(make_entry(2).key) is None
    assert store.counters.refused == 1


ENTRIES = st.builds(
    make_entry,
    st.integers(0, 8),
    size=st.integers(0, 900),
    expires_at=st.floats(990, 1010),
    meaning=st.none() | st.builds(Meaning, st.binary(max_size=32), st.text(max_size=50), st.binary(max_size=64)),
)
STEPS = st.one_of(
    st.tuples(st.just("keep"), ENTRIES),
    st.tuples(st.sampled_from(["peek", "discard"]), st.integers(0, 8)),
    st.tuples(st.just("advance"), st.floats(0, 3)),
)


@given(st.integers(0, 5_000), st.lists(STEPS, max_size=60))
def test_the_account_of_bytes_is_exact_and_within_the_budget(budget, steps):
    """Whatever happens, the bytes counted are those of what is kept, and never more than the budget."""
    clock = VirtualClock()
    store = MemoryStore(budget, clock)
    last: dict[bytes, Entry] = {}
    for what, argument in steps:
        if what == "keep":
            store.keep(argument)
            last[argument.key] = argument
        elif what == "peek":
            found = store.peek(key_of(argument))
            assert found is None or (found is last[found.key] and found.expires_at > clock())
        elif what == "discard":
            store.discard(key_of(argument))
            assert store.peek(key_of(argument)) is None
        else:
            clock.advance(argument)
        here = [*store._main.values(), *store._small.values()]
        kept = sum(footprint_bytes(slot.entry) for slot in here)
        assert kept == store.used_bytes - store._ghosts.used_bytes
        assert store.used_bytes <= budget
        assert store._small_bytes == sum(slot.size for slot in store._small.values())
        counted = store.counters
        gone = counted.refused + counted.replaced + counted.evictions + counted.expired + counted.removed
        assert counted.kept == len(store) + gone


def test_the_footprint_is_not_below_what_the_interpreter_spends():
    """A budget in bytes is kept in real bytes: the estimate covers what tracemalloc sees."""
    store = MemoryStore(1 << 30, VirtualClock())

    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for n in range(500):
        text = f"question number {n}"
        store.keep(
            Entry(n.to_bytes(32), bytes(300), 1000.0 + n, 2000.0 + n, Meaning(bytes([n % 250]) * 32, text, bytes(1536)))
        )
    spent = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    assert 0.7 * store.used_bytes < spent <= store.used_bytes
