"""A pool: jobs run in the slots of one model's replicas, streamed or whole, each within its time."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import NamedTuple, cast

from backends.contract import (
    Backend,
    BackendError,
    DeadlineExceeded,
    Dispatched,
    Job,
    Made,
    UpstreamFailed,
    Usage,
    WorkerDied,
)
from backends.limit import Limit, in_time
from backends.pool_limits import PoolLimits
from backends.replica import Replica
from backends.sending import Passed, SendingBackend, Sent, SentStream, Written
from backends.slots import Slots
from backends.warmth.ladder import WAIT_VALUE, Level

__all__ = ["Answered", "Begun", "BegunStream", "Pool", "PoolLimits"]

_UNCOUNTED = Usage(0)

# With fewer jobs at a time the course alone decides: the wait that a second replica spares is worth less than itself.
_LEAST_JOBS = 1.0 / WAIT_VALUE


class Answered(NamedTuple):
    """A whole answer: where it was made, after which waits, when it began to come (from its arrival on), its events.

    `usage` is the one among them, or says that nothing was counted.
    """

    dispatched: Dispatched
    first_s: float
    events: Sequence[Made]
    usage: Usage


class Begun(NamedTuple):
    """A job that was sent to a replica, in a slot of its own, when it arrived."""

    replica: Replica
    sent: Sent
    arrived: float


class BegunStream(NamedTuple):
    """A job that was sent to a replica, in a slot of its own, when it arrived, and whose answer is streamed."""

    replica: Replica
    sent: SentStream
    arrived: float


class Pool(Slots):
    """Runs jobs in the slots of one model's replicas; a slot is bound when a job can begin, not when it arrives."""

    async def stream(
        self, job: Job, deadline: float | None = None, begun: BegunStream | None = None
    ) -> AsyncGenerator[Made, None]:
        """Run a job on the first replica that is free and yield its events, `Dispatched` first.

        It ends by `deadline` (of the pool's clock). A job whose replica dies before its first event runs once more
        elsewhere. What was `begun` goes on where it is. Raises `QueueFull`, `StartFailed`, `DeadlineExceeded`,
        `WorkerDied`, and what the backend raises. Closing the iterator cancels the work and frees the slot.
        """
        now = self._clock()
        arrived = now if begun is None else begun.arrived
        if begun is None:
            self.demand.record(arrived)
        limit = Limit(None if deadline is None else deadline - now)
        try:
            replica = await self._bind(job, arrived, deadline, again=False) if begun is None else begun.replica
            try:
                dispatched, events, event = await self._begin(replica, job, arrived, limit, begun)
            except WorkerDied:
                replica = await self._bind(job, arrived, deadline, again=True)
                dispatched, events, event = await self._begin(replica, job, arrived, limit)
            bound_at = arrived + dispatched.queue_s + dispatched.start_s
            first_event_s = self._clock() - bound_at
            usage = _UNCOUNTED
            try:
                yield dispatched
                while True:
                    if type(event) is Usage:
                        usage = event
                    yield event
                    with limit:
                        event = await events.__anext__()
            except StopAsyncIteration:
                self._learn(usage.prompt_tokens, usage.completion_tokens, first_event_s, self._clock() - bound_at)
            except WorkerDied as error:
                self.fleet.lost(replica, str(error))
                raise
            except TimeoutError:
                raise DeadlineExceeded(f"{self.model} did not complete its answer in time") from None
            finally:
                await self._finish(replica, events)
        finally:
            limit.close()

    async def answer(self, job: Job, deadline: float | None = None) -> Answered:
        """Run a job as `stream` does, and return its whole answer.

        Where a replica is free whose answers come at once, nothing is streamed on the way.
        """
        arrived = self._clock()
        self._refuse_new(again=False)
        replica = self._seat(job, deadline)
        if replica is not None and replica.answer is not None:
            self.demand.record(arrived)
            dispatched = self._dispatched(replica, arrived)
            return await self._answer(replica, replica.answer, job, arrived, dispatched=dispatched, deadline=deadline)
        if replica is not None:
            self._release(replica)
        return await self._collected(job, arrived, deadline)

    def begin(self, replica: Replica, written: Written, told: Callable[[], None]) -> Begun:
        """Send a job to a replica that is `free_now` and whose backend is ready.

        Once `told` is called it is to be followed by `end`; where that returns nothing, by `go_on`.
        """
        sending, arrived = self._take_slot(replica)
        return Begun(replica, sending.begin(written, told), arrived)

    def begin_stream(self, replica: Replica, written: Written, told: Callable[[], None]) -> BegunStream:
        """Send a job as `begin` does. To be followed by `end_stream`, `broke` or `cancel`, or by `stream`."""
        sending, arrived = self._take_slot(replica)
        return BegunStream(replica, sending.begin_stream(written, told), arrived)

    def end_stream(self, begun: BegunStream, usage: Usage, first_s: float) -> None:
        """End a job whose whole answer has come, the first of it after so long."""
        self.cancel(begun)
        self._learn(usage.prompt_tokens, usage.completion_tokens, first_s, self._clock() - begun.arrived)

    def broke(self, begun: BegunStream, error: BackendError) -> None:
        """End a job that has failed."""
        self.cancel(begun)
        if isinstance(error, WorkerDied):
            self.fleet.lost(begun.replica, str(error))

    def end(self, begun: Begun) -> tuple[Passed, float] | None:
        """Return what a job that was begun has answered, and after what time; `None` where that is not known yet."""
        passed = begun.sent.passed()
        if passed is None:
            return None
        self._release(begun.replica)
        took_s = self._clock() - begun.arrived
        self._learn(passed.tokens_in, passed.tokens_out, took_s, took_s)
        return passed, took_s

    async def go_on(self, begun: Begun, job: Job, deadline: float | None) -> Answered:
        """Go on with a job that was begun, as `answer` does."""
        dispatched = Dispatched(begun.replica.name, queue_s=0.0, start_s=0.0)
        return await self._answer(
            begun.replica, begun.sent.rest, job, begun.arrived, dispatched=dispatched, deadline=deadline
        )

    def cancel(self, begun: Begun | BegunStream) -> None:
        """End a job that was begun, and free its slot."""
        begun.sent.leave()
        self._release(begun.replica)

    def rest(self, *, resting: bool) -> None:
        """Let every replica end, and take no jobs and start none until it rests no more."""
        self.resting = resting
        if resting:
            for replica in self._replicas:
                self.fleet.stop(replica.name)
            self.refuse_waiting("it is being unloaded")
        self._wake_keeper()

    def room_was_made(self) -> None:
        """Note that others were sent away since its last start ran out of memory: the next one need not wait."""
        self._failures.made_room = True

    def is_quiet(self, now: float, *, was_quiet: bool) -> bool:
        """Tell whether nothing is to be decided: no replica is here, nobody waits, and none is worth having by now.

        `was_quiet`: it was so before, and nobody has come since; load only falls then.
        """
        if self._replicas or self._line or self._background or self._failures.count or self.limits.min_replicas:
            return False
        if (self.limits.schedule and self._least()) or self.hints.replicas(now):
            return False
        keeping, idle_since = self.demand.keeping, self.demand.idle_since
        if idle_since is not None and self.limits.keep_warm_s is None:
            place = keeping.course.place_at(max(0.0, now - idle_since))
            if keeping.ladder.rungs[place].level is not Level.ABSENT:
                return False
        if was_quiet or self.limits.max_replicas == 1:
            return True
        return self.demand.rate_per_s(now) * self.costs.mean_service_s <= _LEAST_JOBS

    def _take_slot(self, replica: Replica) -> tuple[SendingBackend, float]:
        """Take a slot of a replica that is `free_now`; return what a job is sent by, and when it arrived."""
        arrived = self._clock()
        self.demand.record(arrived)
        replica.in_flight += 1
        return cast("SendingBackend", replica.sending), arrived

    async def _collected(self, job: Job, arrived: float, deadline: float | None) -> Answered:
        """Stream a job, and return its whole answer."""
        first_s = 0.0
        answered: list[Made] = []
        async with aclosing(self.stream(job, deadline)) as events:
            dispatched = await anext(events)
            async for event in events:
                first_s = first_s or self._clock() - arrived
                answered.append(event)
        return Answered(cast("Dispatched", dispatched), first_s, answered, _usage(answered))

    async def _begin(
        self, replica: Replica, job: Job, arrived: float, limit: Limit, begun: BegunStream | None = None
    ) -> tuple[Dispatched, AsyncGenerator[Made, None], Made]:
        """Give the job to a replica and wait for its first event; unless one comes, the slot is given back."""
        if begun is None:
            dispatched = self._dispatched(replica, arrived)
            events = cast("Backend", replica.backend).stream(job)
        else:
            dispatched, events = Dispatched(replica.name, queue_s=0.0, start_s=0.0), begun.sent.rest(job)
        try:
            with limit:
                event = await anext(events)
                if type(event) is Dispatched:
                    dispatched, event = replace(dispatched, unkept=event.unkept), await anext(events)
        except BaseException as error:
            await self._finish(replica, events)
            if isinstance(error, WorkerDied):
                self.fleet.lost(replica, str(error))
            if isinstance(error, TimeoutError) and limit.expired:
                raise self._nothing_came(arrived) from None
            if isinstance(error, StopAsyncIteration):
                raise UpstreamFailed(f"{self.model} ended its answer before it began") from None
            raise
        return dispatched, events, event

    async def _answer(
        self,
        replica: Replica,
        answer: Callable[[Job], Awaitable[Sequence[Made]]],
        job: Job,
        arrived: float,
        *,
        dispatched: Dispatched,
        deadline: float | None,
    ) -> Answered:
        """Run a job in a slot that was taken for it; where the replica dies, run it once more elsewhere."""
        limit = Limit(None if deadline is None else deadline - self._clock())
        try:
            with limit:
                events = await answer(job)
        except TimeoutError:
            raise self._nothing_came(arrived) from None
        except WorkerDied as error:
            died = error
        else:
            return self._answered(dispatched, arrived, events)
        finally:
            limit.close()
            self._release(replica)
        self.fleet.lost(replica, str(died))
        return await self._collected(job, arrived, deadline)

    def _answered(self, dispatched: Dispatched, arrived: float, events: Sequence[Made]) -> Answered:
        took_s = self._clock() - arrived
        if events and type(first := events[0]) is Dispatched:
            dispatched, events = replace(dispatched, unkept=first.unkept), events[1:]
        usage = _usage(events)
        self._learn(usage.prompt_tokens, usage.completion_tokens, took_s, took_s)
        return Answered(dispatched, took_s, events, usage)

    def _dispatched(self, replica: Replica, arrived: float) -> Dispatched:
        now = self._clock()
        start_s = min(now - arrived, max(0.0, replica.ready_at - arrived))
        return Dispatched(replica.name, queue_s=now - arrived - start_s, start_s=start_s)

    def _nothing_came(self, arrived: float) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self.model} gave no first event {in_time(self._clock() - arrived)}")

    async def _finish(self, replica: Replica, events: AsyncGenerator[Made, None]) -> None:
        """Cancel what is left of a job, then free its slot."""
        try:
            await events.aclose()
        finally:
            self._release(replica)

    def _learn(self, tokens_in: int, tokens_out: int, first_event_s: float, service_s: float) -> None:
        self._failures.count = 0
        self.costs.learn_job(
            service_s=service_s, first_event_s=first_event_s, tokens_in=tokens_in, tokens_out=tokens_out
        )


def _usage(events: Sequence[Made]) -> Usage:
    for event in events:
        if type(event) is Usage:
            return event
    return _UNCOUNTED
