"""How far one pool may go, as the operator wrote it."""

from dataclasses import dataclass

from backends.warmth.schedule import Shift


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How far a pool may go: replicas, jobs in the queue, seconds for one start.

    `start_wait_s` is how long a job may be expected to wait for a start, `None` as long as it has time; who asks for it
    holds to it. `keep_warm_s` is how long an idle replica above the minimum is kept; `None` leaves that to the
    forecast. `schedule` has the hours in which the minimum is another. `gpus` is how many each replica needs; `None`:
    one, where there is any. `is_upstream`: its one replica stands for a server that is not started here.
    """

    min_replicas: int = 0
    max_replicas: int = 1
    queue: int = 128
    start_timeout_s: float = 120.0
    start_wait_s: float | None = None
    keep_warm_s: float | None = None
    schedule: tuple[Shift, ...] = ()
    gpus: int | None = 0
    is_upstream: bool = False
