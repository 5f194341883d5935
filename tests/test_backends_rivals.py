"""Forecasts against each other: scored by what their choices cost, and the one that lost least is followed."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contest import Contest
from backends.costs import CostSeed, ModelCosts
from backends.demand import FORECASTS, Demand
from backends.pool import Pool, PoolLimits
from backends.warmth.rivals import Contender, Rivals
from scripts.tuning.slots import least_recently_used, ours
from scripts.tuning.synthetic import make
from tests.fakes import FakeEngine

MIXED, MEAN, RECENT = range(3)


def test_who_keeps_what_is_asked_for_again_is_followed() -> None:
    """One forecast knows that `a` is asked for all the time, the other believes in whatever came last."""
    rivals = Rivals(2)
    for turn in range(100):
        model = "a" if turn % 2 == 0 else f"once-{turn}"
        contenders = {
            name: Contender(1, 10.0, (1.0 if name == "a" else 0.01, 0.01 if name == "a" else 1.0))
            for name in ("a", *(f"once-{earlier}" for earlier in range(1, 100, 2)))
        }
        rivals.asked(float(turn), model, contenders, room=2)

    assert rivals.best == 0
    assert rivals.lost_s[0] < 0.6 * rivals.lost_s[1]


def test_without_a_difference_the_first_is_followed() -> None:
    """Where all fit, each forecast loses the first start of each model and no more."""
    rivals = Rivals(3)
    contenders = {name: Contender(1, 10.0, (1.0, 2.0, 3.0)) for name in "abc"}
    for turn in range(30):
        rivals.asked(float(turn), "abc"[turn % 3], contenders, room=3)
    assert rivals.best == 0
    assert len(set(rivals.lost_s)) == 1


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.floats(0, 100)), max_size=60), st.integers(1, 12))
def test_nobody_plays_with_more_room_than_there_is(asked: list[tuple[str, float]], room: int) -> None:
    """Models of any size: what is held never exceeds the room, but for one that alone does not fit."""
    rivals = Rivals(2)
    sizes = {name: size for size, name in enumerate("abcde", 1)}
    for turn, (model, rate) in enumerate(asked):
        contenders = {name: Contender(size, 1.0, (rate, 1 / (1 + rate))) for name, size in sizes.items()}
        rivals.asked(float(turn), model, contenders, room)
        for held in rivals._held:
            assert sum(sizes[name] for name in held) <= max(room, sizes[model])


@pytest.mark.parametrize("kind", ["diurnal", "bursty", "drifting", "stationary", "periodic", "adversarial"])
@pytest.mark.parametrize("slots", [3, 6])
def test_ours_is_about_lru_at_worst(kind: str, slots: int) -> None:
    """Whatever the kind of traffic, to follow the best forecast misses little more than LRU, and mostly far less."""
    trace = make(kind, seed=23, days=5, models=12)
    asked = sorted((at, model) for model, all_at in trace.asked_s.items() for at in all_at.tolist())[:3000]
    assert ours(asked, slots) <= 1.08 * least_recently_used(asked, slots) + 10


def test_scales_are_mixed_by_how_well_they_told_the_past() -> None:
    """For a model that is asked at one steady rate the longest memory comes to count most."""
    rng = np.random.default_rng(3)
    demand = Demand(0.0)
    for at in np.cumsum(rng.exponential(2000.0, 400)).tolist():
        demand.record(at)
    mixed, mean, _ = demand.forecasts(at)
    assert mixed < mean, "just asked: the short memories expect too much"
    assert mixed == pytest.approx(1 / 2000, rel=0.5)


def test_demand_outlives_a_restart() -> None:
    """Rates go on as if nobody had come meanwhile, and weights are those of before."""
    before, after = Demand(0.0), Demand(7.0)
    for at in range(0, 40_000, 400):
        before.record(float(at))
    after.restore(before.state(40_000.0, wall_s=1e9), now=10.0, wall_s=1e9 + 3600)
    assert after.rate_per_s(10.0) == pytest.approx(before.rate_per_s(43_600.0))
    assert after.forecasts(10.0)[MIXED] == pytest.approx(before.forecasts(43_600.0)[MIXED])

    for broken in ({}, before.state(0.0, 0.0) | {"counts": [1.0]}, before.state(0.0, 0.0) | {"losses": ["x"] * 3}):
        with pytest.raises(ValueError, match="needed"):
            after.restore(broken, 0.0, 0.0)


def test_the_live_contest_plays_each_request_that_found_its_model_idle() -> None:
    """Two models that do not fit together: each change is a start on paper; pinned models have no part."""

    def pool(model: str, least: int = 0) -> Pool:
        seed = CostSeed(start_s=10.0, memory_bytes=60)
        return Pool(
            model, FakeEngine(), PoolLimits(min_replicas=least), costs=ModelCosts(seed), demand=Demand(0.0),
            clock=lambda: 0.0, wake_keeper=lambda: None,
        )  # fmt: skip

    async def played() -> tuple[float, ...]:
        pools = {"a": pool("a"), "b": pool("b"), "pinned": pool("pinned", 1)}
        contest = Contest()
        for turn in range(10):
            now = 100.0 * turn
            for model in ("pinned", "ab"[turn % 2]):
                pools[model].demand.record(now)
                pools[model].demand.rest(now + 1)
            for _ in range(2):  # a second look without news plays nothing
                contest.play(now, pools, pools.values(), 160)
        return contest.rivals.lost_s

    lost = asyncio.run(played())
    assert lost == pytest.approx((10 * 10.0,) * len(FORECASTS), rel=0.02)
