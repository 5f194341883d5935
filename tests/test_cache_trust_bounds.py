"""The bounds on wrong answers: what they are worth, and that they hold at every look, also where the traffic drifts."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.trust.bounds import is_below, lower_mean, upper_mean
from cache.trust.sample import Ledger

DELTA = 0.05


def test_without_a_wrong_one_the_bound_is_nearly_the_rule_of_three() -> None:
    """For 1 % at 95 % some 325 right ones in a row suffice, and 299, which one look alone would need, do not."""
    assert upper_mean(299, 0, DELTA) > 0.01
    assert upper_mean(325, 0, DELTA) <= 0.01


@pytest.mark.parametrize(("wrong", "enough"), [(1, 750), (2, 1000), (5, 1600), (10, 2450)])
def test_wrong_ones_cost_labels_and_do_not_forbid_a_certificate(wrong: int, enough: int) -> None:
    """With a few wrong ones the bound is reached later."""
    assert upper_mean(enough, wrong, DELTA) <= 0.01 < upper_mean(enough // 2, wrong, DELTA)


@given(looked_at=st.integers(1, 5000), share=st.floats(0, 1), delta=st.floats(0.001, 0.2))
def test_bounds_enclose_what_was_seen(looked_at: int, share: float, delta: float) -> None:
    """The share that was seen lies between the bounds, which lie between 0 and 1."""
    wrong = int(share * looked_at)
    low, high = lower_mean(looked_at, wrong, delta), upper_mean(looked_at, wrong, delta)
    assert 0 <= low <= wrong / looked_at + 1e-9
    assert wrong / looked_at - 1e-9 <= high <= 1


@given(looked_at=st.integers(1, 3000), wrong=st.integers(0, 40), target=st.floats(0.002, 0.3))
def test_the_quick_question_has_the_bounds_answer(looked_at: int, wrong: int, target: float) -> None:
    """`is_below` says what `upper_mean` says."""
    high = upper_mean(looked_at, wrong, DELTA)
    if abs(high - target) > 1e-6:
        assert is_below(looked_at, wrong, DELTA, target) == (high <= target)


def test_nothing_seen_bounds_nothing() -> None:
    """Without a label all may be wrong."""
    assert upper_mean(0, 0, DELTA) == 1.0
    assert Ledger(0.0, 0.05).upper(DELTA) == 1.0


def _chance(kind: str, at: int, found: int) -> float:
    """Return how likely the next one is wrong: fixed, drifting, or by an opponent who has seen all that came before."""
    if kind == "steady":
        return 0.02
    if kind == "drift":
        return 0.002 if at < 300 else 0.1
    return 0.0 if found else 0.03


@pytest.mark.parametrize("kind", ["steady", "drift", "opponent"])
def test_the_bound_is_below_the_truth_at_no_look_but_with_the_stated_probability(kind: str) -> None:
    """Over many streams the mean chance exceeds its bound at any of all looks in no more than δ of them."""
    misses, runs = 0, 100
    for seed in range(runs):
        rng, total, wrong = Random(seed), 0.0, 0
        for at in range(1, 700):
            chance = _chance(kind, at, wrong)
            total += chance
            wrong += rng.random() < chance
            if at % 10 == 0 and is_below(at, wrong, DELTA, total / at - 1e-9):
                misses += 1
                break
    # δ is 5 of 100; nearly four standard deviations more are 13.
    assert misses <= 13


def test_the_ledger_bounds_what_was_served_and_seldom_looked_at() -> None:
    """Where chance looked at one hit in ten, the bound on all hits holds, through a drift that nobody announced."""
    misses, runs, share = 0, 60, 0.1
    for seed in range(runs):
        rng, ledger, total = Random(seed), Ledger(0.0, share), 0.0
        for at in range(1500):
            chance = 0.001 if at < 800 else 0.08
            total += chance
            ledger = ledger.serve(share)
            if rng.random() < share:
                ledger = ledger.audit(share, same=rng.random() >= chance)
            if at % 50 == 49 and ledger.upper(DELTA) * (at + 1) < total:
                misses += 1
                break
    assert misses <= 9


def test_the_ledger_says_something_in_the_end() -> None:
    """Some 700 hits of which every tenth was found right have a bound of one in twenty."""
    ledger = Ledger(0.0, 0.1)
    for at in range(700):
        ledger = ledger.serve(0.1)
        if at % 10 == 0:
            ledger = ledger.audit(0.1, same=True)
    assert ledger.upper(DELTA) < 0.05


def test_the_estimate_counts_for_those_that_nobody_looked_at() -> None:
    """A wrong one found by looking at one in twenty stands for twenty."""
    ledger = Ledger(0.0, 0.05).serve(0.05).audit(0.05, same=False)
    assert (ledger.hits, ledger.audited, ledger.wrong) == (1, 1, 1)
    assert ledger.found == pytest.approx(20)
