"""Whose turn it is where more models are asked for than there is room for: model by model, and nobody for ever. Pure.

Requests run grouped by model, since each change of models costs a start: A B A A C A becomes A A A A B C. A turn ends
when nobody waits for the model any more, or when another model has waited for too long.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from backends.snapshot import PoolSnapshot, ReplicaSnapshot, ReplicaState

LONGEST_WAIT_S = 30.0
"""How long the requests of a model wait at most for another model's turn to end, before that one takes no new ones."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A model that is up, or wants to be: how many jobs it has, and how long the oldest that waits has waited.

    `up_s` is how long it has been up, None where it is not; `start_s` what its start takes.
    """

    model: str
    queued: int
    in_flight: int
    oldest_wait_s: float
    start_s: float
    up_s: float | None = None

    @property
    def busy(self) -> bool:
        """Whether it has any job."""
        return self.queued > 0 or self.in_flight > 0


def order(turns: Iterable[Turn]) -> list[Turn]:
    """Return those that want to be up, in the order in which they get their turns: the longest waiting first."""
    wanting = [turn for turn in turns if turn.queued and turn.up_s is None]
    return sorted(wanting, key=lambda turn: (-turn.oldest_wait_s, turn.model))


def is_over(up: Turn, waiting: Turn, longest_wait_s: float = LONGEST_WAIT_S) -> bool:
    """Tell whether the turn of a model that is up ends for one that waits.

    It lasts for as long as the model's own start took, or the starts alone would take all the time. After that it ends
    once the model has no job; and where it has, once the other's oldest has waited too long, and longer than its own
    oldest: those that came first are served first, whatever they are for.
    """
    if up.up_s is None or up.up_s < up.start_s:
        return False
    if not up.busy:
        return True
    return waiting.oldest_wait_s >= longest_wait_s and waiting.oldest_wait_s > (up.oldest_wait_s if up.queued else 0.0)


def turn_of(pool: PoolSnapshot, now: float, replica: ReplicaSnapshot | None = None) -> Turn:
    """Return the turn of a pool that waits for one, or that of one of its replicas."""
    promised_s = 0.0 if pool.promised_since is None else now - pool.promised_since
    oldest_wait_s = max(pool.oldest_wait_s, promised_s) if replica is None else pool.oldest_wait_s
    up_s = None if replica is None else now - replica.since
    return Turn(pool.model, pool.queued, pool.in_flight, oldest_wait_s, pool.start_s, up_s)


def busy(pool: PoolSnapshot, stopping: set[str]) -> list[ReplicaSnapshot]:
    """List the replicas that are up and have work, as far as they are above the minimum; the least busy first."""
    if not pool.replicas or not (pool.queued or pool.in_flight):
        return []
    staying = [r for r in pool.alive if r.name not in stopping]
    ready = [r for r in staying if r.state is ReplicaState.READY and (r.in_flight or pool.queued)]
    ready.sort(key=lambda r: r.in_flight)
    return ready[: max(0, len(staying) - pool.min_replicas)]


def why_over(now: float, pool: PoolSnapshot, replica: ReplicaSnapshot, waiting: PoolSnapshot) -> str:
    """Say why a busy replica gives way; empty for one that is idle."""
    if not pool.queued and not replica.in_flight:
        return ""
    turn = turn_of(waiting, now)
    return f"its turn is over: {waiting.queued} have waited for up to {turn.oldest_wait_s:.0f} s"
