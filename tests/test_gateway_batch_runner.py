"""The work on batches in virtual time: turns, pauses, tries, cancelling, the end of a life."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import pace
from gateway.batch.contract import Batch, Ended, Item
from gateway.batch.desk import Desk
from gateway.batch.ledger import Ledger
from gateway.batch.runner import Runner
from gateway.batch.work import Later
from tests.batch_world import NoThread, draft
from tests.fakes import run_virtual


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
