"""A streamed request that is passed on: each piece of its answer goes out in the callback that brought it.

Knows no socket. A client that has to read first is not waited for here: its errand goes on when it has.
"""

from collections.abc import Sequence

from backends.contract import BackendError, DeadlineExceeded, Job, Made, Usage, Verbatim
from backends.pool import BegunStream
from gateway.answer import Head
from gateway.callers.limits import Permit
from gateway.counting.access_log import BROKEN_OFF, CLIENT_LEFT
from gateway.counting.spending import Spending
from gateway.lane.asked import PATH
from gateway.lane.desk import Client, Desk
from gateway.lane.errand import Errand
from gateway.lane.groups import Group
from gateway.lane.ways import STATUS, WIRE, Way
from gateway.query import Outcome
from gateway.replies import broken_off
from gateway.serving.reply_head import opening

# What reads a stream needs to know no more of its request than its wire.
_ASKED = Verbatim(WIRE, PATH, b"", streamed=True)
_UNCOUNTED = Usage(0)
_NOT_YET = float("nan")


class StreamErrand(Errand):
    """One whose answer is streamed; once that has begun it ends with it, or with `leave`."""

    __slots__ = ("_first_s", "_reply_id", "_spending", "_usage", "begun")

    begun: BegunStream

    def __init__(
        self, desk: Desk, group: Group, body: bytes, client: Client, *, way: Way, permit: Permit, arrived: float
    ) -> None:
        super().__init__(desk, group, body, client, way=way, permit=permit, arrived=arrived)
        self._spending = Spending(way.tokens_in)
        self._usage = _UNCOUNTED
        self._first_s = _NOT_YET
        self._reply_id = ""

    def told(self) -> None:
        """Pass on what has come, and be told of more."""
        sent = self.begun.sent
        if self._handed_over:
            return
        if not sent.has_come():
            sent.more(self.told)
            return
        try:
            if not self._passed_on():
                self._client.have_a_task()
            elif not sent.ended():
                if self._client.is_reading():
                    sent.more(self.told)
            else:
                self._count(sent.end())
                self._end()
        except BackendError as error:
            self._break_off(error)

    def late(self) -> None:
        """Have its beginning waited for, which tells that the time is up; what has begun is broken off."""
        if self._first_s is not _NOT_YET:
            self._break_off(DeadlineExceeded(f"{self._target.pool.model} did not complete its answer in time"))
        else:
            self._client.have_a_task()

    def _passed_on(self) -> bool:
        """Write what has come, and tell whether it is a stream. Raises `BackendError`."""
        sent = self.begun.sent
        if self._first_s is not _NOT_YET:
            data = sent.take()
            if data:
                self._client.went_on(data)
        else:
            content_type = sent.opened(_ASKED)
            if not content_type:
                return False
            data = sent.take()
            self._begin(content_type, data)
        if data:
            self._count(sent.told(data))
        return True

    def _begin(self, content_type: str, data: bytes) -> None:
        """Write the reply's head, and the first piece of its body."""
        desk, target, arrived = self._desk, self._target, self.begun.arrived
        now, lookup_s = desk.clock(), arrived - self._arrived
        first_s = self._first_s = now - arrived
        reply_id = next(desk.ids)
        form = target.form(content_type, streamed=True) % (
            lookup_s * 1000,
            first_s * 1000,
            reply_id,
            reply_id,
            self._permit.lines,
        )
        self._client.opened(b"%b%b%x\r\n%b\r\n" % (opening(STATUS), form, len(data), data))
        self._reply_id = reply_id.decode()
        target.made.first.add(first_s)
        target.answered.add(now - self._arrived)
        desk.front.pipeline.accounts.ended()

    def _count(self, made: Sequence[Made]) -> None:
        for item in made:
            self._spending.count(item)
            if type(item) is Usage:
                self._usage = item

    def _end(self) -> None:
        """Close the accounts of a stream that has ended, then the reply."""
        target, usage = self._target, self._usage
        target.pool.end_stream(self.begun, usage, self._first_s)
        target.made.tokens_in += usage.prompt_tokens
        target.made.tokens_out += usage.completion_tokens
        total_s = self._settle(STATUS)
        target.sums.passed(total_s, self.begun.arrived - self._arrived, self._first_s)
        self._client.ended()

    def _break_off(self, error: BackendError) -> None:
        """Tell of an error in the middle of the stream, and end that."""
        target, desk = self._target, self._desk
        error.model = target.pool.model
        target.pool.broke(self.begun, error)
        target.sums.fail.add(self._settle(BROKEN_OFF))
        self._client.went_on(broken_off(error, desk.surface, self._reply_id))
        self._client.ended()

    def _settle(self, status: int) -> float:
        """Close the caller's accounts; return how long the request took."""
        desk = self._desk
        desk.forget(self)
        self._permit.settle(self._spending.tokens)
        total_s = desk.clock() - self._arrived
        access = desk.front.pipeline.accounts.access
        if access.file is not None:
            self._target.note(access, total_s, status, self.begun.arrived - self._arrived)
        return total_s

    def _cancel(self) -> None:
        if self._first_s is _NOT_YET:
            super()._cancel()
        else:
            self._target.pool.cancel(self.begun)
            self._settle(CLIENT_LEFT)

    async def _awaited(self, job: Job) -> Outcome:
        target, pipeline = self._target, self._desk.front.pipeline
        model = target.pool.model
        so_far = Outcome(
            Head(model, "", 0.0), target.status, self.begun.arrived - self._arrived, target.features, self._permit, job,
            self._arrived,
        )  # fmt: skip
        return await pipeline.take_over(
            job, lambda job: pipeline.runner.run(job, self.until, (model,), self.begun), so_far
        )

    def _sent(self) -> BegunStream:
        return self.begun
