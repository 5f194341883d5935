"""Leaving and deadlines in the pipeline, in virtual time: each client's share ends alone, and its accounts with it."""

import asyncio
from contextlib import aclosing

import pytest

from backends.contract import DeadlineExceeded, Event, Finish, Text, Usage
from gateway.query import Outcome
from gateway.request import Caller, Limits
from gateway.routes import Route
from tests.fakes import FakeEngine
from tests.test_gateway_pipeline import ANYONE, PLAIN, House, ask, house, virtual

ONE_AT_A_TIME = Caller("key:one", limits=Limits(concurrency=1))
SLOW = (5.0, Text("o"), 5.0, Text("k"), Usage(1, 2), Finish("stop"))


async def get(built: House, timeout_s: float | None = None, caller: Caller = ANYONE) -> str:
    """Ask and return the whole answer's text."""
    outcome = await built.pipeline.answer(ask(), caller, PLAIN, timeout_s)
    answer = (await built.pipeline.collect(outcome)).answer
    assert answer is not None
    return answer.text()


async def read(built: House, outcome: Outcome, pieces: int) -> list[Event]:
    """Read so many events of an outcome, and leave."""
    read: list[Event] = []
    async with aclosing(built.pipeline.events(outcome)) as events:
        while len(read) < pieces:
            read.append(await anext(events))
    return read


@pytest.mark.parametrize("hasty_s", [3.0, 7.0], ids=["before the first token", "mid-stream"])
@pytest.mark.parametrize("hasty", ["leader", "follower"])
def test_each_has_its_own_deadline(hasty: str, hasty_s: float) -> None:
    """Of two who share an answer, one's deadline ends neither the work nor the other's wait."""

    @virtual
    async def check() -> None:
        async with house({"a": FakeEngine(SLOW)}) as built:
            first_s, second_s = (hasty_s, None) if hasty == "leader" else (None, hasty_s)
            began = asyncio.get_running_loop().time()
            async with asyncio.TaskGroup() as group:
                leader = group.create_task(_ended(built, first_s))
                await asyncio.sleep(0)
                follower = group.create_task(_ended(built, second_s))
            ends = {"leader": leader.result(), "follower": follower.result()}
            assert len(built.engines["a"].backends[0].jobs) == 1
            error, at = ends.pop(hasty)
            assert (type(error), at - began) == (DeadlineExceeded, hasty_s)
            ((text, at),) = ends.values()
            assert (text, at - began) == ("ok", 10.0)
            assert built.flights.seats == 0

    check()


async def _ended(built: House, timeout_s: float | None) -> tuple[str | DeadlineExceeded, float]:
    """Return how asking ended, and when."""
    end: str | DeadlineExceeded
    try:
        end = await get(built, timeout_s)
    except DeadlineExceeded as error:
        end = error
    return end, asyncio.get_running_loop().time()


@virtual
async def test_last_deadline_ends_the_work():
    """When nobody has time left the work is cancelled, and what was made of it is not kept."""
    engine = FakeEngine(SLOW)
    async with house({"a": engine}) as built:
        for _ in range(2):
            with pytest.raises(DeadlineExceeded, match=r"not complete within 7\.00 s"):
                await get(built, 7.0)
            await built.pipeline.accounts.until_idle()
            await asyncio.sleep(0)
            assert engine.backends[0].running == 0
        assert built.flights.seats == 0
        assert len(built.exact.memory) == 0


@virtual
async def test_deadline_is_tried_on_no_other_model():
    """Where the time is up another model cannot help, and none is asked."""
    route = Route("r", ("a",), fallback=("b",))
    async with house({"a": FakeEngine((asyncio.Event(),)), "b": FakeEngine()}, {"r": route}) as built:
        with pytest.raises(DeadlineExceeded):
            await built.get(ask(model="r"))
        assert not built.engines["b"].backends


@virtual
async def test_what_has_been_made_can_be_read_after_the_deadline():
    """A client that reads slowly gets what was ready in time, whole where it was whole."""
    async with house({"a": FakeEngine((Text("o"), Text("k"), Usage(1, 2), Finish("stop")))}) as built:
        outcome = await built.pipeline.answer(ask(), ANYONE, PLAIN, 5.0)
        await asyncio.sleep(10.0)
        assert await read(built, outcome, 4) == [Text("o"), Text("k"), Usage(1, 2), Finish("stop")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("stage_s", [0.0, 1.0, 4.0, 9.0], ids=["at once", "start", "silent", "mid-stream"])
def test_who_leaves_settles_its_accounts(stage_s: float, shared: bool, stream: bool) -> None:
    """Wherever a client is cancelled, its key may ask again at once, and nothing of its work is left."""

    @virtual
    async def check() -> None:
        engine = FakeEngine(SLOW, start_s=3.0)
        async with house({"a": engine}) as built:
            temperature = {} if shared else {"temperature": 1.5}
            request = ask("hi", **temperature)
            object.__setattr__(request.job, "stream", stream)

            async def whole() -> None:
                await built.pipeline.collect(await built.pipeline.answer(request, ONE_AT_A_TIME, PLAIN))

            for _ in range(2):
                client = asyncio.create_task(whole())
                await asyncio.sleep(stage_s)
                client.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await client
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                pool = built.pools["a"].snapshot(0.0)
                assert (pool.in_flight, pool.queued, built.flights.seats) == (0, 0, 0)
                assert all(backend.running == 0 for backend in engine.backends)
            assert len(built.exact.memory) == 0
            await whole()

    check()
