"""Whose turn it is under pressure: model by model, with a longest wait, and nobody for ever."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.devices.view import Device
from backends.planning import Start, Stop, Wait, plan
from backends.snapshot import LevelCost, PoolSnapshot, ReplicaSnapshot, ReplicaState
from backends.turns import LONGEST_WAIT_S, Turn, is_over, order
from backends.warmth.ladder import Level

NOW = 1000.0
SIZE = 100


@dataclass
class OneRoom:
    """A machine with room for one model, which runs one job at a time of a second each, and asks whose turn it is."""

    start_s: float
    longest_wait_s: float
    now: float = 0.0
    up: str | None = None
    up_since: float = 0.0
    queues: dict[str, deque[float]] = field(default_factory=dict)
    done: list[tuple[str, float]] = field(default_factory=list)

    def run(self, jobs: Iterable[tuple[float, str]]) -> list[tuple[str, float]]:
        """Serve jobs given as (arrival, model): the models in the order of service, and how long each waited."""
        coming = deque(sorted(jobs, key=lambda job: job[0]))
        while coming or any(self.queues.values()):
            self._take(coming)
            if not any(self.queues.values()):
                self.now = coming[0][0]
                continue
            self._swap()
            self._serve()
        return self.done

    def _take(self, coming: deque[tuple[float, str]]) -> None:
        while coming and coming[0][0] <= self.now:
            arrived, model = coming.popleft()
            self.queues.setdefault(model, deque()).append(arrived)

    def _turn(self, model: str) -> Turn:
        queue = self.queues.get(model, ())
        oldest_s = self.now - queue[0] if queue else 0.0
        return Turn(
            model, len(queue), 0, oldest_s, self.start_s, self.now - self.up_since if model == self.up else None
        )

    def _swap(self) -> None:
        """Change models where the turn is over; a start takes its time."""
        waiting = order([self._turn(model) for model in self.queues])
        if waiting and (self.up is None or is_over(self._turn(self.up), waiting[0], self.longest_wait_s)):
            self.now += self.start_s
            self.up, self.up_since = waiting[0].model, self.now

    def _serve(self) -> None:
        queue = self.queues.get(self.up or "")
        if queue:
            self.done.append((self.up or "", self.now - queue.popleft()))
        self.now += 1.0


def names(done: Sequence[tuple[str, float]]) -> str:
    """Return the models in the order in which their jobs were served."""
    return " ".join(model for model, _ in done)


def test_requests_run_model_by_model():
    """A B A A C A becomes A A A A B C: four changes of models become two."""
    jobs = [(0.1 * place, model) for place, model in enumerate("ABAACA")]

    assert names(OneRoom(start_s=1.0, longest_wait_s=30.0).run(jobs)) == "A A A A B C"


def test_a_model_that_is_asked_all_the_time_gives_way_after_the_longest_wait():
    """One request of B among a stream of A is served soon after it has waited for the longest wait."""
    jobs = [(float(second), "A") for second in range(200)] + [(5.5, "B")]
    waits = dict(OneRoom(start_s=2.0, longest_wait_s=30.0).run(jobs))

    assert 30.0 <= waits["B"] <= 30.0 + 2.0 + 1.0 + 1.0


@given(
    st.lists(st.tuples(st.floats(0, 200), st.sampled_from("ABCDE")), min_size=1, max_size=60),
    st.floats(0.1, 20),
    st.floats(0.0, 60),
)
def test_nobody_starves(jobs, start_s, longest_wait_s):
    """Whatever comes is served: within what was there before it, and a bounded number of turns of other models."""
    done = OneRoom(start_s, longest_wait_s).run(jobs)

    assert sorted(model for model, _ in done) == sorted(model for _, model in jobs)
    # At worst all other work goes first, each model's share of it by a start of its own for every job of that model.
    turn_s = 2 * start_s + longest_wait_s + 2.0
    assert max(wait for _, wait in done) <= len(jobs) * 1.0 + (len(jobs) + 1) * turn_s


@given(st.floats(0, 100), st.integers(0, 5), st.floats(0, 100), st.floats(0, 100))
def test_a_turn_lasts_as_long_as_its_start(up_s, queued, oldest_s, waited_s):
    """Whoever waits for however long: starts never take more than half of the time."""
    up = Turn("a", queued, 0, oldest_s, 50.0, up_s)

    assert not is_over(up, Turn("b", 1, 0, waited_s, 50.0)) or up_s >= 50.0


def pool(model: str, *replicas: ReplicaSnapshot, **changes: object) -> PoolSnapshot:
    """Make a pool of one replica at most, whose start takes ten seconds."""
    calm = PoolSnapshot(
        model=model, min_replicas=0, max_replicas=1, slots_per_replica=1, replicas=replicas, queued=0, queue_limit=9,
        oldest_wait_s=0.0, rate_per_s=1.0, last_arrival=NOW, start_s=10.0, service_s=1.0, replica_bytes=SIZE,
        least_bytes=SIZE,
    )  # fmt: skip
    return replace(calm, **changes)  # type: ignore[arg-type]


def busy(name: str, up_s: float = 100.0) -> ReplicaSnapshot:
    """Make a replica that holds a job."""
    return ReplicaSnapshot(name, ReplicaState.READY, 1, NOW - up_s, None, 0.0, SIZE)


def test_the_keeper_lets_a_busy_model_end_its_turn():
    """A busy replica stops taking jobs for a model that has waited too long, and that one waits until it is gone."""
    waiting = pool("b", queued=2, oldest_wait_s=LONGEST_WAIT_S)

    stop, wait = plan(NOW, [pool("a", busy("a-1"), queued=3, oldest_wait_s=4.0), waiting], SIZE)

    assert isinstance(stop, Stop)
    assert (stop.replica, stop.why.partition(", ")[2]) == ("a-1", "its turn is over: 2 have waited for up to 30 s")
    assert isinstance(wait, Wait)


@pytest.mark.parametrize(
    ("busy_one", "waited_s"),
    [
        pytest.param(pool("a", busy("a-1"), queued=3), LONGEST_WAIT_S - 1, id="the wait is not too long"),
        pytest.param(pool("a", busy("a-1"), queued=3, oldest_wait_s=50.0), 40.0, id="its own have waited for longer"),
        pytest.param(pool("a", busy("a-1", up_s=5.0), queued=3), 40.0, id="it has only just come up"),
        pytest.param(pool("a", busy("a-1"), queued=3, min_replicas=1), 40.0, id="it always runs"),
    ],
)
def test_a_turn_goes_on(busy_one, waited_s):
    """A busy replica stays where its turn is not over, or where it is to run always."""
    actions = plan(NOW, [busy_one, pool("b", queued=1, oldest_wait_s=waited_s)], SIZE * (1 + busy_one.min_replicas) - 1)

    assert not any(isinstance(action, Stop) for action in actions)


def test_a_busy_model_ends_its_turn_on_a_device_too():
    """Where the memory that is short is a GPU's, who holds it gives way as for the host's."""
    cost = LevelCost(Level.WARM, 0.0, 0.0, SIZE, SIZE)
    on_device = replace(busy("a-1"), devices=(0,), device_bytes=SIZE)
    waiting = pool("b", queued=2, oldest_wait_s=LONGEST_WAIT_S, gpus=1, costs=(cost,))
    gpu = Device(0, "gpu", budget_bytes=SIZE, free_bytes=0)

    stop, wait = plan(NOW, [pool("a", on_device, queued=3, gpus=1, costs=(cost,)), waiting], None, devices=[gpu])
    too_soon = replace(waiting, oldest_wait_s=LONGEST_WAIT_S - 1)
    kept = plan(NOW, [pool("a", on_device, queued=3, gpus=1, costs=(cost,)), too_soon], None, devices=[gpu])

    assert isinstance(stop, Stop)
    assert (stop.replica, type(wait)) == ("a-1", Wait)
    assert not any(isinstance(action, Stop) for action in kept)


def test_the_next_turn_is_of_who_waits_for_the_longest():
    """Of several models that wait, the one whose oldest request came first is started."""
    actions = plan(NOW, [pool("c", queued=9, oldest_wait_s=1.0), pool("b", queued=1, oldest_wait_s=2.0)], SIZE)

    assert [type(action) for action in actions if action.model == "b"] == [Start]
    assert not any(isinstance(action, Start) for action in actions if action.model == "c")


def test_a_promise_is_a_turn_too():
    """Who was told to come again finds a replica, though nobody waits in the queue meanwhile."""
    promised = pool("b", promised_since=NOW - LONGEST_WAIT_S, hinted=1)

    (start,) = plan(NOW, [promised], SIZE)
    assert isinstance(start, Start)
    stop, _ = plan(NOW, [pool("a", busy("a-1")), promised], SIZE)
    assert isinstance(stop, Stop)


def test_a_hint_starts_a_replica_and_pushes_nobody_out():
    """What was hinted at is started where there is room, kept while the hint lasts, and evicts nothing."""
    idle = ReplicaSnapshot("a-1", ReplicaState.READY, 0, NOW - 500, NOW - 400, 0.0, SIZE)
    hinted, other = pool("b", hinted=1, keep_warm_s=0.0), pool("a", idle, keep_warm_s=9999.0)

    assert [type(action) for action in plan(NOW, [hinted], SIZE)] == [Start]
    assert not any(isinstance(action, Stop) for action in plan(NOW, [other, hinted], SIZE))
    assert plan(NOW, [pool("b", idle, hinted=1, keep_warm_s=0.0)], SIZE) == ()
    assert len(plan(NOW, [pool("b", idle, keep_warm_s=0.0)], SIZE)) == 1
