"""The pool under any order of events: no slot, place or wake-up is ever lost."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backends.contract import BackendError, Finish, Job, Task, Text
from backends.costs import CostSeed, ModelCosts
from backends.demand import Demand
from backends.keeper import Keeper
from backends.pool import Pool, PoolLimits
from backends.snapshot import PoolSnapshot, ReplicaState
from tests.fakes import FakeBackend, FakeEngine, VirtualLoop

SLOTS, REPLICAS, PLACES = 2, 2, 3

# How far the loop gets before the next thing happens: few rounds leave wake-ups under way, fifty leave none.
ALL = 50
ROUNDS = st.one_of(st.integers(0, 12), st.just(ALL))


@dataclass(eq=False)
class Client:
    """One job and who waits for it; `begin` lets its first event come, `end` the rest."""

    begin: asyncio.Event = field(default_factory=asyncio.Event)
    end: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[str] | None" = None

    async def ask(self, pool: Pool, deadline: float | None) -> str:
        """Run the job and return how it ended; a complete answer ends with its finish."""
        job = Job(Task.CHAT, extra={"begin": self.begin, "end": self.end})
        last = None
        try:
            async with aclosing(pool.stream(job, deadline)) as events:
                async for event in events:
                    last = event
        except BackendError as error:
            return type(error).__name__
        assert last == Finish("stop")
        return "done"


class PoolMachine(RuleBasedStateMachine):
    """Clients come, are served, leave and time out, replicas die and fail to start, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.clients: list[Client] = []
        self.settled = True
        self.loop.run_until_complete(self.build())
        self.loop.settle()

    async def build(self) -> None:
        """Make a pool with its keeper."""
        self.engine = FakeEngine(("begin", Text("a"), "end", Finish("stop")), start_s=2.0, concurrency=SLOTS)
        self.keeper = Keeper(None, self.loop.time)
        self.pool = Pool(
            "atlas",
            self.engine,
            PoolLimits(max_replicas=REPLICAS, queue=PLACES, start_timeout_s=3.0),
            costs=ModelCosts(CostSeed(start_s=2.0, service_s=1.0)),
            demand=Demand(self.loop.time()),
            clock=self.loop.time,
            wake_keeper=self.keeper.wake,
        )
        self.keeper.add(self.pool)
        self.keeper.start()

    @property
    def now(self) -> PoolSnapshot:
        """What the pool looks like."""
        return self.pool.snapshot(self.loop.time())

    @property
    def waiting(self) -> list[Client]:
        """Clients without an answer."""
        return [client for client in self.clients if client.task is not None and not client.task.done()]

    def settle(self, rounds: int = ALL) -> None:
        """Let the loop run on."""
        self.loop.settle(rounds)
        self.settled = rounds == ALL

    def pass_time(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.settle()

    @rule(deadline_s=st.sampled_from([None, 0.5, 5.0, 50.0]), rounds=ROUNDS)
    def come(self, deadline_s: float | None, rounds: int) -> None:
        """Let a job arrive."""
        client = Client()
        deadline = None if deadline_s is None else self.loop.time() + deadline_s
        client.task = self.loop.create_task(client.ask(self.pool, deadline))
        self.clients.append(client)
        self.settle(rounds)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), rounds=ROUNDS)
    def progress(self, data: st.DataObject, rounds: int) -> None:
        """Let a job's model make its first event, then the rest."""
        client = data.draw(st.sampled_from(self.waiting))
        (client.end if client.begin.is_set() else client.begin).set()
        self.settle(rounds)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), rounds=ROUNDS)
    def leave(self, data: st.DataObject, rounds: int) -> None:
        """Let a client go, perhaps in the same moment as something else happens."""
        task = data.draw(st.sampled_from(self.waiting)).task
        assert task is not None
        task.cancel()
        self.settle(rounds)

    @precondition(lambda self: any(not backend.closed for backend in self.engine.backends))
    @rule(data=st.data(), rounds=ROUNDS)
    def die(self, data: st.DataObject, rounds: int) -> None:
        """Kill a replica."""
        up: list[FakeBackend] = [backend for backend in self.engine.backends if not backend.closed]
        data.draw(st.sampled_from(up)).die()
        self.settle(rounds)

    @rule()
    def fail_next_start(self) -> None:
        """Make the next start go wrong."""
        self.engine.failures = self.engine.starts + 1

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 100.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.pass_time(seconds)

    @precondition(lambda self: self.now.ready)
    @rule(data=st.data(), rounds=ROUNDS)
    def stop(self, data: st.DataObject, rounds: int) -> None:
        """Somebody stops a replica."""
        self.pool.fleet.stop(data.draw(st.sampled_from(self.now.ready)).name)
        self.settle(rounds)

    @invariant()
    def bounds_hold(self) -> None:
        """No replica holds more than its slots, no queue more than its places (a retried job may go beyond)."""
        assert all(0 <= replica.in_flight <= SLOTS for replica in self.now.replicas)
        assert len(self.now.alive) <= REPLICAS
        assert self.now.queued <= PLACES + SLOTS * REPLICAS
        assert all(backend.running <= SLOTS for backend in self.engine.backends)

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        """Once all is settled, a free slot and a waiting job do not coexist, and counts agree with what runs."""
        if not self.settled:
            return
        now = self.now
        free = sum(SLOTS - replica.in_flight for replica in now.ready)
        assert not (free and now.queued)
        assert now.in_flight == sum(backend.running for backend in self.engine.backends)
        assert len(self.waiting) == now.queued + now.in_flight

    def teardown(self) -> None:
        """In the end everybody gets an answer or an error, and every counter is zero."""
        self.engine.failures = 0
        for client in self.clients:
            client.begin.set()
            client.end.set()
        self.pass_time(300.0)
        assert not self.waiting
        assert (self.now.queued, self.now.in_flight) == (0, 0)
        assert all(r.state in (ReplicaState.READY, ReplicaState.STARTING) for r in self.now.replicas)
        self.loop.run_until_complete(self.pool.close(self.loop.time() + 1.0))
        self.loop.run_until_complete(self.keeper.close())
        assert self.now.replicas == ()
        assert all(backend.closed for backend in self.engine.backends)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
