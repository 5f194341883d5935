"""How many replicas a load is worth: as many as cost less than the waiting that they spare."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backends.warmth.replicas import replicas_for

MANY = 10_000


def quantile(jobs: float, share: float) -> int:
    """Return the number that Poisson's does not exceed with this chance, straight from its definition."""
    count, chance = 0, math.exp(-jobs)
    reached = chance
    while reached < share:
        count += 1
        chance *= jobs / count
        reached += chance
    return count


@pytest.mark.parametrize("jobs", [0.01, 0.1, 0.5, 1.0, 3.0, 10.0, 30.0])
@pytest.mark.parametrize("wait_price", [10.0, 100.0])
def test_with_one_slot_each_it_is_the_newsvendors_quantile(jobs: float, wait_price: float) -> None:
    """The chance of more jobs than replicas is what one more costs beside the wait that it spares."""
    jobs = math.exp(round(math.log(jobs) * 50) / 50)  # as fine as loads are told apart
    expected = max(1, quantile(jobs, 1 - 1 / wait_price))
    assert replicas_for(jobs, 1, wait_price, MANY) == expected


@pytest.mark.parametrize("jobs", [45.0, 60.0, 500.0, 5000.0])
def test_great_loads_leave_a_margin_of_a_few_deviations(jobs: float) -> None:
    """Nothing jumps where another distribution takes over, and nothing overflows."""
    count = replicas_for(jobs, 1, 100.0, MANY)
    assert jobs + 2 * math.sqrt(jobs) < count < jobs + 3 * math.sqrt(jobs)


@example(1124.0, 1.5, 1, 1.0)
@given(st.floats(0, 2000), st.floats(1, 1.5), st.integers(1, 64), st.sampled_from([1.0, 30.0, 300.0]))
def test_more_load_and_dearer_waits_never_make_fewer(jobs: float, more: float, slots: int, price: float) -> None:
    """Monotone in load and in the price of a wait, at least one, at most what is allowed."""
    count = replicas_for(jobs, slots, price, MANY)
    assert 1 <= count <= replicas_for(jobs * more, slots, price, MANY)
    assert count <= replicas_for(jobs, slots, price * 3, MANY)
    assert replicas_for(jobs, slots, price, 2) == min(2, count)


def test_slots_share_a_load_better_than_replicas_do() -> None:
    """Sixteen slots of one replica take what needs more slots in replicas of one slot each, relative to the load."""
    assert replicas_for(8.0, 16, 100.0, MANY) <= 2
    assert replicas_for(8.0, 1, 100.0, MANY) == quantile(math.exp(round(math.log(8.0) * 50) / 50), 0.99)
