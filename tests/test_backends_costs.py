"""Costs: what is learned comes close to the truth, follows a change, and survives a restart."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.costs import STARTS_REMEMBERED, YOUNG_JOBS, CostSeed, ModelCosts
from backends.estimators import DecayedMean, DurationHistogram, LinearFit


def taught(jobs: int, *, base_s: float = 0.05, seed: int = 1) -> ModelCosts:
    """Return costs that learned jobs of `base_s` + 1 ms a token read + 20 ms a token made, within 5 %."""
    costs, rng = ModelCosts(), random.Random(seed)
    for _ in range(jobs):
        tokens_in, tokens_out = rng.randrange(10, 400), rng.randrange(1, 120)
        service_s = (base_s + 0.001 * tokens_in + 0.02 * tokens_out) * rng.uniform(0.95, 1.05)
        costs.learn_job(service_s=service_s, first_event_s=0.1, tokens_in=tokens_in, tokens_out=tokens_out)
    return costs


def test_seeds_hold_until_something_was_measured():
    """Before any measurement the config speaks; the first one replaces it."""
    costs = ModelCosts(CostSeed(start_s=7.0, memory_bytes=5, service_s=2.0, tokens_out=10.0))
    assert (costs.start_s(), costs.memory_bytes, costs.mean_service_s, costs.tokens_out) == (7.0, 5, 2.0, 10.0)
    assert costs.service_s(100, 100) == 2.0
    costs.learn_job(service_s=0.5, first_event_s=0.25, tokens_in=1, tokens_out=3)
    assert (costs.mean_service_s, costs.first_event_s, costs.tokens_out) == (0.5, 0.25, 3.0)


def test_what_was_never_measured_is_counted_on_and_bars_nothing():
    """A model may hold more than its seed says: that is expected, not demanded, until its first start has told."""
    costs = ModelCosts(CostSeed(memory_bytes=60, beyond_bytes=100))
    assert (costs.memory_bytes, costs.least_bytes) == (160, 60)
    again = ModelCosts()
    again.load(costs.dump())
    assert (again.memory_bytes, again.least_bytes) == (160, 0)
    costs.learn_start_memory(140)
    assert (costs.memory_bytes, costs.least_bytes) == (140, 140)


def test_the_largest_of_the_last_starts_is_counted_on():
    """A start that came out small does not make the next one smaller; in time it does."""
    costs = ModelCosts()
    costs.learn_start_memory(140)
    costs.learn_start_memory(115)
    assert (costs.memory_bytes, costs.least_bytes) == (140, 115)
    for _ in range(STARTS_REMEMBERED):
        costs.learn_start_memory(115)
    assert costs.memory_bytes == 115


def test_the_way_up_may_take_more_than_being_up():
    """What a start held at most is needed for the next one, and not counted on for who is up."""
    costs = ModelCosts()
    costs.learn_peak(140)
    costs.learn_start_memory(105)
    assert (costs.climb_bytes, costs.memory_bytes) == (140, 105)
    costs.learn_memory(150)
    assert costs.climb_bytes == 150


def test_service_times_are_predicted_from_tokens():
    """After a hundred jobs short and long ones are told apart within a tenth."""
    costs = taught(100)
    for tokens_in, tokens_out in ((10, 5), (300, 10), (50, 100)):
        truth = 0.05 + 0.001 * tokens_in + 0.02 * tokens_out
        assert costs.service_s(tokens_in, tokens_out) == pytest.approx(truth, rel=0.1)


def test_a_young_model_answers_with_its_mean():
    """A fit of few jobs is not trusted."""
    costs = taught(YOUNG_JOBS - 1)
    assert costs.service_s(1, 1) == costs.service_s(9999, 9999) == costs.mean_service_s


def test_a_model_that_became_slower_is_noticed():
    """A second more for every job is learned within two hundred jobs."""
    costs = taught(300)
    for _ in range(200):
        costs.learn_job(service_s=1.05 + 0.02 * 50, first_event_s=0.1, tokens_in=0, tokens_out=50)
    assert costs.service_s(0, 50) == pytest.approx(2.05, rel=0.1)


@given(st.floats(0.001, 100.0), st.integers(0, 5000), st.integers(0, 5000), st.integers(YOUNG_JOBS, 60))
def test_jobs_that_never_vary_are_predicted_exactly(service_s, tokens_in, tokens_out, count):
    """Features without spread cannot blow up the fit."""
    costs = ModelCosts()
    for _ in range(count):
        costs.learn_job(service_s=service_s, first_event_s=0.0, tokens_in=tokens_in, tokens_out=tokens_out)
    assert costs.service_s(tokens_in, tokens_out) == pytest.approx(service_s, rel=1e-3)


@given(st.lists(st.tuples(st.floats(0, 1e3), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=40))
def test_predictions_are_positive_and_finite(jobs):
    """Whatever was measured, a prediction can be added to and divided by."""
    costs = ModelCosts()
    for service_s, tokens_in, tokens_out in jobs:
        costs.learn_job(service_s=service_s, first_event_s=0.0, tokens_in=tokens_in, tokens_out=tokens_out)
    for tokens in (0, 10, 10**6):
        assert 0.0 < costs.service_s(tokens, tokens) < math.inf
    assert 0.0 < costs.mean_service_s < math.inf


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_quantiles_are_within_five_percent_of_a_value_that_was_seen(values, share):
    """A quantile is a value up to the width of its bucket, and between the least and the greatest."""
    histogram = DurationHistogram(1.0)
    for value in values:
        histogram.add(value)
    quantile = histogram.quantile(share)
    assert quantile is not None
    assert min(abs(math.log(quantile / value)) for value in values) <= 0.05


def test_a_start_is_expected_to_take_what_starts_took():
    """The rest of a start is its median less what has passed; a late one takes as long as the later ones did."""
    costs = ModelCosts()
    for seconds in (2.0, 2.0, 2.0, 10.0):
        costs.learn_start(seconds)
    assert costs.start_s() == pytest.approx(2.0, rel=0.05)
    assert costs.start_s(0.95) == pytest.approx(10.0, rel=0.05)
    assert costs.remaining_start_s(0.5) == pytest.approx(1.5, abs=0.1)
    assert costs.remaining_start_s(4.0) == pytest.approx(6.0, abs=0.5)
    assert costs.remaining_start_s(20.0) == 10.0


def test_memory_follows_peaks_at_once_and_falls_slowly():
    """A budget must not be fooled by one small measurement."""
    costs = ModelCosts()
    costs.learn_start_memory(100)
    costs.learn_memory(1000)
    costs.learn_memory(100)
    assert costs.memory_bytes == 910


def test_a_peak_fades_with_every_start():
    """One huge answer long ago says ever less about the next replica, and never that it cannot come up."""
    costs = ModelCosts(CostSeed(memory_bytes=50))
    costs.learn_start_memory(100)
    costs.learn_memory(1100)
    assert (costs.memory_bytes, costs.least_bytes) == (1100, 100)
    for expected in (600, 350, 225):
        costs.learn_start_memory(100)
        assert (costs.memory_bytes, costs.least_bytes) == (expected, 100)


def test_a_size_that_bars_a_model_ends_with_the_process():
    """After a restart the size is expected still, but a start is tried once more before it is refused for it."""
    costs = ModelCosts(CostSeed(memory_bytes=50))
    costs.learn_start_memory(10_000)
    assert costs.least_bytes == 10_000
    again = ModelCosts(CostSeed(memory_bytes=50))
    again.load(costs.dump())
    assert (again.memory_bytes, again.least_bytes) == (10_000, 50)
    again.learn_start_memory(40)
    assert (again.memory_bytes, again.least_bytes) == (40, 40)


def test_what_was_learned_survives_a_restart():
    """Through JSON and back, every answer is the same."""
    costs = taught(50)
    costs.learn_start(3.0)
    costs.learn_start_memory(12000)
    costs.learn_memory(12345)
    again = ModelCosts()
    again.load(json.loads(json.dumps(costs.dump())))
    assert again.dump() == costs.dump()
    assert again.service_s(100, 50) == costs.service_s(100, 50)
    assert (again.start_s(), again.memory_bytes) == (costs.start_s(), 12345)


@pytest.mark.parametrize(
    "spoil",
    [
        {"start": 5},
        {"fit": {"moments": [1], "targets": [], "count": 1}},
        {"start_bytes": "x"},
        {"growth_bytes": -1},
        {"service": {}},
    ],
)
def test_a_spoilt_dump_changes_nothing(spoil):
    """It is refused as a whole."""
    costs = taught(20)
    before = costs.dump()
    with pytest.raises(ValueError, match=r"."):
        costs.load({**ModelCosts().dump(), **spoil})
    assert costs.dump() == before


@pytest.mark.parametrize(
    "spoil",
    [
        {"service": {"sum": 1.0, "weight": 0, "count": 1}},
        {"service": {"sum": math.inf, "weight": 1.0, "count": 1}},
        {"start": {"weights": [[99999999, 1.0]]}},
        {"start": {"weights": [[3, math.nan]]}},
        {"start": {"weights": [[-3, 1.0]]}},
        {"start_bytes": 10**400},
        {"fit": {"moments": [0.0] * 6, "targets": [0.0] * 3, "count": 9}},
        {"fit": {"moments": [10.0, 0.0, 0.0, 0.0, 50.0, 0.0], "targets": [1.0] * 3, "count": 9}},
    ],
)
def test_what_cannot_have_been_learned_does_not_load(spoil):
    """Figures of the right shape that would spoil every request of the model are refused."""
    with pytest.raises(ValueError, match=r"needed|of no points"):
        ModelCosts().load({**taught(20).dump(), **spoil})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
NUMBER = st.sampled_from([0, 1, -1, 0.5, 1e-300, 1e15, 1e300, math.inf, math.nan, 2**70]) | st.floats() | st.integers()


@st.composite
def spoilt(draw: st.DrawFn) -> object:
    """Draw any JSON value, or a true dump with some places changed."""
    if draw(st.booleans()):
        return draw(JSON)
    data = json.loads(json.dumps(taught(draw(st.integers(0, 12))).dump()))
    for _ in range(draw(st.integers(1, 3))):
        place: dict | list = data
        while True:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], dict | list) or not place[key] or draw(st.integers(0, 9)) == 0:
                break
            place = place[key]
        place[key] = draw(NUMBER | JSON)
    return data


@given(spoilt(), st.integers(0, 10**5), st.integers(0, 10**5))
def test_whatever_is_loaded_estimates_are_sound(data, tokens_in, tokens_out):
    """Any JSON value either loads into costs whose every estimate is finite and not negative, or is a ValueError."""
    costs = ModelCosts()
    try:
        costs.load(data)
    except ValueError:
        assert costs.dump() == ModelCosts().dump()
    for _ in range(2):
        estimates = (
            *(costs.start_s(share) for share in (0.0, 0.5, 1.0)),
            *(costs.remaining_start_s(elapsed_s) for elapsed_s in (0.0, 3.0, 1e9)),
            *(costs.memory_bytes, costs.least_bytes, costs.mean_service_s, costs.first_event_s, costs.tokens_out),
            costs.service_s(tokens_in, tokens_out),
        )
        assert all(0.0 <= estimate < math.inf for estimate in estimates)
        costs.learn_start(1.0)
        costs.learn_start_memory(5)
        costs.learn_memory(7)
        costs.learn_job(service_s=1.0, first_event_s=0.5, tokens_in=tokens_in, tokens_out=tokens_out)


def test_a_mean_forgets():
    """Old values fade: after a change the mean comes near the new value."""
    mean = DecayedMean(5.0)
    for value in [1.0] * 50 + [2.0] * 100:
        mean.add(value)
    assert mean.value == pytest.approx(2.0, abs=0.02)


def test_an_empty_fit_says_nothing():
    """Before the first point it predicts zero."""
    assert LinearFit().predict(1.0, 1.0) == 0.0
