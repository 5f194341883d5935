"""What callers said of what they will ask for, and the credit that bounds it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.hints import CREDIT_LASTS_S, LEAST_BYTES, REFILLED_IN_S, Credits, Hints

GIB = 2**30


def hints() -> tuple[Hints, list[str]]:
    """Make hints, and the list of the times that the keeper was woken."""
    woken: list[str] = []
    return Hints(lambda: woken.append("")), woken


def test_the_most_that_anybody_hinted_at_counts_until_it_ends():
    """Hints of several callers are no sum: each says how many it expects to be enough."""
    known, woken = hints()
    known.give("a", 1, until=100.0)
    known.give("b", 3, until=50.0)

    assert [known.replicas(now) for now in (0.0, 49.0, 50.0, 100.0)] == [3, 3, 1, 0]
    assert len(woken) == 2


def test_a_later_hint_takes_nothing_from_those_before():
    """More replicas for a shorter time, and fewer for a longer one, are in force beside the first; less is nothing."""
    known, _ = hints()
    known.give("a", 2, until=100.0)
    known.give("a", 1, until=60.0)
    known.give("a", 3, until=50.0)
    known.give("a", 1, until=200.0)

    assert [known.replicas(now) for now in (0.0, 50.0, 100.0, 200.0)] == [3, 2, 1, 0]
    known.give("a", 2, until=300.0)
    known.give("a", 1, until=400.0)
    assert [known.until("a", replicas, 5.0) for replicas in (1, 2, 3)] == [400.0, 300.0, 5.0]
    assert known.until("b", 1, 5.0) == 5.0


def test_a_promise_holds_a_replica_and_wakes_the_keeper_once():
    """Of many who are sent away the first makes it start; the last of them makes it stay."""
    known, woken = hints()
    known.promise(10.0, until=20.0)
    known.promise(15.0, until=30.0)

    assert (known.replicas(29.0), known.promised_since(29.0)) == (1, 10.0)
    assert (known.replicas(30.0), known.promised_since(30.0)) == (0, None)
    assert len(woken) == 1
    known.promise(40.0, until=50.0)
    assert known.promised_since(41.0) == 40.0


def test_a_credit_runs_out_and_comes_back():
    """What may be held for an hour is spent by two GiB in half the time, and half of it is back half a day later."""
    credits_ = Credits(GIB)

    whole = credits_.spend("a", size=2 * GIB, replicas=1, for_s=CREDIT_LASTS_S, now=0.0)
    assert (whole.replicas, whole.for_s, whole.left) == (1, CREDIT_LASTS_S / 2, 0.0)
    assert whole.enough_in_s == pytest.approx(REFILLED_IN_S)
    none = credits_.spend("a", size=2 * GIB, replicas=1, for_s=60.0, now=0.0)
    assert none.for_s == 0.0
    assert credits_.left("a", REFILLED_IN_S / 2) == pytest.approx(0.5)
    assert credits_.spend("b", size=GIB, replicas=1, for_s=60.0, now=0.0).for_s == 60.0


def test_without_credit_nothing_is_granted():
    """A credit of nothing switches hints off."""
    grant = Credits(0).spend("a", size=GIB, replicas=1, for_s=60.0, now=0.0)

    assert (grant.for_s, grant.left) == (0.0, 0.0)


@given(
    st.lists(
        st.tuples(st.floats(0, 1e5), st.integers(0, 8 * GIB), st.integers(1, 4), st.floats(0, 1e5)),
        max_size=30,
    )
)
def test_nobody_holds_more_than_the_credit_and_what_came_back(asked):
    """Whatever is asked, the bytes times seconds that were granted stay within the credit and its refill."""
    credits_, now, granted = Credits(4 * GIB), 0.0, 0.0
    for after_s, size, replicas, for_s in asked:
        now += after_s
        grant = credits_.spend("a", size=size, replicas=replicas, for_s=for_s, now=now)
        assert 0.0 <= grant.for_s <= for_s
        assert 0.0 <= grant.left <= 1.0
        granted += grant.for_s * max(size, LEAST_BYTES) * replicas
    whole = 4 * GIB * CREDIT_LASTS_S
    assert granted <= whole * (1 + now / REFILLED_IN_S) * (1 + 1e-9)
