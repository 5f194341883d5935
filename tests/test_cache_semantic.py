"""The semantic cache: the index against brute force, and what a found candidate must pass to be served."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.contract import Entry, Meaning
from cache.disk import DiskStore
from cache.memory import MemoryStore
from cache.semantic import Match, Miss, SemanticCache
from cache.semantic.fixed import FixedThreshold
from cache.semantic.index import VectorIndex
from cache.semantic.vectors import read_vector
from cache.trust.contract import Trust
from tests.fakes import VirtualClock

DIMS = 8
ALICE, BOB = b"alice", b"bob"


def make_vector(*components: float, dims: int = DIMS) -> bytes:
    """Return these components, then zeros, as a normalised vector."""
    row = np.zeros(dims, dtype="<f4")
    row[: len(components)] = components
    return (row / np.linalg.norm(row)).tobytes()


NORTH = make_vector(1.0)
NEAR_NORTH = make_vector(1.0, 0.1)
FAR_FROM_NORTH = make_vector(1.0, 2.0)


def make_entry(
    number: int,
    text: str = "What is the capital of France?",
    vector: bytes = NORTH,
    *,
    partition: bytes = ALICE,
    expires_at: float = 2000.0,
) -> Entry:
    """Return an entry of this number that means the text."""
    meaning = Meaning(partition, text, vector)
    return Entry(number.to_bytes(32), f"answer {number}".encode(), 1000.0 + number / 1000, expires_at, meaning)


class Fixture:
    """A semantic cache over a store in memory, with what a gateway does at a write."""

    def __init__(self, trust: Trust | None = None) -> None:
        self.clock = VirtualClock()
        self.store = MemoryStore(1 << 20, self.clock)
        self.cache = SemanticCache(self.store, trust=trust, clock=self.clock)

    def remember(self, entry: Entry) -> None:
        """Keep the entry, findable."""
        self.store.keep(entry)
        self.cache.add(entry)

    async def find(self, text: str, vector: bytes = NORTH, partition: bytes = ALICE) -> Match | Miss:
        """Look a question up."""
        return await self.cache.find("model", Meaning(partition, text, vector))


@pytest.fixture
async def semantic() -> AsyncIterator[Fixture]:
    """Yield a semantic cache with the default threshold."""
    fixture = Fixture()
    yield fixture
    await fixture.cache.close()


async def test_a_paraphrase_is_found_with_its_similarity(semantic):
    """A question near enough, that no guard vetoes, gets the entry and the question it was stored for."""
    entry = make_entry(1)
    semantic.remember(entry)

    match = await semantic.find("Tell me the capital city of France", NEAR_NORTH)

    assert (match.entry, match.matched_text) == (entry, "What is the capital of France?")
    assert match.similarity == match.confidence == pytest.approx(0.995, abs=0.001)


async def test_partitions_never_see_each_other(semantic):
    """The same question of another tenant, or after another conversation, is a miss."""
    semantic.remember(make_entry(1, partition=ALICE))

    assert await semantic.find("What is the capital of France?", partition=BOB) == Miss("empty")


async def test_a_key_that_moved_to_another_partition_is_not_served(semantic):
    """The store's entry decides whose it is, not the index, which may be late."""
    semantic.remember(make_entry(1, partition=ALICE))
    semantic.store.keep(make_entry(1, partition=BOB))

    assert (await semantic.find("What is the capital of France?")).reason == "gone"


async def test_below_the_threshold_is_a_miss_that_says_how_near_it_was(semantic):
    """The best similarity is reported, so that a threshold can be judged."""
    semantic.remember(make_entry(1))

    miss = await semantic.find("Tell me the capital of France", FAR_FROM_NORTH)

    assert (miss.reason, miss.best_similarity) == ("below-threshold", pytest.approx(0.447, abs=0.001))


async def test_a_near_miss_is_vetoed_with_its_reason(semantic):
    """However similar the vectors are, a guard's veto is a miss that names it."""
    semantic.remember(make_entry(1))

    miss = await semantic.find("What is the capital of Finland?")

    assert (miss.reason, miss.veto.guard) == ("vetoed", "names")
    assert "france" in miss.veto.reason


async def test_a_vetoed_candidate_gives_way_to_the_next(semantic):
    """The nearest stored question is another one; the second nearest is the right one, and is served."""
    semantic.remember(make_entry(1, "What is the capital of Finland?", NORTH))
    semantic.remember(make_entry(2, "What is the capital of France?", NEAR_NORTH))

    match = await semantic.find("Tell me the capital of France", NORTH)

    assert match.entry == make_entry(2, "What is the capital of France?", NEAR_NORTH)


async def test_the_same_question_is_found_behind_many_of_other_numbers(semantic):
    """Questions that differ in a number stand close together: those nearest may all be vetoed."""
    for number in range(1, 13):
        semantic.remember(make_entry(number, f"How many metres are {number} km?", make_vector(1.0, number / 100)))

    match = await semantic.find("How many metres are 10 km?")
    miss = await semantic.find("How many metres are 20 km?")

    assert match.entry.key == make_entry(10).key
    assert len(match.candidates) == 10
    assert (miss.reason, miss.veto.guard, len(miss.candidates)) == ("vetoed", "numbers", 12)


@pytest.mark.parametrize("loss", ["removed", "expired"])
async def test_a_candidate_whose_entry_is_gone_gives_way_to_the_next(semantic, loss):
    """An entry evicted or expired in the store is passed over, and forgotten by the index."""
    semantic.remember(make_entry(1, "The capital of France is?", NORTH, expires_at=semantic.clock() + 5))
    semantic.remember(make_entry(2, "What is the capital of France?", NEAR_NORTH))
    if loss == "removed":
        semantic.store.discard(make_entry(1).key)
    semantic.clock.advance(6)

    assert (await semantic.find("Tell me the capital of France")).entry.key == make_entry(2).key
    await semantic.find("anything")
    assert semantic.cache.entries == 1


async def test_finding_does_not_extend_the_time_to_live(semantic):
    """An entry that is found again and again still ends when it was to end."""
    semantic.remember(make_entry(1, expires_at=semantic.clock() + 10))
    for _ in range(3):
        assert isinstance(await semantic.find("capital of France?"), Match)
        semantic.clock.advance(3)
    semantic.clock.advance(1)

    assert (await semantic.find("capital of France?")).reason == "gone"


async def test_the_same_question_is_kept_once(semantic):
    """A write storm of one text leaves one vector, that of the latest entry."""
    for n in range(50):
        semantic.remember(make_entry(n))

    assert (await semantic.find("capital of France")).entry.key == make_entry(49).key
    assert semantic.cache.entries == 1


async def test_a_removed_entry_is_not_found(semantic):
    """Removal from the index takes effect before the next look-up."""
    semantic.remember(make_entry(1))
    semantic.cache.remove(make_entry(1).key)

    assert await semantic.find("capital of France") == Miss("empty")


async def test_an_entry_without_a_meaning_is_left_alone(semantic):
    """Embeddings and classifications are never found by meaning."""
    semantic.cache.add(Entry(bytes(32), b"v", 0.0, 2000.0))

    assert await semantic.find("anything") == Miss("empty")


@pytest.mark.parametrize(
    "vector",
    [bytes(4 * DIMS), make_vector(1.0, dims=DIMS + 1), np.full(DIMS, np.nan, dtype="<f4").tobytes(), b"", b"abc"],
    ids=["zero", "other dimensions", "not a number", "empty", "torn"],
)
async def test_a_bad_vector_is_a_miss_and_is_never_indexed(semantic, vector):
    """What cannot be compared matches nothing, neither as a question nor as an entry."""
    semantic.remember(make_entry(1))
    semantic.remember(make_entry(2, "Another question", vector))

    assert (await semantic.find("What is the capital of France?", vector)).reason == "bad-vector"
    assert isinstance(await semantic.find("capital of France?"), Match)
    assert semantic.cache.counters.refused == 2


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.01, float("nan")])
def test_a_threshold_that_cannot_be_a_similarity_is_refused(threshold):
    """0 would serve anything, and a distance is no similarity."""
    with pytest.raises(ValueError, match="threshold"):
        FixedThreshold(threshold)


async def test_a_threshold_of_one_serves_only_the_same_vector():
    """The upper end of the range is allowed, and strict."""
    fixture = Fixture(FixedThreshold(1.0))
    fixture.remember(make_entry(1))

    assert (await fixture.find("Tell me the capital of France", NEAR_NORTH)).reason == "below-threshold"
    assert isinstance(await fixture.find("Tell me the capital of France", NORTH), Match)
    await fixture.cache.close()


async def test_the_index_is_rebuilt_from_the_disk(tmp_path):
    """After a restart what the disk remembers is found by meaning; the index itself is stored nowhere."""
    clock = VirtualClock()
    entries = [make_entry(n, f"What is the capital of country number {n}?", make_vector(1.0, n)) for n in range(300)]
    disk = DiskStore(tmp_path, 1 << 24, clock, read_deadline_s=5.0)
    await disk.open()
    for entry in entries:
        disk.keep(entry)
    disk.keep(Entry(bytes([255]) * 32, b"no meaning", 0.0, 2000.0))
    await disk.close()

    disk = DiskStore(tmp_path, 1 << 24, clock, read_deadline_s=5.0)
    await disk.open()
    cache = SemanticCache(disk, clock=clock)
    cache.load(disk)
    await cache.loaded()
    assert cache.entries == 300

    asked = Meaning(ALICE, "Tell me the capital of country number 7", make_vector(1.0, 7))
    match = await cache.find("model", asked, 5.0)
    assert match.entry == entries[7]
    await cache.close()
    await disk.close()


async def test_loading_does_not_bring_back_an_older_answer(semantic):
    """While the disk is loaded a newer answer to the same question came in: the newer one is found."""

    class Disk:
        """Remembers the former answer."""

        async def meanings(self, skip: Callable[[bytes], bool]) -> AsyncIterator[list[Entry]]:
            """Yield it."""
            yield [entry for entry in [make_entry(1)] if not skip(entry.key)]

    semantic.store.keep(make_entry(1))
    semantic.remember(make_entry(2))
    semantic.cache.load(Disk())
    await semantic.cache.loaded()

    assert (await semantic.find("capital of France")).entry.key == make_entry(2).key


async def test_look_ups_and_writes_from_many_tasks_agree(semantic):
    """Many tasks at once find exactly what they stored themselves."""

    async def store_and_find(n: int) -> None:
        text, vector = f"Question number {n}?", make_vector(1.0, n * 0.01)
        semantic.remember(make_entry(n, text, vector, partition=bytes([n % 3])))
        await asyncio.sleep(0)
        match = await semantic.find(text, vector, bytes([n % 3]))
        assert match.entry.key == make_entry(n).key

    async with asyncio.TaskGroup() as group:
        for n in range(60):
            group.create_task(store_and_find(n))


KEYS = st.integers(0, 12)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), KEYS, st.integers(0, 9), st.sampled_from([ALICE, BOB])),
        st.tuples(st.just("remove"), KEYS, st.just(0), st.just(ALICE)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(STEPS, st.integers(1, 40), st.integers(0, 1 << 32))
def test_the_index_agrees_with_brute_force(steps, capacity, seed):
    """After any additions, replacements, removals and evictions the nearest keys are those that a full scan finds.

    Several keys may have one text, and so one vector: the one stored last is found, and after its removal the former.
    """
    index = VectorIndex(capacity * 4096, lambda: 0.0)
    rows: dict[tuple[bytes, str], list[int]] = {}

    def vector_of(place: tuple[bytes, str]) -> bytes:
        number = int.from_bytes(hashlib.sha256(place[0] + place[1].encode()).digest()[:4]) + seed
        return make_vector(*np.random.default_rng(number).standard_normal(DIMS))

    for at, (what, key, text, partition) in enumerate(steps):
        for place in [place for place, keys in rows.items() if key in keys]:
            rows[place].remove(key)
            if not rows[place]:
                del rows[place]
        if what == "remove":
            index.remove(key.to_bytes(32))
            continue
        place = (partition, str(text))
        index.add(Entry(key.to_bytes(32), b"", float(at), 1e9, Meaning(partition, str(text), vector_of(place))))
        rows[place] = [*rows.pop(place, []), key][-5:]
        while len(rows) > len(index):
            del rows[next(iter(rows))]

    assert index.used_bytes <= capacity * 4096
    query = make_vector(*np.random.default_rng(seed).standard_normal(DIMS))
    for partition in (ALICE, BOB):
        scanned = sorted(
            (
                (float(read_vector(vector_of(place)) @ read_vector(query)), keys[-1].to_bytes(32))
                for place, keys in rows.items()
                if place[0] == partition
            ),
            reverse=True,
        )[:4]
        view = index.view(partition)
        found = [] if view is None else view.nearest(read_vector(query), 4)
        assert [index.key_of(each.number) for each in found] == [key for _, key in scanned]
        assert [each.score for each in found] == pytest.approx([score for score, _ in scanned], abs=1e-5)


def test_an_empty_index_costs_nothing():
    """What is added and removed again leaves no partition behind, as every conversation makes one."""
    index = VectorIndex(1 << 20)
    for n in range(100):
        index.add(make_entry(n, "text", partition=n.to_bytes(8)))
    for n in range(100):
        index.remove(n.to_bytes(32))

    assert (len(index), index.used_bytes, index._partitions) == (0, 0, {})
