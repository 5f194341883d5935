"""What the tests of plans share: replicas and pools as they stand at one moment."""

from dataclasses import replace

from backends.planning import Action, Policy
from backends.snapshot import PoolSnapshot, ReplicaSnapshot, ReplicaState
from backends.warmth.course import Course

NOW = 10_000.0
MIB = 2**20
POLICY = Policy()


def replica(
    name: str = "atlas-1",
    state: ReplicaState = ReplicaState.READY,
    *,
    in_flight: int = 0,
    idle_s: float = 0.0,
    up_s: float = 5000.0,
    size: int = 100 * MIB,
    remaining_s: float = 0.0,
) -> ReplicaSnapshot:
    """Make a replica that has been idle for `idle_s`."""
    idle_since = None if in_flight else NOW - idle_s
    return ReplicaSnapshot(name, state, in_flight, NOW - up_s, idle_since, remaining_s, size)


def pool(*replicas: ReplicaSnapshot, **changes: object) -> PoolSnapshot:
    """Make a pool that nobody has asked yet, of at most two replicas."""
    calm = PoolSnapshot(
        model="atlas",
        min_replicas=0,
        max_replicas=2,
        slots_per_replica=4,
        replicas=replicas,
        queued=0,
        queue_limit=128,
        oldest_wait_s=0.0,
        rate_per_s=0.0,
        last_arrival=None,
        start_s=10.0,
        service_s=1.0,
        replica_bytes=100 * MIB,
        least_bytes=100 * MIB,
    )
    return replace(calm, **changes)  # type: ignore[arg-type]


def asked(ago_s: float, *, up_until_s: float = 1000.0) -> dict[str, object]:
    """Return what a pool knows whose last job ended that long ago, and whose course is to be up for a time."""
    course = Course((0.0, up_until_s), (0, 1))
    return {"idle_since": NOW - ago_s, "last_arrival": NOW - ago_s, "course": course, "course_words": "break-even"}


def kinds(actions: tuple[Action, ...]) -> list[str]:
    """Name actions as `start atlas`."""
    return [f"{type(action).__name__.lower()} {action.model}" for action in actions]
