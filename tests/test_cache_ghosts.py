"""The keys that left the memory tier: who is remembered, for how long, and at what cost."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from cache.ghosts import Ghosts


def key_of(number: int) -> bytes:
    """Return the key of this number."""
    return sha256(number.to_bytes(8)).digest()


def test_a_key_is_remembered_once_and_until_enough_others_were_put():
    """Taking a key forgets it; one that was put too long ago is not there any more."""
    ghosts = Ghosts()
    for number in range(100):
        ghosts.put(key_of(number), limit=1000, most_bytes=1 << 20)

    assert ghosts.take(key_of(99), limit=1000)
    assert not ghosts.take(key_of(99), limit=1000)
    assert not ghosts.take(key_of(5), limit=50)
    assert not ghosts.take(key_of(1000), limit=1000)


def test_most_keys_within_the_limit_are_remembered():
    """A table that has grown to its limit knows nearly all of the last keys, each in a few bytes."""
    ghosts = Ghosts()
    for number in range(20_000):
        ghosts.put(key_of(number), limit=1000, most_bytes=1 << 20)

    known = sum(ghosts.take(key_of(number), limit=1000) for number in range(19_000, 20_000))
    assert known > 700
    assert ghosts.used_bytes <= 1000 * 4 * 8


@given(st.integers(0, 5000), st.lists(st.integers(0, 50), max_size=80))
def test_the_table_stays_within_its_bytes_and_knows_only_what_was_put(most_bytes, numbers):
    """Whatever is put, the bound holds, and nobody is taken for one who never left."""
    ghosts = Ghosts()
    for number in numbers:
        ghosts.put(key_of(number), limit=60, most_bytes=most_bytes)

    assert ghosts.used_bytes <= most_bytes
    assert not any(ghosts.take(key_of(number), limit=60) for number in range(51, 80))
    ghosts.clear()
    assert not any(ghosts.take(key_of(number), limit=60) for number in numbers)
