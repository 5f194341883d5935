"""A request that is passed on, from its sending to its reply, and the same accounts as on any other way.

Knows no socket: who asked is told of the reply, or that somebody must wait for the rest.
"""

from backends.contract import BackendError, Job
from backends.pool import Begun, BegunStream
from gateway.callers.limits import Permit
from gateway.lane.asked import PATH
from gateway.lane.desk import Client, Desk
from gateway.lane.groups import Group
from gateway.lane.ways import STATUS, WIRE, Way
from gateway.query import Outcome
from gateway.serving.reply_head import opening
from gateway.surfaces.wire import Call, Reply


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
        "until",
    )

    def __init__(
        self, desk: Desk, group: Group, body: bytes, client: Client, *, way: Way, permit: Permit, arrived: float
    ) -> None:
        self._desk = desk
        self._group = group
        self._body = body
        self._target = way.target
        self._permit = permit
        self._arrived = arrived
        self._client = client
        self._handed_over = self._is_awaited = False
        self.until = arrived + desk.deadline_s

    def told(self) -> None:
        """Look at what has come, unless somebody waits for it."""
        raise NotImplementedError

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
        model, label = target.pool.model, target.status.label()
        call = Call("POST", PATH, {}, self._body, self._client.peer)
        try:
            request, encoder = desk.surface.decode(call, reply_id)
            outcome = await self._go_on(request.job)
            reply, outcome = await front.reply(desk.surface, encoder, outcome, reply_id)
        except Exception as error:  # noqa: BLE001 - as in the front: whatever went wrong becomes one clear answer
            if isinstance(error, BackendError):
                error.model = model
            reply = front.failed(error, desk.surface, reply_id, self._group.caller, target.status)
            front.pipeline.accounts.note_failed(
                model,
                error,
                status=reply.status,
                total_s=desk.clock() - self._arrived,
                went_on=target.status,
            )
        front.telemetry.answered(WIRE, model, reply.status, label, desk.clock() - self._arrived)
        return reply

    async def _go_on(self, job: Job) -> Outcome:
        """Wait for the outcome. Raises `BackendError`."""
        accounts = self._desk.front.pipeline.accounts
        try:
            return await self._awaited(job)
        except BaseException as error:
            accounts.failed(error, self._target.pool.model, job, self._permit, self._arrived)
            raise
        finally:
            accounts.ended()

    async def _awaited(self, job: Job) -> Outcome:
        raise NotImplementedError

    def leave(self) -> None:
        """Cancel it, unless somebody waits for its rest already: that is then to be cancelled."""
        if not self._is_awaited:
            self.hand_over()
            self._cancel()

    def _cancel(self) -> None:
        """Cancel what has no reply yet, and close its accounts."""
        self._target.pool.cancel(self._sent())
        self._permit.settle(0)
        self._desk.front.pipeline.accounts.ended()

    def _sent(self) -> Begun | BegunStream:
        raise NotImplementedError


class WholeErrand(Errand):
    """One whose answer comes whole."""

    __slots__ = ("begun",)

    begun: Begun

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
            target.note(accounts.access, total_s, STATUS, lookup_s)
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

    async def _awaited(self, job: Job) -> Outcome:
        pool, pipeline = self._target.pool, self._desk.front.pipeline
        answered = await pool.go_on(self.begun, job, self.until)
        answer, spent = pipeline.runner.answer_of(pool.model, answered)
        lookup_s = self.begun.arrived - self._arrived
        outcome = Outcome(
            answer.head, self._target.status, lookup_s, self._target.features, self._permit, job, self._arrived,
            answer=answer,
        )  # fmt: skip
        pipeline.accounts.settle(outcome, spent)
        return outcome

    def _sent(self) -> Begun:
        return self.begun
