"""One request that is passed on, from its sending to its reply, and the same accounts as on any other way.

Knows no socket: who asked is told of the reply, or that somebody must wait for the rest.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from backends.contract import Job
from backends.pool import Begun
from gateway.callers.limits import Permit
from gateway.front import Front, whole_reply
from gateway.lane.asked import PATH
from gateway.lane.groups import Group
from gateway.lane.ways import STATUS, WIRE, Target
from gateway.query import Outcome
from gateway.reply_ids import fresh_ids
from gateway.serving.reply_head import opening
from gateway.surfaces.wire import Call, Reply, Surface


class Client(Protocol):
    """The connection of who asked."""

    peer: str | None

    def answered(self, reply: bytes) -> None:
        """Take the reply."""
        ...

    def have_a_task(self) -> None:
        """Wait for the rest of the errand that was begun."""
        ...


class Desk:
    """Looks after the errands under way: each is handed over when its time is up."""

    def __init__(self, surface: Surface, front: Front, *, deadline_s: float, clock: Callable[[], float]) -> None:
        self.surface = surface
        self.front = front
        self.deadline_s = deadline_s
        self.clock = clock
        self.ids = map(str.encode, fresh_ids())
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[Errand, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def look_after(self, errand: "Errand") -> None:
        """Hand the errand over when its time is up."""
        self._under_way[errand] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self.deadline_s, self._look)

    def forget(self, errand: "Errand") -> None:
        """Look after an errand no more."""
        self._under_way.pop(errand, None)

    def _look(self) -> None:
        """Hand over what takes too long; all have the same time, so the oldest is the next."""
        now, self._timer = self.clock(), None
        for errand in tuple(self._under_way):
            if errand.until > now:
                self._timer = self._loop.call_later(errand.until - now, self._look)
                return
            errand.late()


class Errand:
    """One request under way. It ends with its reply, with `rest`, or with `leave`."""

    __slots__ = (
        "_arrived",
        "_body",
        "_client",
        "_desk",
        "_group",
        "_handed_over",
        "_is_awaited",
        "_permit",
        "_target",
        "begun",
        "until",
    )

    begun: Begun

    def __init__(
        self, desk: Desk, group: Group, body: bytes, client: Client, *, target: Target, permit: Permit, arrived: float
    ) -> None:
        self._desk = desk
        self._group = group
        self._body = body
        self._target = target
        self._permit = permit
        self._arrived = arrived
        self._client = client
        self._handed_over = self._is_awaited = False
        self.until = arrived + desk.deadline_s

    def told(self) -> None:
        """Give the reply, or have its rest waited for."""
        if self._handed_over:
            return
        target, desk, begun = self._target, self._desk, self.begun
        ended = target.pool.end(begun)
        if ended is None:
            self._client.have_a_task()
            return
        desk.forget(self)
        (body, content_type, read, made), took_s = ended
        lookup_s = begun.arrived - self._arrived
        total_s = lookup_s + took_s
        self._permit.settle(read + made)
        target.made.answered(took_s, read, made)
        target.sums.passed(total_s, lookup_s, took_s)
        target.answered.add(total_s)
        accounts = desk.front.pipeline.accounts
        accounts.ended()
        if accounts.access.file is not None:
            label = target.status.label()
            accounts.access.note(target.pool.model, total_s=total_s, cache=label, status=STATUS, away_s=lookup_s)
        reply_id = next(desk.ids)
        form = target.form(content_type) % (
            lookup_s * 1000,
            took_s * 1000,
            reply_id,
            reply_id,
            self._permit.lines,
            len(body),
        )
        self._client.answered(b"".join((opening(STATUS), form, body)))

    def late(self) -> None:
        """Have the rest waited for; that tells at once that the time is up."""
        self._client.have_a_task()

    def hand_over(self) -> None:
        """Give no reply any more: somebody is about to wait for the `rest`."""
        self._handed_over = True
        self._desk.forget(self)

    async def rest(self) -> Reply:
        """Wait for the reply, as the usual way does."""
        self._is_awaited = True
        desk, front, target = self._desk, self._desk.front, self._target
        reply_id = next(desk.ids).decode()
        model, label = "", "none"
        call = Call("POST", PATH, {}, self._body, self._client.peer)
        try:
            request, encoder = desk.surface.decode(call, reply_id)
            outcome = await self._go_on(request.job)
            assert outcome.answer is not None
            reply = whole_reply(encoder.whole(outcome.answer), outcome, reply_id)
            model, label = target.pool.model, target.status.label()
        except Exception as error:  # noqa: BLE001 - as in the front: whatever went wrong becomes one clear answer
            reply = front.failed(error, desk.surface, reply_id, self._group.caller, target.status)
            front.pipeline.accounts.note_failed(
                target.pool.model,
                error,
                status=reply.status,
                total_s=desk.clock() - self._arrived,
                went_on=target.status,
            )
        front.telemetry.answered(WIRE, model, reply.status, label, desk.clock() - self._arrived)
        return reply

    async def _go_on(self, job: Job) -> Outcome:
        """Wait for the outcome. Raises `BackendError`."""
        pool, pipeline = self._target.pool, self._desk.front.pipeline
        try:
            answered = await pool.go_on(self.begun, job, self.until)
            answer, spent = pipeline.runner.answer_of(pool.model, answered)
            lookup_s = self.begun.arrived - self._arrived
            outcome = Outcome(
                answer.head, self._target.status, lookup_s, self._target.features, self._permit, job, self._arrived,
                answer=answer,
            )  # fmt: skip
            pipeline.accounts.settle(outcome, spent)
        except BaseException as error:
            pipeline.accounts.failed(error, pool.model, job, self._permit, self._arrived)
            raise
        finally:
            pipeline.accounts.ended()
        return outcome

    def leave(self) -> None:
        """Cancel it, unless somebody waits for its rest already: that is then to be cancelled."""
        if not self._is_awaited:
            self.hand_over()
            self._target.pool.cancel(self.begun)
            self._permit.settle(0)
            self._desk.front.pipeline.accounts.ended()
