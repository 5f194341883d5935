"""The path of a request that is sent on at once to one model, and the same accounts as on any other. Knows no wire."""

from collections.abc import Callable
from typing import NamedTuple

from backends.contract import Job, Written
from backends.pool import Answered, Begun, Pool
from backends.replica import Replica
from backends.value import value
from gateway.analyze import Features
from gateway.cache_control import CacheStatus
from gateway.limits import Permit
from gateway.pipeline import Pipeline
from gateway.query import Outcome
from gateway.request import Caller


@value
class Asked:
    """What one model is asked by a request that no cache and no other request has a part in."""

    job: Job
    features: Features
    pool: Pool
    status: CacheStatus


Sends = tuple[Written, Callable[[], None]]
"""What is sent for a request, and who is told of its answer."""


class Passing(NamedTuple):
    """A request that was sent on: since when, and by whose leave. To be followed by `end`, or `cancel`."""

    asked: Asked
    pipeline: Pipeline
    permit: Permit
    arrived: float
    begun: Begun

    def end(self) -> Outcome | None:
        """Return the outcome; `None` where that is not known without waiting: then `go_on`."""
        answered = self.asked.pool.end(self.begun)
        if answered is None:
            return None
        outcome = self._outcome(answered)
        self.pipeline.accounts.ended()
        return outcome

    async def go_on(self, deadline: float) -> Outcome:
        """Wait for the outcome. Raises `BackendError`."""
        asked = self.asked
        try:
            return self._outcome(await asked.pool.go_on(self.begun, asked.job, deadline))
        except BaseException as error:
            self.pipeline.accounts.failed(error, asked.pool.model, asked.job, self.permit, self.arrived)
            raise
        finally:
            self.pipeline.accounts.ended()

    def cancel(self) -> None:
        """End what nobody wants any more."""
        self.asked.pool.cancel(self.begun)
        self.permit.settle(0)
        self.pipeline.accounts.ended()

    def _outcome(self, answered: Answered) -> Outcome:
        asked, pipeline = self.asked, self.pipeline
        answer, spent = pipeline.runner.answer_of(asked.pool.model, answered)
        lookup_s = self.begun.arrived - self.arrived
        outcome = Outcome(
            answer.head, asked.status, lookup_s, asked.features, self.permit, asked.job, self.arrived, answer=answer
        )
        pipeline.accounts.settle(outcome, spent)
        return outcome


def send_on(
    asked: Asked, pipeline: Pipeline, caller: Caller, replica: Replica, sends: Sends, *, arrived: float
) -> Passing:
    """Send a request, that has just arrived, to a replica that is free now; somebody is told when its outcome has come.

    Raises what refuses it for the caller's limits.
    """
    permit = pipeline.accounts.begin(caller, asked.features)
    return Passing(asked, pipeline, permit, arrived, asked.pool.begin(replica, asked.job, *sends))
