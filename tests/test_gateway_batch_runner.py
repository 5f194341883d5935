"""The work on batches in virtual time: turns, pauses, tries, cancelling, the end of a life; and the callbacks."""

import asyncio
import hashlib
import hmac
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import (
    BadJob,
    DeadlineExceeded,
    QueueFull,
    StartFailed,
    Task,
    UpstreamFailed,
    WorkerDied,
)
from gateway.batch import callbacks, pace
from gateway.batch.callbacks import Deliverer
from gateway.batch.contract import Batch, Ended, Item
from gateway.batch.desk import Desk
from gateway.batch.ledger import Ledger
from gateway.batch.outbound import Unreachable
from gateway.batch.runner import Runner
from gateway.batch.work import Later, Work
from gateway.errors import RateLimited
from gateway.request import Caller, Limits
from tests.batch_world import NoThread, draft
from tests.fakes import ANSWER, FakeEngine, run_virtual
from tests.test_gateway_pipeline import House, ask, house

URL = "https://example.com/done"
SECRET = b"secret"


class Works:
    """A runner over a ledger, and a model that is a function of the test's; notes the order of the work."""

    def __init__(self, desk: Desk, do: Callable[..., Any] | None, concurrency: int) -> None:
        clock = asyncio.get_running_loop().time
        self.desk = desk
        self.order: list[str] = []
        self.most_running = 0
        self.concurrency = concurrency
        self._do = do
        self.runner = Runner(
            desk, self.do, lambda: self.concurrency, on_finished=lambda: None, clock=clock, wall_clock=clock
        )

    async def do(self, batch: Batch, item: Item, tries: int) -> Ended | Later:
        """Note it, and do what the test says; without a word of it, take a second."""
        self.order.append(f"{batch.id}/{item.place}")
        self.most_running = max(self.most_running, self.runner.running)
        if self._do is not None:
            return await self._do(batch, item, tries)
        await asyncio.sleep(1)
        return Ended(item.batch, item.place, "done", b"1")

    async def accept(self, name: str, items: int) -> Batch:
        """Accept a batch and take it on."""
        bodies = [b"%d" % place for place in range(items)]
        batch = await self.desk.do(Ledger.put, draft(name), bodies, 10**6, 10**9, last=True)
        assert batch is not None
        self.runner.add(batch)
        return batch

    async def find(self, batch: Batch) -> Batch:
        """Return a batch as it is now."""
        found = await self.desk.do(Ledger.find, batch.id, batch.scope)
        assert found is not None
        return found

    async def ended(self, batch: Batch) -> Batch:
        """Wait until a batch has ended."""
        while True:
            found = await self.find(batch)
            if found.status != "open":
                return found
            await asyncio.sleep(0.01)


@asynccontextmanager
async def works(
    directory: Path, do: Callable[..., Any] | None = None, concurrency: int = 2, close_s: float = 0.0
) -> AsyncIterator[Works]:
    """Run a runner on the queue of this directory."""
    desk = Desk(directory, NoThread())
    await desk.open()
    built = Works(desk, do, concurrency)
    for batch in await desk.do(Ledger.open_batches):
        built.runner.add(batch)
    built.runner.start()
    try:
        yield built
    finally:
        await built.runner.close(close_s)
        await desk.close()


def test_items_are_done_a_few_at_a_time(tmp_path):
    """No more than the concurrency run beside each other, and each once."""

    async def scenario() -> None:
        async with works(tmp_path, concurrency=3) as built:
            batch = await built.accept("b", 100)
            ended = await built.ended(batch)

            assert (ended.status, ended.done) == ("done", 100)
            assert sorted(built.order) == sorted(f"b/{place}" for place in range(100))
            assert built.most_running == 3

    run_virtual(scenario())


def test_a_small_batch_does_not_wait_for_a_large_one(tmp_path):
    """Batches take turns, so the one that came second is done long before the first."""

    async def scenario() -> None:
        async with works(tmp_path, concurrency=1) as built:
            large, small = await built.accept("large", 100), await built.accept("small", 3)
            await built.ended(small)

            assert (await built.find(large)).done <= 4

    run_virtual(scenario())


def test_a_change_of_the_concurrency_takes_effect(tmp_path):
    """The runner asks for it whenever it begins something."""

    async def scenario() -> None:
        async with works(tmp_path, concurrency=1) as built:
            batch = await built.accept("b", 20)
            await asyncio.sleep(2.5)
            assert built.most_running == 1
            built.concurrency = 5
            await built.ended(batch)

            assert built.most_running == 5

    run_virtual(scenario())


def test_a_model_without_room_is_asked_later_and_others_go_on(tmp_path):
    """A batch that must wait does so with growing pauses, none of its items fails, and others do not wait with it."""

    async def scenario() -> None:
        asked: list[float] = []
        now = asyncio.get_running_loop().time

        async def do(batch: Batch, item: Item, tries: int) -> Ended | Later:
            if batch.id == "busy":
                asked.append(now())
                if len(asked) < 6:
                    return Later(None, failed=False)
            assert tries == 0
            await asyncio.sleep(0.1)
            return Ended(item.batch, item.place, "done", b"1")

        async with works(tmp_path, do, concurrency=1) as built:
            busy, other = await built.accept("busy", 2), await built.accept("other", 5)
            await built.ended(other)
            assert (await built.find(busy)).done == 0
            assert (await built.ended(busy)).done == 2

        waits = [later - earlier for earlier, later in itertools.pairwise(asked[:6])]
        assert waits == sorted(waits)
        assert waits[0] < 1.5
        assert waits[-1] >= 8

    run_virtual(scenario())


def test_what_a_model_asks_for_is_waited(tmp_path):
    """A pause is never shorter than the model's own estimate."""

    async def scenario() -> None:
        asked: list[float] = []

        async def do(_: Batch, item: Item, __: int) -> Ended | Later:
            asked.append(asyncio.get_running_loop().time())
            return Later(77.0, failed=False) if len(asked) == 1 else Ended(item.batch, item.place, "done", b"1")

        async with works(tmp_path, do) as built:
            await built.ended(await built.accept("b", 1))

        assert asked[1] - asked[0] >= 77

    run_virtual(scenario())


def test_cancelling_stops_what_runs_and_what_waits(tmp_path):
    """The item in work is cancelled at once, and none is begun any more."""

    async def scenario() -> None:
        cancelled = 0

        async def do(*_: object) -> Ended | Later:
            nonlocal cancelled
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                cancelled += 1
                raise
            raise AssertionError

        async with works(tmp_path, do) as built:
            batch = await built.accept("b", 10)
            await asyncio.sleep(1)
            await built.desk.do(Ledger.stop, batch.number, "cancelled", 5.0)
            built.runner.drop(batch.number)
            await asyncio.sleep(1)

            assert cancelled == 2
            assert built.runner.running == 0
            assert len(built.order) == 2
            assert built.runner.left == 0

    run_virtual(scenario())


@pytest.mark.parametrize(("close_s", "written"), [(0.0, 2), (5.0, 4)])
def test_the_next_life_goes_on_where_this_one_ended(tmp_path, close_s, written):
    """What had no end when the runner was closed is done again; what ran within the deadline is kept."""

    async def scenario() -> None:
        async with works(tmp_path, close_s=close_s) as built:
            batch = await built.accept("b", 10)
            await asyncio.sleep(1.5)
        async with works(tmp_path) as reborn:
            assert (await reborn.find(batch)).done == written
            assert (await reborn.ended(batch)).done == 10
            assert len(reborn.order) == 10 - written

    run_virtual(scenario())


def test_a_disk_that_fails_for_a_while_loses_no_result(tmp_path, monkeypatch, caplog):
    """Results wait until they can be written, and few new ones are made meanwhile."""

    async def scenario() -> None:
        async with works(tmp_path) as built:
            batch = await built.accept("b", 4)
            import sqlite3

            failures = itertools.count()
            write = Ledger.end_items

            def fail_twice(self: Ledger, *args: Any) -> Any:
                if next(failures) < 2:
                    raise sqlite3.OperationalError("disk I/O error")
                return write(self, *args)

            monkeypatch.setattr(Ledger, "end_items", fail_twice)
            assert (await built.ended(batch)).done == 4
            assert len(built.order) == 4

    run_virtual(scenario())
    assert "disk I/O error" in caplog.text


def test_the_estimate_counts_what_comes_before(tmp_path):
    """Once an item was measured, the time left is that of the items before and of its own, by the concurrency."""

    async def scenario() -> None:
        async with works(tmp_path, concurrency=2) as built:
            batch = await built.accept("b", 10)
            assert built.runner.estimate_s(batch.number) is None
            await asyncio.sleep(2.5)
            assert built.runner.estimate_s(batch.number) == pytest.approx(3.0)
            second = await built.accept("c", 2)
            assert built.runner.estimate_s(second.number) == pytest.approx(2.0)
            await built.ended(batch)
            assert built.runner.estimate_s(batch.number) == 0.0

    run_virtual(scenario())


@given(st.integers(0, 40), st.none() | st.floats(0), st.floats(0, 0.99))
def test_pauses_are_bounded(pauses, asked_s, chance):
    """A pause is what was asked for (five minutes at most), or up to a minute, with a quarter of jitter at most."""
    pause = pace.pause_s(pauses, asked_s, chance)

    asked_s = min(300, asked_s or 0)
    assert max(0.5, asked_s) <= pause <= max(60, asked_s) * 1.25


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


class Receiver:
    """Receives callbacks as the test's script says: a status, or an exception; the last one again and again."""

    def __init__(self, *script: int | Exception) -> None:
        self.script = list(script)
        self.got: list[tuple[float, str, bytes, Mapping[str, str]]] = []
        self.asked = asyncio.Event()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], limit_s: float) -> int:
        """Note a callback and answer it."""
        self.got.append((asyncio.get_running_loop().time(), url, body, headers))
        self.asked.set()
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        return step


@asynccontextmanager
async def delivering(directory: Path, receiver: Receiver, secret: bytes | None = SECRET) -> AsyncIterator[Desk]:
    """Run a deliverer on the queue of this directory."""
    desk = Desk(directory, NoThread())
    await desk.open()
    deliverer = Deliverer(desk, receiver.post, lambda: secret, asyncio.get_running_loop().time)
    deliverer.start()
    try:
        yield desk
    finally:
        await deliverer.close()
        await desk.close()


async def finish(desk: Desk, name: str = "b") -> Batch:
    """Put a batch that has ended into the queue."""
    batch = await desk.do(Ledger.put, draft(name, callback_url=URL), [b"0"], 100, 1000, last=True)
    assert batch is not None
    (finished,) = await desk.do(Ledger.end_items, [Ended(batch.number, 0, "done", b"1")], 5.0)
    return finished


async def settled(desk: Desk, batch: Batch) -> tuple[str, int, str | None]:
    """Wait until no more will be tried for a callback."""
    while True:
        found = await desk.do(Ledger.delivery, batch.number)
        if found is not None and found[0] != "pending":
            return found
        await asyncio.sleep(1)


def test_a_callback_is_signed_and_sent_once(tmp_path):
    """Its body says how the batch ended, and its headers who it is from and which one it is."""

    async def scenario() -> None:
        receiver = Receiver(204)
        async with delivering(tmp_path, receiver) as desk:
            batch = await finish(desk)
            assert await settled(desk, batch) == ("delivered", 1, None)
            await asyncio.sleep(100_000)

        ((at, url, body, headers),) = receiver.got
        assert url == URL
        assert body == b'{"batch_id":"b","status":"done","total":1,"done":1,"failed":0,"finished_at":5.0}'
        assert headers["Idempotency-Key"] == headers["Webhook-Id"] == "b"
        signed = hmac.new(SECRET, b"%d." % int(at) + body, hashlib.sha256).hexdigest()
        assert headers["X-Warmgate-Signature"] == f"t={int(at)},v1={signed}"

    run_virtual(scenario())


def test_a_callback_is_tried_again_with_growing_waits(tmp_path):
    """Errors and statuses other than 2xx are troubles; the key stays the same and the last trouble is kept."""

    async def scenario() -> None:
        receiver = Receiver(500, Unreachable("no"), 302, 404, 200)
        async with delivering(tmp_path, receiver) as desk:
            assert await settled(desk, await finish(desk)) == ("delivered", 5, None)

        times = [at for at, *_ in receiver.got]
        waits = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert waits == sorted(waits)
        assert 15 <= waits[0] <= 20
        assert waits[-1] >= 900
        assert {headers["Idempotency-Key"] for *_, headers in receiver.got} == {"b"}
        assert len({body for _, _, body, _ in receiver.got}) == 1

    run_virtual(scenario())


def test_a_callback_is_given_up_after_eight_tries(tmp_path, caplog):
    """Over some hours; and the log says so."""

    async def scenario() -> None:
        receiver = Receiver(500)
        async with delivering(tmp_path, receiver) as desk:
            assert await settled(desk, await finish(desk)) == ("given_up", 8, "the status was 500")
            await asyncio.sleep(100_000)
        assert len(receiver.got) == 8
        assert 2 * 3600 < receiver.got[-1][0] - receiver.got[0][0] < 6 * 3600

    run_virtual(scenario())
    assert "for the last time" in caplog.text
    assert "secret" not in caplog.text


def test_a_slow_receiver_holds_up_nobody_else(tmp_path):
    """Callbacks of several batches are on their way at a time."""

    async def scenario() -> None:
        class Slow(Receiver):
            async def post(self, *args: Any) -> int:
                if not self.got:
                    self.got.append(args)
                    await asyncio.sleep(9)
                return await super().post(*args)

        async with delivering(tmp_path, Slow(200)) as desk:
            slow, quick = await finish(desk, "slow"), await finish(desk, "quick")
            began = asyncio.get_running_loop().time()
            await settled(desk, quick)
            assert asyncio.get_running_loop().time() - began < 70
            await settled(desk, slow)

    run_virtual(scenario())


def test_without_its_secret_no_callback_leaves(tmp_path):
    """When the operator takes the secret away, what is owed is tried again later, and never sent unsigned."""

    async def scenario() -> None:
        receiver = Receiver(200)
        async with delivering(tmp_path, receiver, secret=None) as desk:
            assert (await settled(desk, await finish(desk)))[0] == "given_up"
        assert receiver.got == []

    run_virtual(scenario())


def test_a_life_that_ends_in_a_callback_repeats_it_under_the_same_key(tmp_path):
    """It was begun, and nobody knows whether it arrived: the next life sends it again, when its next try is due."""

    async def scenario() -> None:
        class Hanging(Receiver):
            async def post(self, *args: Any) -> int:
                await super().post(*args)
                await asyncio.Event().wait()
                raise AssertionError

        hanging, receiver = Hanging(200), Receiver(200)
        async with delivering(tmp_path, hanging) as desk:
            batch = await finish(desk)
            await asyncio.wait_for(hanging.asked.wait(), 90)
        async with delivering(tmp_path, receiver) as desk:
            status, tries, _ = await settled(desk, batch)

        assert (status, tries) == ("delivered", 2)
        assert len(hanging.got) == len(receiver.got) == 1
        assert hanging.got[0][3]["Idempotency-Key"] == receiver.got[0][3]["Idempotency-Key"]

    run_virtual(scenario())


@given(st.integers(0, 100), st.floats(0, 0.99))
def test_the_waits_of_callbacks_are_bounded(tries, chance):
    """Longer than a try may take, and an hour and a quarter at most."""
    assert 15 <= callbacks.wait_s(tries, chance) <= 4500
