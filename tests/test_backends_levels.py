"""Levels of warmth: the plan takes idle replicas down one level before out, and wakes who sleeps before it starts."""

from dataclasses import replace

import pytest

from backends.actions import Demote, Start, Stop, Wait, Wake
from backends.planning import plan
from backends.snapshot import LevelCost, PoolSnapshot, ReplicaSnapshot, ReplicaState
from backends.warmth.course import Course, break_even
from backends.warmth.ladder import Ladder, Level, Rung

NOW = 100_000.0
MIB = 2**20
LADDER = Ladder.of([Rung(Level.WARM, 1.0, 0.0), Rung(Level.ASLEEP, 0.1, 3.0), Rung(Level.ABSENT, 0.0, 50.0)], 100.0)
COSTS = (
    LevelCost(Level.ABSENT, 50.0, 60.0, 0),
    LevelCost(Level.ASLEEP, 3.0, 4.0, 30 * MIB, MIB),
    LevelCost(Level.WARM, 0.0, 0.0, 100 * MIB, 1000 * MIB),
)


def replica(
    state: ReplicaState, *, idle_s: float = 0.0, since_s: float | None = None, name: str = "m-1"
) -> ReplicaSnapshot:
    """Make a replica that has been idle for `idle_s`, and in its state for `since_s`."""
    asleep = state is ReplicaState.ASLEEP
    level = Level.WARM if state is ReplicaState.READY else Level.ASLEEP if asleep else Level.ABSENT
    held = 30 * MIB if asleep else 100 * MIB
    since = NOW - (5000.0 if since_s is None else since_s)
    return ReplicaSnapshot(name, state, 0, since, NOW - idle_s, 0.0, held, level)


def pool(*replicas: ReplicaSnapshot, idle_s: float | None = None, model: str = "m", **more: object) -> PoolSnapshot:
    """Make a pool that can sleep, and was last asked `idle_s` ago."""
    made = PoolSnapshot(
        model=model, min_replicas=0, max_replicas=2, slots_per_replica=4, replicas=replicas, queued=0, queue_limit=9,
        oldest_wait_s=0.0, rate_per_s=0.001, last_arrival=None if idle_s is None else NOW - idle_s, start_s=50.0,
        service_s=1.0, replica_bytes=100 * MIB, least_bytes=100 * MIB, course=break_even(LADDER),
        course_words="break-even", idle_since=None if idle_s is None else NOW - idle_s, rungs=LADDER.levels,
        costs=COSTS,
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


ASLEEP, READY, DOZING = ReplicaState.ASLEEP, ReplicaState.READY, ReplicaState.DOZING


def test_an_idle_replica_goes_down_level_by_level():
    """By break-even: up for as long as waking is worth, asleep for as long as a start is, then out."""
    to_sleep_s, to_out_s = LADDER.leave_after_s(0), LADDER.leave_after_s(1)
    up = to_sleep_s - 1
    assert plan(NOW, [pool(replica(READY, idle_s=up), idle_s=up)], None) == ()
    (demote,) = plan(NOW, [pool(replica(READY, idle_s=up + 2), idle_s=up + 2)], None)
    assert demote == Demote(
        "m", "m-1", f"idle for {up + 2:.0f} s, asked {up + 2:.0f} s ago, asleep until {to_out_s:.0f} s by break-even,"
        " load 0.00025 replicas",
    )  # fmt: skip
    late = to_out_s - 1
    assert plan(NOW, [pool(replica(ASLEEP, idle_s=late), idle_s=late)], None) == ()
    (stop,) = plan(NOW, [pool(replica(ASLEEP, idle_s=late + 2), idle_s=late + 2)], None)
    assert isinstance(stop, Stop)
    assert "down by break-even" in stop.why


def test_without_a_level_between_it_goes_at_once():
    """A model whose sleep is worth nothing is up or gone."""
    two = {"rungs": (Level.WARM, Level.ABSENT), "course": Course((0.0, 300.0), (0, 1)), "costs": ()}
    (stop,) = plan(NOW, [pool(replica(READY, idle_s=400), idle_s=400, **two)], None)
    assert isinstance(stop, Stop)


def test_who_asks_wakes_the_sleeper():
    """A sleeper is woken before anything is started, whatever failed before; the second job starts the second."""
    sleeper = replica(ASLEEP, idle_s=900)
    failed = {"failures": 3, "retry_at": NOW + 50, "last_failure": "no memory"}
    (wake,) = plan(NOW, [pool(sleeper, idle_s=900, queued=1, **failed)], None)
    assert wake == Wake("m", "m-1", "1 queued for up to 0.0 s, 0 up, waking 3.0 s")
    many = plan(NOW, [pool(sleeper, idle_s=900, queued=1000)], None)
    assert [type(action) for action in many] == [Wake, Start]


def test_who_is_on_the_way_to_sleep_is_waited_for():
    """It can be woken in a moment: nothing is started in its place."""
    assert plan(NOW, [pool(replica(DOZING), idle_s=400, queued=1)], None) == ()


def test_a_likely_time_wakes_the_sleeper_before_anybody_asks():
    """A learned course may sleep and be up again before the next job; the hour that nobody came in ends it."""
    timer = {"course": Course((0.0, 60.0, 3500.0, 3700.0), (0, 1, 0, 1))}
    (wake,) = plan(NOW, [pool(replica(ASLEEP, idle_s=3505), idle_s=3505, **timer)], None)
    assert isinstance(wake, Wake)
    woken = replica(READY, idle_s=195, since_s=195)
    (demote,) = plan(NOW, [pool(woken, idle_s=3705, **timer)], None)
    assert isinstance(demote, Demote)


def test_the_minimum_is_never_put_to_sleep():
    """Replicas of the minimum stay up, and a sleeper is woken for it."""
    assert plan(NOW, [pool(replica(READY, idle_s=9000), idle_s=9000, min_replicas=1)], None) == ()
    (wake,) = plan(NOW, [pool(replica(ASLEEP, idle_s=9000), idle_s=9000, min_replicas=1)], None)
    assert isinstance(wake, Wake)


def test_a_replica_stays_for_a_while_where_it_came_to():
    """One that was just woken is not put to sleep, and one that just fell asleep is not sent out, unasked."""
    assert plan(NOW, [pool(replica(READY, idle_s=2, since_s=2), idle_s=20_000)], None) == ()
    assert plan(NOW, [pool(replica(ASLEEP, idle_s=20_000, since_s=2), idle_s=20_000)], None) == ()


def test_a_fixed_time_is_followed_by_sleep():
    """After the time that was written the replica sleeps for as long as that is worth."""
    kept = {"keep_warm_s": 30.0}
    assert plan(NOW, [pool(replica(READY, idle_s=29), idle_s=29, **kept)], None) == ()
    (demote,) = plan(NOW, [pool(replica(READY, idle_s=31), idle_s=31, **kept)], None)
    assert isinstance(demote, Demote)


def test_memory_is_freed_one_level_down_before_out():
    """Who waits for 60 MiB puts an idle replica to sleep; who waits for more than sleep gives sends it out."""
    idle = pool(replica(READY, idle_s=100), idle_s=100)
    small = pool(model="small", queued=1, replica_bytes=60 * MIB, least_bytes=60 * MIB, costs=())
    demote, _ = plan(NOW, [idle, small], 100 * MIB)
    assert isinstance(demote, Demote)
    assert demote.why.startswith("70 MiB for small")
    large = replace(small, replica_bytes=90 * MIB, least_bytes=90 * MIB)
    stop, _ = plan(NOW, [idle, large], 100 * MIB)
    assert isinstance(stop, Stop)


def test_a_sleeper_gives_way_too():
    """What it holds of the host is there for who waits; it is not woken by the plan that sends it out."""
    sleeper = pool(replica(ASLEEP, idle_s=100), idle_s=100)
    other = pool(model="other", queued=1, costs=())
    stop, *waits = plan(NOW, [sleeper, other], 110 * MIB)
    assert isinstance(stop, Stop)
    assert stop.why == "30 MiB for other, idle, 3.6 requests an hour"
    assert {type(action) for action in waits} == {Wait}


def test_waking_waits_for_its_memory():
    """The sleeper needs 70 MiB more when it is up, and somebody else's are to be freed for it first."""
    sleeper = pool(replica(ASLEEP, idle_s=100), idle_s=100, queued=1)
    idle = pool(replica(READY, idle_s=100, name="o-1"), idle_s=100, model="o", costs=())
    kinds = [type(action).__name__ for action in plan(NOW, [sleeper, idle], 150 * MIB)]
    assert kinds == ["Stop", "Wait"]
    (wake,) = plan(NOW, [sleeper], 150 * MIB)
    assert isinstance(wake, Wake)


@pytest.mark.parametrize("jump_s", [-1e6, -10.0, 1e9])
def test_a_clock_that_jumps_does_no_harm(jump_s):
    """Whatever the clock says, the plan has actions for replicas that are there, and none for those that work."""
    busy = replace(replica(READY), in_flight=1, idle_since=None)
    models = [pool(busy, idle_s=None, queued=2), pool(replica(ASLEEP, name="o-1"), idle_s=100, model="o")]
    for action in plan(NOW + jump_s, models, 250 * MIB):
        assert not (isinstance(action, Demote | Stop) and action.replica == "m-1")


def test_sleep_that_takes_more_of_the_host_stays_within_its_budget():
    """Weights of a device that sleep in host memory need room there: without it the replica goes out at once."""
    costs = (COSTS[0], LevelCost(Level.ASLEEP, 3.0, 4.0, 500 * MIB), COSTS[2])
    idle = pool(replica(READY, idle_s=400), idle_s=400, costs=costs)
    (demote,) = plan(NOW, [idle], 500 * MIB)
    assert isinstance(demote, Demote)
    (stop,) = plan(NOW, [idle], 499 * MIB)
    assert isinstance(stop, Stop)
    assert "400 MiB more of the host" in stop.why
