"""The plan over candidates: the soonest first, fallbacks after, the late ones last."""

from hypothesis import given
from hypothesis import strategies as st

from backends.snapshot import PoolSnapshot, ReplicaSnapshot, ReplicaState
from gateway.router import Candidate, expected_wait, plan

NOW = 100.0


def replica(state: ReplicaState = ReplicaState.READY, in_flight: int = 0, remaining_s: float = 0.0) -> ReplicaSnapshot:
    """Make a replica."""
    return ReplicaSnapshot("r", state, in_flight, 0.0, None, remaining_s, 0)


def pool(
    model: str = "m", *replicas: ReplicaSnapshot, queued: int = 0, start_s: float = 5.0, **more: object
) -> PoolSnapshot:
    """Make a pool of two slots a replica and one second a job."""
    fields = {
        "min_replicas": 0, "max_replicas": 2, "slots_per_replica": 2, "queue_limit": 9, "oldest_wait_s": 0.0,
        "rate_per_s": 0.0, "last_arrival": None, "service_s": 1.0, "replica_bytes": 0,
    }  # fmt: skip
    return PoolSnapshot(model=model, replicas=replicas, queued=queued, start_s=start_s, **(fields | more))


def test_free_slot_means_no_wait():
    """A ready replica with a free slot takes the job at once."""
    assert expected_wait(pool("m", replica(in_flight=1)), NOW)[0] == 0.0


def test_busy_replicas_are_waited_for_by_their_service_time():
    """Three jobs before it on two slots of one second each make a wait of a second and a half."""
    wait_s, why = expected_wait(pool("m", replica(in_flight=2), queued=2), NOW)

    assert wait_s == 1.5
    assert "3 jobs before it" in why


def test_start_in_progress_is_waited_for_what_remains():
    """What remains of a start counts, not the whole of it."""
    assert expected_wait(pool("m", replica(ReplicaState.STARTING, remaining_s=0.5)), NOW)[0] == 0.5


def test_cold_pool_costs_a_start_and_its_pause_after_failures():
    """Where nothing runs, the learned start-up time counts, and the pause that failures have earned."""
    assert expected_wait(pool("m"), NOW)[0] == 5.0
    assert expected_wait(pool("m", failures=2, retry_at=NOW + 3), NOW)[0] == 8.0


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
