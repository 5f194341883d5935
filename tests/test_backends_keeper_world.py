"""The keeper under whatever comes at random: budgets and residencies hold, everybody is served, nothing hangs.

`scripts/drive_keeper.py` does the same for 100,000 steps and more.
"""

import logging

import pytest

from tests.keeper_world import World


@pytest.mark.parametrize("seed", range(4))
def test_no_budget_is_overdrawn_and_everybody_gets_to_an_end(seed, caplog):
    """Requests, deaths, failed and hanging starts, cuts of the budget: each look is checked, and the end of all."""
    with caplog.at_level(logging.ERROR):
        world = World(seed)
        world.run(steps=250)
    assert world.ended["served"] > 100
    assert {"Start", "Stop", "Wait"} <= set(world.keeper.kinds)
    assert "the keeper's look failed" not in caplog.text
