"""One item of a batch as the gateway's own request: what its errors mean, and whose limits it takes."""

import asyncio
from dataclasses import replace

import pytest

from backends.contract import (
    BadJob,
    DeadlineExceeded,
    QueueFull,
    StartFailed,
    Task,
    UpstreamFailed,
    WorkerDied,
)
from gateway.batch.contract import Batch, Ended, Item
from gateway.batch.ledger import Ledger
from gateway.batch.work import Later, Work
from gateway.errors import RateLimited
from gateway.request import Caller, Limits
from tests.batch_world import draft
from tests.fakes import ANSWER, FakeEngine, run_virtual
from tests.test_gateway_batch_runner import works
from tests.test_gateway_pipeline import House, ask, house


@pytest.mark.parametrize(
    ("error", "begun", "expected"),
    [
        (QueueFull("full", 3.0), False, Later(3.0, failed=False)),
        (StartFailed("cold", 4.0), False, Later(4.0, failed=False)),
        (RateLimited("fast", 5.0, {}), False, Later(5.0, failed=False)),
        (UpstreamFailed("busy", 429, 6.0), False, Later(6.0, failed=False)),
        (UpstreamFailed("down", 503), False, Later(None, failed=False)),
        (DeadlineExceeded("late"), False, Later(None, failed=False)),
        (UpstreamFailed("broken", 500), False, Later(None, failed=True)),
        (WorkerDied("gone"), False, Later(None, failed=True)),
        (BadJob("too long", "prompt"), False, None),
    ],
)
def test_what_an_error_means_for_an_item(error, begun, expected):
    """What waiting cures costs no try, what failed may be tried again, and what is wrong is final."""

    async def scenario() -> None:
        async with house({"a": FakeEngine((error,))}) as built:
            result = await Work(lambda: built.pipeline, lambda _: Caller("")).do(batch_of(built), ITEM, 0)
            if expected is None:
                assert isinstance(result, Ended)
                assert (result.status, b"too long" in result.body) == ("failed", True)
            else:
                assert result == expected

    if isinstance(error, QueueFull | StartFailed | RateLimited | DeadlineExceeded):

        async def refused() -> None:
            result = await Work(lambda: Refusing(error), lambda _: Caller("")).do(BATCH, ITEM, 0)
            assert result == expected

        run_virtual(refused())
    else:
        run_virtual(scenario())


class Refusing:
    """A pipeline that has no room."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def answer(self, *_: object) -> None:
        """Refuse."""
        raise self.error


BATCH = Batch(1, "b", "", "a", "generate", {}, None, "open", 1, 0, 0, 0.0, None)
ITEM = Item(1, 0, b'"hello"')


def batch_of(built: House) -> Batch:
    """Make a batch for the first model of a house."""
    return replace(BATCH, model=next(iter(built.engines)))


def test_a_batch_waits_for_its_key_and_leaves_it_to_live_requests(tmp_path):
    """Items that the key refuses for now are done later: none fails, and a live request never waits for one."""

    async def scenario() -> None:
        who = Caller("", limits=Limits(requests_per_minute=4, concurrency=1))
        async with house({"a": FakeEngine()}) as built:
            do = Work(lambda: built.pipeline, lambda _: who).do
            async with works(tmp_path, do) as queue:
                items = [b'"item %d"' % place for place in range(6)]
                batch = await queue.desk.do(Ledger.put, draft("b"), items, 10**6, 10**9, last=True)
                queue.runner.add(batch)
                for number in range(3):
                    await asyncio.sleep(40)
                    assert (await queue.find(batch)).status == "open"
                    await built.get(ask(f"live {number}"), caller=who)
                    await built.get(ask(f"beside {number}"), caller=who)

                assert (await queue.ended(batch)).done == 6

    run_virtual(scenario())


def test_a_model_that_keeps_failing_ends_the_item():
    """The last of the tries is the result."""

    async def scenario() -> None:
        async with house({"a": FakeEngine((UpstreamFailed("broken", 500),))}) as built:
            work = Work(lambda: built.pipeline, lambda _: Caller(""))
            assert await work.do(batch_of(built), ITEM, 1) == Later(None, failed=True)
            result = await work.do(batch_of(built), ITEM, 2)
            assert isinstance(result, Ended)
            assert b"upstream_failed" in result.body

    run_virtual(scenario())


def test_work_is_background_work_of_its_caller():
    """The pool is told that nobody waits, and the model gets the prompt with the batch's parameters."""

    async def scenario() -> None:
        async with house({"a": FakeEngine(ANSWER)}) as built:
            batch = replace(batch_of(built), parameters={"max_tokens": 3})
            result = await Work(lambda: built.pipeline, lambda _: Caller("")).do(batch, ITEM, 0)

            assert isinstance(result, Ended)
            assert (result.status, b'"text":"yes"' in result.body) == ("done", True)
            (job,) = built.engines["a"].backends[0].jobs
            assert (job.background, job.stream, job.task) == (True, False, Task.CHAT)
            assert (job.messages[0].content, job.sampling.max_tokens) == ("hello", 3)

    run_virtual(scenario())


def test_a_key_that_was_taken_away_does_no_work():
    """Its batch's items fail, as its requests would."""

    async def scenario() -> None:
        async with house({"a": FakeEngine()}) as built:
            result = await Work(lambda: built.pipeline, lambda _: None).do(batch_of(built), ITEM, 0)
            assert isinstance(result, Ended)
            assert b"invalid_api_key" in result.body
            assert built.engines["a"].backends == []

    run_virtual(scenario())


def test_a_model_that_is_gone_fails_the_item():
    """A route that an edit of the config has removed is an error like any other."""

    async def scenario() -> None:
        async with house({"a": FakeEngine()}) as built:
            gone = replace(BATCH, model="gone")
            result = await Work(lambda: built.pipeline, lambda _: Caller("")).do(gone, ITEM, 0)
            assert isinstance(result, Ended)
            assert b"model_not_found" in result.body

    run_virtual(scenario())
