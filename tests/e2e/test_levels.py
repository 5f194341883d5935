"""A server that sleeps as vLLM's does, behind the running program: asleep when idle, awake for who asks."""

import sys
from collections.abc import Iterator

import pytest

from scripts.running_gateway import ROOT, RunningGateway
from tests.e2e.program import call, chat, metric, pool, serving, text_of, until, workers

RUN = f"{sys.executable} -P {ROOT / 'tests/sleeping_server.py'} --port {{port}} --early 1 --hold-mib 32"
SLEEPER = f'  sleeper: {{task: chat, command: {{run: "{RUN}"}}, pool: {{keep_warm: 1s, wake_time: 50ms}}}}'


@pytest.fixture(scope="module")
def house() -> Iterator[RunningGateway]:
    """Serve a model that sleeps after a second."""
    with serving(SLEEPER) as running:
        yield running


def level(house: RunningGateway) -> str:
    """Return the level of the one replica, while it is on none of its ways."""
    replicas = pool(house.url, "sleeper")["replicas"]
    return "" if [each["state"] for each in replicas] not in (["ready"], ["asleep"]) else str(replicas[0]["level"])


def decided(house: RunningGateway) -> list[str]:
    """Return what was done, the first decision first."""
    decisions = call(house.url, "GET", "/admin/pools").json()["decisions"]
    return [decision["action"] for decision in reversed(decisions)]


def test_it_sleeps_and_wakes_for_who_asks(house: RunningGateway) -> None:
    """Green health was not enough to be up; idle it sleeps in the same process, which wakes for the next request."""
    assert text_of(chat(house.url, "sleeper", "first")) == "awake"
    until(lambda: level(house) == "asleep", "it sleeps")
    assert metric(house.url, "warmgate_pool_replicas", model="sleeper", state="asleep") == 1
    sleeping = workers(house)
    assert text_of(chat(house.url, "sleeper", "second")) == "awake"
    assert workers(house) == sleeping
    assert decided(house) == ["start", "demote", "wake"]
    costs = {cost["level"]: cost for cost in pool(house.url, "sleeper")["costs"]}
    assert 0.0 < costs["asleep"]["reach_s"] < costs["absent"]["reach_s"]


def test_a_sleeper_that_is_killed_is_replaced(house: RunningGateway) -> None:
    """The next request is answered by a fresh process."""
    chat(house.url, "sleeper", "third")
    until(lambda: level(house) == "asleep", "it sleeps")
    (process,) = workers(house)
    process.kill()
    until(lambda: not pool(house.url, "sleeper")["replicas"], "its end is noticed")
    assert text_of(chat(house.url, "sleeper", "fourth")) == "awake"
    assert workers(house) != {process}
