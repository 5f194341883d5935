"""The tuner's `predict` is the gateway's: both find the same requests cold, and the least stay counts for both."""

import numpy as np

from backends.costs import CostSeed
from backends.warmth.ladder import Ladder, two_rungs
from scripts.tuning.policies import Ours, by_break_even
from scripts.tuning.replay import replay
from scripts.tuning.traces import trace_of
from scripts.tuning.virtual_house import Nature
from scripts.tuning.virtual_house import replay as live

START_S = 0.11
SERVICE_S = 1.0


def up_in_an_instant(_model: str) -> Ladder:
    """Give every model the ladder of one whose break-even is eleven seconds."""
    return two_rungs(START_S)


def test_the_tuner_finds_cold_what_the_keeper_finds_cold() -> None:
    """A model that starts in no time is asked again within the least stay, or after it: it was here, or was not."""
    rng = np.random.default_rng(3)
    pauses_s = np.where(rng.random(80) < 0.6, rng.uniform(5.0, 58.0, 80), rng.uniform(63.0, 120.0, 80))
    asked_s = np.cumsum(pauses_s + SERVICE_S)
    nature = Nature((START_S,), (SERVICE_S,), 2**20, seed=CostSeed(start_s=START_S))
    kept = live([(at, "a") for at in asked_s.tolist()], {"a": nature}, None)
    cold_live = sum(wait.start_s > 0 for wait in kept.waits) - 1  # the first of all has no idle time before it

    trace = trace_of({"a": asked_s}, {"a": np.full(len(asked_s), SERVICE_S)})
    assert replay(trace, up_in_an_instant, Ours(up_in_an_instant)).cold == cold_live
    assert replay(trace, up_in_an_instant, by_break_even(up_in_an_instant)).cold == int((pauses_s[1:] > 60).sum())
    assert 0 < cold_live < len(asked_s) - 1
