"""The keeper's plan: starts that pay, stops that pay, and memory that is never overdrawn."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.planning import Refuse, Start, Stop, Wait, next_retry, over_budget, plan
from backends.snapshot import BACKOFF_CAP_S, PoolSnapshot, ReplicaState, backoff_s
from backends.warmth.course import ALWAYS_COLD, Course
from tests.planning_house import MIB, NOW, POLICY, asked, kinds, pool, replica


def test_nothing_to_do():
    """An empty pool that nobody asks stays empty."""
    assert plan(NOW, [pool()], None) == ()


def test_the_minimum_is_kept_up():
    """Missing replicas of the minimum are started at once, and say so."""
    actions = plan(NOW, [pool(min_replicas=2)], None)
    assert actions == (Start("atlas", "0 of at least 2 are up"),) * 2


def test_an_upstream_is_not_told_to_be_down():
    """It is no replica of ours that would have to come up: it is asked from now on, and that is all."""
    assert plan(NOW, [pool(min_replicas=1, is_upstream=True)], None) == (
        Start("atlas", "its upstream is asked from now on"),
    )


def test_a_queue_starts_a_replica():
    """The first job starts one, with the numbers in its reason."""
    (start,) = plan(NOW, [pool(queued=1, oldest_wait_s=0.5)], None)
    assert start == Start("atlas", "1 queued for up to 0.5 s, 0 up, start-up 10.0 s")


def test_a_start_under_way_is_enough_for_a_short_queue():
    """What one replica will serve as fast as another starts does not start another."""
    starting = replica(state=ReplicaState.STARTING, remaining_s=5.0)
    assert plan(NOW, [pool(starting, queued=20)], None) == ()


def test_a_long_queue_starts_more_up_to_the_maximum():
    """Work left for a second replica, after its start, starts it; the maximum bounds it."""
    starting = replica(state=ReplicaState.STARTING, remaining_s=5.0)
    assert kinds(plan(NOW, [pool(starting, queued=500)], None)) == ["start atlas"]
    assert kinds(plan(NOW, [pool(queued=10_000, max_replicas=3)], None)) == ["start atlas"] * 3


def test_a_busy_replica_that_will_be_free_sooner_is_waited_for():
    """A queue of a second's work is not worth ten seconds' start."""
    assert plan(NOW, [pool(replica(in_flight=4), queued=4)], None) == ()


def test_expected_demand_starts_a_replica_before_anybody_asks():
    """A model whose course is to be up is brought up again after it went."""
    (start,) = plan(NOW, [pool(rate_per_s=1 / 60, **asked(30))], None)
    assert start == Start("atlas", "asked 30 s ago, up until 1000 s by break-even, load 0.0042 replicas, 0 up")


def test_a_course_may_let_go_and_come_back():
    """Where the next job is likely at a certain time, a replica is there then, and not before."""
    timer = asked(100) | {"course": Course((0.0, 60.0, 3500.0, 3700.0), (0, 1, 0, 1))}
    idle = pool(replica(idle_s=100), **timer)
    assert kinds(plan(NOW, [idle], None)) == ["stop atlas"]
    gone = replace(idle, replicas=())
    assert plan(NOW, [gone], None) == ()
    assert kinds(plan(NOW + 3405, [gone], None)) == ["start atlas"]
    assert plan(NOW + 3700, [gone], None) == ()


def test_expected_load_starts_more_than_one():
    """Load that would make jobs wait for longer than a second replica is worth starts it at once."""
    busy = pool(replica(in_flight=3), rate_per_s=3.5, last_arrival=NOW)
    assert kinds(plan(NOW, [busy], None)) == ["start atlas"]


def test_a_second_replica_goes_at_half_the_load_that_it_came_for():
    """Load that rises and falls a little neither starts nor stops any: up at once, down only well below."""
    two = pool(replica(idle_s=100), replica("atlas-2", idle_s=100), **asked(100, up_until_s=1000))
    one = replace(two, replicas=two.replicas[:1])
    rates = [count / 100 for count in range(1, 1001)]
    starts_at = min(rate for rate in rates if plan(NOW, [replace(one, rate_per_s=rate)], None))
    stops_at = max(rate for rate in rates if plan(NOW, [replace(two, rate_per_s=rate)], None))
    assert stops_at == pytest.approx(starts_at / 2, rel=0.05)


def test_an_idle_replica_that_pays_is_kept():
    """Half an hour of idleness is fine while the course is to be up."""
    assert plan(NOW, [pool(replica(idle_s=1800), **asked(1800, up_until_s=1801))], None) == ()


def test_an_idle_replica_past_its_time_is_stopped():
    """The reason says how long it was idle, and by what."""
    (stop,) = plan(NOW, [pool(replica(idle_s=1800), rate_per_s=1 / 3600, **asked(1800))], None)
    why = "idle for 1800 s, asked 1800 s ago, down by break-even, load 6.9e-05 replicas"
    assert stop == Stop("atlas", "atlas-1", why)


@pytest.mark.parametrize(
    "kept",
    [
        pool(replica(idle_s=POLICY.idle_floor_s - 1)),
        pool(replica(idle_s=299), start_s=300.0),
        pool(replica(in_flight=1)),
        pool(replica(idle_s=9999), min_replicas=1),
        pool(replica(idle_s=9999), queued=1),
        pool(replica(idle_s=299), keep_warm_s=300.0),
    ],
)
def test_what_is_never_stopped(kept):
    """The floor, the residency, work, the minimum, a queue and a fixed time each keep a replica."""
    assert not [action for action in plan(NOW, [kept], None) if isinstance(action, Stop)]


def test_load_is_not_expected_for_ever():
    """Four hours after the last job its rate keeps no replica, and brings none back."""
    idle = pool(replica(idle_s=14_500), rate_per_s=10.0, **asked(14_500))
    assert kinds(plan(NOW, [idle], None)) == ["stop atlas"]
    assert plan(NOW, [replace(idle, replicas=())], None) == ()


def test_a_fixed_time_stands_above_the_forecast():
    """The operator's keep-warm time is kept whatever is expected, and starts nothing by itself."""
    fixed = pool(replica(idle_s=301), rate_per_s=1.0, last_arrival=NOW - 301, keep_warm_s=300.0)
    assert plan(NOW, [fixed], None) == (Stop("atlas", "atlas-1", "idle for 301 s, kept for 300 s"),)
    assert plan(NOW, [replace(fixed, replicas=())], None) == ()


def test_the_longest_idle_goes_first():
    """Of two idle replicas of which one is expected to be enough, the longer idle one stops."""
    two = pool(replica(idle_s=100), replica("atlas-2", idle_s=900), rate_per_s=1 / 60, **asked(100))
    (stop,) = plan(NOW, [two], None)
    assert isinstance(stop, Stop)
    assert stop.replica == "atlas-2"


def test_failures_put_a_start_off():
    """Within the back-off a wanted start waits and says why; after it, it goes."""
    failed = pool(queued=1, failures=2, retry_at=NOW + 1.5, last_failure="no such file")
    (wait,) = plan(NOW, [failed], None)
    assert wait == Wait("atlas", "next try in 1.5 s, 2 failed in a row: no such file")
    assert kinds(plan(NOW + 2, [failed], None)) == ["start atlas"]


def test_a_closing_pool_is_left_alone():
    """No minimum and no forecast starts a replica of a pool that goes; its last jobs do."""
    going = pool(closing=True, min_replicas=1, rate_per_s=9.0, last_arrival=NOW)
    assert plan(NOW, [going], None) == ()
    assert kinds(plan(NOW, [replace(going, queued=1)], None)) == ["start atlas"]


def other(name: str, *, rate_per_s: float = 0.01, size: int = 100 * MIB, **changes: object) -> PoolSnapshot:
    """Make another model with one idle replica, which its forecast keeps."""
    idle = replica(f"{name}-1", idle_s=50, size=size)
    return pool(idle, model=name, rate_per_s=rate_per_s, replica_bytes=size, **asked(50), **changes)


def test_memory_makes_room_by_value_per_byte():
    """The idle replica that is worth least per byte makes room, and the start waits until it is gone."""
    pools = [pool(queued=1), other("often", rate_per_s=0.5), other("seldom"), other("small", size=10 * MIB)]
    actions = plan(NOW, pools, 250 * MIB)
    assert kinds(actions) == ["stop seldom", "wait atlas"]
    assert "100 MiB for atlas" in actions[0].why
    leaving = replace(pools[2], replicas=(replica("seldom-1", ReplicaState.DRAINING),))
    assert kinds(plan(NOW, [pools[0], pools[1], leaving, pools[3]], 250 * MIB)) == ["wait atlas", "wait seldom"]
    gone = replace(pools[2], replicas=(), course=ALWAYS_COLD)
    assert kinds(plan(NOW, [pools[0], pools[1], gone, pools[3]], 310 * MIB)) == ["start atlas"]


@pytest.mark.parametrize(
    "changes",
    [{"queued": 1}, {"replicas": (replica("seldom-1", in_flight=1),)}, {"start_s": 6000.0}],
)
def test_what_is_never_pushed_out(changes):
    """A queue, work in flight and a replica younger than its start each keep it; the start waits."""
    actions = plan(NOW, [pool(queued=1), replace(other("seldom"), **changes)], 150 * MIB)
    assert kinds(actions) == ["wait atlas"] or kinds(actions) == ["wait atlas", "wait seldom"]
    assert "nothing idle may be stopped" in actions[0].why


def test_nobody_is_pushed_out_for_nothing():
    """Where all idle replicas together would not be enough, none is stopped."""
    busy = pool(replica("busy-1", in_flight=1), model="busy")
    pools = [pool(queued=1, replica_bytes=300 * MIB), other("seldom"), busy]
    assert kinds(plan(NOW, pools, 350 * MIB)) == ["wait atlas"]


def test_a_forecast_pushes_nobody_out():
    """Only waiting jobs and the minimum do."""
    assert kinds(plan(NOW, [pool(rate_per_s=1.0, **asked(0)), other("seldom")], 150 * MIB)) == ["wait atlas"]


def test_what_can_never_fit_is_refused():
    """A replica larger than the budget is no matter of waiting."""
    (refuse,) = plan(NOW, [pool(queued=1, least_bytes=200 * MIB, replica_bytes=200 * MIB)], 150 * MIB)
    assert refuse == Refuse("atlas", "one replica holds 200 MiB, the memory budget is 150 MiB")


def test_what_never_fits_beside_those_that_always_run_is_refused():
    """Replicas of a minimum do not go, so that waiting for their memory would end with the request's deadline."""
    (refuse,) = plan(NOW, [pool(queued=1), other("always", min_replicas=1)], 150 * MIB)
    why = "one replica holds 100 MiB, the memory budget is 150 MiB, of which replicas that always run hold 100 MiB"
    assert refuse == Refuse("atlas", why)


def test_growth_beyond_the_budget_is_no_refusal():
    """A model that came up within the budget and once held more may come up again, with the whole budget for itself."""
    grown = pool(queued=1, least_bytes=100 * MIB, replica_bytes=900 * MIB)
    assert kinds(plan(NOW, [grown], 150 * MIB)) == ["start atlas"]
    assert kinds(plan(NOW, [grown, other("idle")], 150 * MIB)) == ["stop idle", "wait atlas"]
    assert kinds(plan(NOW, [grown, other("always", min_replicas=1)], 250 * MIB)) == ["start atlas"]


def test_only_the_first_start_may_hope_to_stay_small():
    """A second replica beside one that starts in the same breath needs the room that it may grow to."""
    pools = [pool(queued=500, least_bytes=0, replica_bytes=MIB)]
    assert kinds(plan(NOW, pools, 0)) == ["start atlas", "wait atlas"]


def test_what_a_start_may_grow_to_bars_nobody():
    """While a replica of a minimum starts, others are refused only for what it needs at least."""
    starting = replica("always-1", ReplicaState.STARTING, size=900 * MIB, remaining_s=1.0)
    always = pool(starting, model="always", min_replicas=1, replica_bytes=900 * MIB)
    assert kinds(plan(NOW, [pool(queued=1), always], 250 * MIB)) == ["wait atlas"]


def test_a_queue_that_a_replica_works_on_is_not_refused():
    """Where one more does not fit, those in the queue still have the one that is up."""
    grown = pool(replica(in_flight=4, size=200 * MIB), queued=100, replica_bytes=200 * MIB)
    assert kinds(plan(NOW, [grown], 150 * MIB)) == ["wait atlas"]


@st.composite
def pools_of(draw: st.DrawFn) -> list[PoolSnapshot]:
    """Draw pools in any state."""
    pools = []
    for number in range(draw(st.integers(1, 4))):
        size = draw(st.integers(0, 200)) * MIB
        replicas = tuple(
            replica(
                f"m{number}-{index}",
                draw(st.sampled_from(ReplicaState)),
                in_flight=draw(st.integers(0, 2)),
                idle_s=draw(st.floats(0, 20_000)),
                up_s=draw(st.floats(0, 20_000)),
                size=size,
            )
            for index in range(draw(st.integers(0, 3)))
        )
        pools.append(
            pool(
                *replicas,
                model=f"m{number}",
                min_replicas=draw(st.integers(0, 2)),
                max_replicas=draw(st.integers(2, 4)),
                queued=draw(st.integers(0, 300)),
                rate_per_s=draw(st.floats(0, 50)),
                last_arrival=draw(st.one_of(st.none(), st.floats(0, NOW))),
                idle_since=draw(st.one_of(st.none(), st.floats(0, NOW))),
                course=Course((0.0, draw(st.floats(1, 20_000))), (0, 1)),
                start_s=draw(st.floats(0.001, 600)),
                service_s=draw(st.floats(1e-4, 60)),
                replica_bytes=size,
                least_bytes=draw(st.integers(0, size)),
                closing=draw(st.booleans()),
                failures=draw(st.integers(0, 3)),
                retry_at=draw(st.floats(NOW - 10, NOW + 10)),
            )
        )
    return pools


@given(pools_of(), st.one_of(st.none(), st.integers(0, 600)))
def test_whatever_the_state_the_plan_keeps_its_promises(pools, budget_mib):
    """Never over budget or maximum, never below the minimum, nothing busy stopped below it, no start in a back-off."""
    budget = None if budget_mib is None else budget_mib * MIB
    actions = plan(NOW, pools, budget)
    held = sum(r.memory_bytes for p in pools for r in p.replicas)
    starts = {p.model: sum(isinstance(a, Start) and a.model == p.model for a in actions) for p in pools}
    started = sum((p.replica_bytes if p.alive else p.least_bytes) * min(starts[p.model], 1) for p in pools)
    started += sum(p.replica_bytes * max(starts[p.model] - 1, 0) for p in pools)
    assert budget is None or started == 0 or held + started <= budget
    stopped = [action.replica for action in actions if isinstance(action, Stop)]
    assert len(stopped) == len(set(stopped))
    for p in pools:
        alive = len(p.alive)
        going = [r for r in p.alive if r.name in stopped]
        if alive <= max(p.max_replicas, p.min_replicas):
            assert all(r.in_flight == 0 and r.state is ReplicaState.READY for r in going)
        assert not going or alive - len(going) >= p.min_replicas
        assert starts[p.model] == 0 or alive + starts[p.model] <= p.max_replicas
        assert not (starts[p.model] and p.failures and p.retry_at > NOW)
        assert not (starts[p.model] and going), "nothing is stopped and started in one breath"


@given(pools_of())
def test_a_plan_that_was_carried_out_does_not_want_to_be_undone(pools):
    """Once its stops are gone, the next plan does not start them again: no flapping."""
    calm = [replace(p, queued=0) for p in pools]
    actions = plan(NOW, calm, None)
    stopped = {action.replica for action in actions if isinstance(action, Stop)}
    after = [replace(p, replicas=tuple(r for r in p.replicas if r.name not in stopped)) for p in calm]
    again = {action.model for action in plan(NOW, after, None) if isinstance(action, Start)}
    before = {action.model for action in actions if isinstance(action, Start)}
    assert again <= before


def test_what_is_above_the_maximum_is_stopped():
    """A lowered maximum takes the replicas with the least to do, also while others wait."""
    busy, other, idle = (replica(f"atlas-{n}", in_flight=n) for n in (2, 1, 0))
    stops = plan(NOW, [pool(busy, other, idle, queued=3, max_replicas=1)], None)
    assert [stop.replica for stop in stops if isinstance(stop, Stop)] == ["atlas-0", "atlas-1"]
    assert all(stop.why == "3 are up, of at most 1" for stop in stops if isinstance(stop, Stop))


def test_a_budget_cut_stops_idle_replicas_until_the_rest_fits():
    """Those of least value go; what is busy, or of the minimum, stays, though it exceeds the budget."""
    idle = [pool(replica(f"{name}-1"), model=name, rate_per_s=rate) for name, rate in (("a", 2.0), ("b", 1.0))]
    busy = pool(replica("c-1", in_flight=1), model="c")
    kept = pool(replica("d-1"), model="d", min_replicas=1)
    pools = [*idle, busy, kept]
    for budget, gone in ((400, []), (399, ["b-1"]), (299, ["b-1", "a-1"]), (0, ["b-1", "a-1"])):
        assert [stop.replica for stop in over_budget(NOW, pools, budget * MIB)] == gone


def test_memory_of_what_leaves_is_waited_for():
    """Replicas of a former engine hold memory until they end: that is no reason to refuse who waits."""
    asked = pool(queued=1)
    assert kinds(plan(NOW, [asked], 150 * MIB, leaving_bytes=100 * MIB)) == ["wait atlas"]
    assert kinds(plan(NOW, [asked], 50 * MIB)) == ["refuse atlas"]


def test_the_next_retry_is_the_first_that_is_still_to_come():
    """Back-offs that are over and pools without failures have none."""
    over, calm = pool(failures=1, retry_at=NOW), pool(failures=0, retry_at=NOW + 1)
    assert next_retry(NOW, [over, calm]) == math.inf
    later, sooner = pool(failures=2, retry_at=NOW + 9), pool(failures=1, retry_at=NOW + 0.5)
    assert next_retry(NOW, [over, calm, later, sooner]) == NOW + 0.5


def test_back_off_doubles_up_to_a_cap_and_is_spread():
    """Half a second, doubling to a minute; models differ, a replay does not."""
    waits = [backoff_s("atlas", failures) for failures in range(1, 12)]
    assert 0.5 <= waits[0] <= 0.625
    assert all(base <= wait <= base * 1.25 for base, wait in zip((0.5, 1, 2, 4, 8, 16, 32), waits, strict=False))
    assert BACKOFF_CAP_S <= waits[-1] <= BACKOFF_CAP_S * 1.25
    assert waits[3] != backoff_s("minilm", 4)
    assert backoff_s("atlas", 0) == 0.0
