"""The plan over candidates: the soonest first, fallbacks after, the late ones last."""

from hypothesis import given
from hypothesis import strategies as st

from backends.snapshot import LevelCost, PoolSnapshot, ReplicaSnapshot, ReplicaState
from backends.turns import LONGEST_WAIT_S
from backends.warmth.ladder import Level
from gateway.router import NOTHING, Candidate, Coming, Spread, Way, expected_wait, plan, soonest

NOW = 100.0


def replica(
    state: ReplicaState = ReplicaState.READY,
    in_flight: int = 0,
    remaining_s: float = 0.0,
    since: float = 0.0,
    level: Level = Level.WARM,
) -> ReplicaSnapshot:
    """Make a replica."""
    return ReplicaSnapshot("r", state, in_flight, since, None, remaining_s, 0, level)


def pool(
    model: str = "m", *replicas: ReplicaSnapshot, queued: int = 0, start_s: float = 5.0, **more: object
) -> PoolSnapshot:
    """Make a pool of two slots a replica and one second a job."""
    fields = {
        "min_replicas": 0, "max_replicas": 2, "slots_per_replica": 2, "queue_limit": 9, "oldest_wait_s": 0.0,
        "rate_per_s": 0.0, "last_arrival": None, "service_s": 1.0, "replica_bytes": 0,
    }  # fmt: skip
    return PoolSnapshot(model=model, replicas=replicas, queued=queued, start_s=start_s, **(fields | more))


def costs(start: Spread, wake: Spread | None = None) -> tuple[LevelCost, ...]:
    """Make what the levels of a model cost that may sleep."""
    climbs = {Level.ABSENT: start, Level.ASLEEP: wake}
    return tuple(LevelCost(level, c.p50_s, c.p90_s, 0) for level, c in climbs.items() if c is not None)


def test_free_slot_means_no_wait():
    """A ready replica with a free slot takes the job at once."""
    way, wait, _ = expected_wait(pool("m", replica(in_flight=1)), NOW)

    assert (way, wait) == (Way.FREE, NOTHING)


def test_busy_replicas_are_waited_for_by_their_service_time():
    """Three jobs before it on two slots of one second each make a wait of a second and a half."""
    way, wait, why = expected_wait(pool("m", replica(in_flight=2), queued=2), NOW)

    assert way is Way.QUEUE
    assert wait.p50_s == 1.5
    assert wait.p90_s > 1.5
    assert "3 jobs before it" in why


def test_start_in_progress_is_waited_for_what_remains():
    """What remains of a start counts, not the whole of it."""
    coming = replica(ReplicaState.STARTING, remaining_s=0.5, since=NOW - 4, level=Level.ABSENT)
    way, wait, _ = expected_wait(pool("m", coming, costs=costs(Spread(4.5, 9.0))), NOW)

    assert way is Way.STARTING
    assert wait == Spread(0.5, 5.0)


def test_cold_pool_costs_a_start_and_its_pause_after_failures():
    """Where nothing runs, the learned start-up time counts, and the pause that failures have earned."""
    start = Spread(5.0, 7.0)

    assert expected_wait(pool("m", costs=costs(start)), NOW)[:2] == (Way.START, start)
    paused = pool("m", costs=costs(start), failures=2, retry_at=NOW + 3)
    assert expected_wait(paused, NOW)[1] == Spread(8.0, 10.0)


def test_a_model_that_finds_no_room_waits_for_its_turn():
    """Where jobs have waited and nothing was started, other models hold the memory, for the longest wait at most."""
    waiting = pool("m", queued=2, oldest_wait_s=LONGEST_WAIT_S - 10, costs=costs(Spread(5.0, 6.0)))
    way, wait, why = expected_wait(waiting, NOW)

    assert (way, wait) == (Way.ROOM, Spread(5.0 + 5.0 + 1.0, 10.0 + 6.0 + 1.0))
    assert "2 jobs wait for memory" in why
    assert expected_wait(pool("m", queued=2, oldest_wait_s=0.5), NOW)[0] is Way.START


def test_a_sleeper_is_woken_in_the_time_that_wakings_take():
    """What sleeps costs a waking, and one that wakes what is left of that, whatever a start from nothing takes."""
    learned = costs(Spread(40.0, 60.0), Spread(2.0, 4.0))
    asleep = pool("m", replica(ReplicaState.ASLEEP, level=Level.ASLEEP), costs=learned)
    waking = replica(ReplicaState.STARTING, remaining_s=1.0, since=NOW - 1, level=Level.ASLEEP)

    assert expected_wait(asleep, NOW)[:2] == (Way.WAKE, Spread(2.0, 4.0))
    assert expected_wait(pool("m", waking, costs=learned), NOW)[:2] == (Way.STARTING, Spread(1.0, 3.0))


def test_a_busy_replica_is_left_for_a_start_that_is_sooner():
    """Where the queue is long and a replica is about to be up, a job is expected to come to that one."""
    coming = replica(ReplicaState.STARTING, remaining_s=0.5)

    assert expected_wait(pool("m", replica(in_flight=2), coming), NOW)[0] is Way.STARTING
    assert expected_wait(pool("m", replica(in_flight=2), queued=1, slots_per_replica=64), NOW)[0] is Way.FREE


def test_a_start_that_may_take_long_goes_behind_one_that_is_sure():
    """Of two starts that usually take as long, the one that is hardly ever slow comes first."""
    wild = Candidate(pool("wild", costs=costs(Spread(5.0, 60.0))), 0.1)
    sure = Candidate(pool("sure", costs=costs(Spread(5.5, 6.0))), 0.1)

    assert [choice.model for choice in plan([wild, sure], NOW, NOW + 600)] == ["sure", "wild"]


def test_the_first_token_decides_and_not_the_last():
    """What is ranked is the time to what the client waits for."""
    brief = Candidate(pool("brief", replica()), 2.0, first=Spread(1.5, 1.5))
    early = Candidate(pool("early", replica()), 9.0, first=Spread(0.1, 0.2))

    assert [choice.model for choice in plan([brief, early], NOW, NOW + 60)] == ["early", "brief"]


def test_who_has_no_patience_for_a_start_is_sent_to_who_is_up():
    """A candidate whose wait is beyond the patience stands behind a fallback that is there at once."""
    assert not plan([Candidate(pool("cold"), 0.1, start_patience_s=4.9)], NOW, NOW + 60)[0].soon
    assert plan([Candidate(pool("busy", replica(in_flight=2), queued=9), 1.0, start_patience_s=1.0)], NOW, 9e9)[0].soon

    cold = Candidate(pool("cold"), 0.1, patience_s=1.0)
    spare = Candidate(pool("spare", replica()), 0.1, is_fallback=True, patience_s=1.0)

    choices = plan([cold, spare], NOW, NOW + 60)

    assert [(choice.model, choice.soon) for choice in choices] == [("spare", True), ("cold", False)]


def test_warm_candidate_goes_before_a_cold_one():
    """The candidate with the least expected time to an answer comes first, with its reason."""
    cold, warm = Candidate(pool("cold"), 0.1), Candidate(pool("warm", replica()), 2.0)

    choices = plan([cold, warm], NOW, NOW + 60)

    assert [choice.model for choice in choices] == ["warm", "cold"]
    assert choices[0].total_s == 2.0
    assert "cold start" in choices[1].why


def test_fallback_goes_first_only_when_the_others_would_be_late():
    """A fallback stands behind candidates that are in time, and before those that would miss the deadline."""
    cold, spare = Candidate(pool("cold"), 0.1), Candidate(pool("spare", replica()), 0.1, is_fallback=True)

    assert [choice.model for choice in plan([cold, spare], NOW, NOW + 60)] == ["cold", "spare"]
    assert [choice.model for choice in plan([cold, spare], NOW, NOW + 1)] == ["spare", "cold"]


@given(
    st.lists(
        st.builds(
            lambda ready, busy, queued, start_s, service_s, spare: Candidate(
                pool("m", *[replica(in_flight=busy)] * ready, queued=queued, start_s=start_s), service_s, spare
            ),
            st.integers(0, 3), st.integers(0, 2), st.integers(0, 9), st.floats(0, 50), st.floats(0, 50), st.booleans(),
        ),
        min_size=1,
        max_size=5,
    ),
    st.floats(0, 100),
)  # fmt: skip
def test_every_candidate_keeps_a_place_in_the_plan(candidates, allowed_s):
    """No candidate is lost, no wait is negative, and none that is in time stands behind one that is late."""
    choices = plan(candidates, NOW, NOW + allowed_s)

    assert len(choices) == len(candidates)
    assert all(choice.wait_s >= 0 for choice in choices)
    assert sorted((choice.in_time for choice in choices), reverse=True) == [choice.in_time for choice in choices]


def test_who_waits_is_told_of_what_comes_first():
    """Of the models that may answer, the one that is expected to have a slot first."""
    cold, busy = pool("cold"), pool("busy", replica(in_flight=2))

    assert soonest([cold, busy], NOW).model == "busy"
    assert soonest([cold], NOW) == Coming("cold", Way.START, Spread(5.0, 5.0))
