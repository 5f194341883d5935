"""Single-flight beyond its bound: work that is too long to remember goes on, and waits for who reads slowly."""

import asyncio
import weakref
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.flight import FlightCancelledError, FlightLaggedError, Seat, SingleFlight
from tests.fakes import run_virtual
from tests.flight_work import KEY, Work, counting, drain, settle


@pytest.mark.parametrize("key", [KEY, None])
@pytest.mark.parametrize(("length", "remembered"), [(32, True), (33, False)])
async def test_work_beyond_the_bound_goes_on_and_is_not_remembered(key, length, remembered):
    """Who reads it gets all of it; the hook has all that is within the bound, and is not called for more."""
    flight, seen = SingleFlight[int](bound=32), []

    async with flight.join(key, lambda: counting(length, []), lambda items: seen.append(list(items))) as seat:
        assert await drain(seat) == list(range(length))

    assert seen == ([list(range(32))] if remembered else [])


@pytest.mark.parametrize("key", [KEY, None])
async def test_the_bound_is_of_what_items_weigh(key):
    """Items count by the weights that they are given; one that is heavier than all that is kept still gets through."""
    flight, seen = SingleFlight[int](bound=32, weigh=lambda item: 1 + item), []
    for length in (7, 8, 40):  # 1 + 2 + … + 7 = 28
        async with flight.join(
            key, lambda end=length: counting(end, []), lambda items: seen.append(len(items))
        ) as seat:
            assert await drain(seat) == list(range(length))

    assert seen == [7]


async def test_nobody_joins_work_beyond_the_bound():
    """A newcomer starts work of its own, and the end of the old work does not free its key."""
    old, new, flight = Work(), Work(), SingleFlight[int](bound=3)
    first = flight.join(KEY, old.run)
    for n in range(4):
        old.feed.put_nowait(n)
    await settle()

    newcomer = flight.join(KEY, new.run)
    old.feed.put_nowait(None)
    assert await drain(first) == [0, 1, 2, 3]
    assert (newcomer.leader, flight.waiters(KEY), flight.seats) == (True, 1, 1)
    new.feed.put_nowait(None)
    assert await drain(newcomer) == []


async def test_work_beyond_the_bound_waits_for_a_slow_reader():
    """It runs ahead of its only reader by the bound and a stretch at most, however long that one takes."""
    made: list[int] = []
    async with SingleFlight[int](bound=32, patience_s=0).join(KEY, lambda: counting(99, made)) as seat:
        await settle()
        assert len(made) == 35  # the bound, a stretch of two, and the one that has no room

        assert [await anext(seat) for _ in range(33)] == list(range(33))
        await settle()
        assert len(made) == 37
        assert await drain(seat) == list(range(33, 99))


async def test_what_all_have_passed_is_let_go():
    """Beyond the bound only a few stretches are alive: none that nobody reads any more."""

    class Item:
        pass

    alive: list[weakref.ref[Item]] = []

    async def work() -> AsyncIterator[Item]:
        for _ in range(200):
            item = Item()
            alive.append(weakref.ref(item))
            yield item

    flight = SingleFlight[Item](bound=32)
    async with flight.join(KEY, work) as seat, flight.join(KEY, work) as other:
        for _ in range(150):
            await anext(seat)
            await anext(other)
        assert sum(item() is not None for item in alive[:140]) == 0
        assert len(alive) < 160


def test_a_reader_that_holds_up_another_loses_its_place():
    """After the patience the slow one gets an error in place of what it had not read; the other goes on."""

    async def main() -> None:
        made: list[int] = []
        loop, flight = asyncio.get_running_loop(), SingleFlight[int](bound=32, patience_s=7)
        slow, quick = (flight.join(KEY, lambda: counting(99, made)) for _ in range(2))
        assert await anext(slow) == 0
        since = loop.time()

        assert await drain(quick) == list(range(99))

        assert loop.time() - since == 7
        with pytest.raises(FlightLaggedError, match="7 s"):
            await anext(slow)
        await slow.leave()
        await quick.leave()
        await settle()
        assert not flight._tasks

    run_virtual(main())


def test_a_reader_that_keeps_up_in_time_keeps_its_place():
    """A slow one that comes a stretch on within the patience gets everything; nobody who leaves is waited for."""

    async def main() -> None:
        flight = SingleFlight[int](bound=32, patience_s=7)
        slow, quick, gone = (flight.join(KEY, lambda: counting(99, [])) for _ in range(3))

        async def read_slowly() -> list[int]:
            got = [await anext(slow) for _ in range(32)]
            async for item in slow:
                got.append(item)
                await asyncio.sleep(3)
            return got

        leaving = asyncio.get_running_loop().call_later(1, lambda: tasks.append(asyncio.create_task(gone.leave())))
        tasks: list[asyncio.Task[None]] = []
        assert [each == list(range(99)) for each in await asyncio.gather(drain(quick), read_slowly())] == [True, True]
        assert leaving.when() < asyncio.get_running_loop().time()
        await asyncio.gather(*tasks)

    run_virtual(main())


async def test_work_that_waits_for_a_slow_reader_can_be_cancelled():
    """Whether its last reader leaves or all is closed: the work cleans up, and who still reads is told."""
    for close in (False, True):
        work, flight = Work(), SingleFlight[int](bound=2)
        seat = flight.join(KEY, work.run)
        for n in range(9):
            work.feed.put_nowait(n)
        await settle()
        assert work.feed.qsize() == 5
        if close:
            await flight.close()
            with pytest.raises(FlightCancelledError):
                await drain(seat)
        else:
            await seat.leave()
            await settle()
        assert (work.ends, flight._tasks) == (1, set())


@given(
    st.lists(st.tuples(st.sampled_from(["leave", "read", "read", "settle"]), st.integers(0, 3)), max_size=120),
    st.integers(1, 40),
    st.integers(0, 60),
)
async def test_beyond_the_bound_too_whoever_stays_sees_all(steps, bound, length):
    """Under any order of reads and leaves a seat gets all items, and the work is never further ahead than it may."""
    made: list[int] = []
    flight = SingleFlight[int](bound=bound)
    seats: list[tuple[Seat[int], list[int]]] = [
        (flight.join(KEY, lambda: counting(length, made)), []) for _ in range(4)
    ]
    for what, number in steps:
        if what == "leave" and len(seats) > 1:
            seat, got = seats.pop(number % len(seats))
            await seat.leave()
        elif what == "read" and seats:
            seat, got = seats[number % len(seats)]
            # So far the work goes whatever the others do: a stretch past the one that the slowest has not left.
            slowest = min(len(got) for _, got in seats)
            if len(got) < min(length, max(bound, slowest) + max(1, bound // 16)):
                got.append(await anext(seat))
        else:
            await settle()
        slowest = min(len(got) for _, got in seats)
        assert len(made) <= slowest + bound + 2 * max(1, bound // 16) + 1

    for (_, got), rest in zip(seats, await asyncio.gather(*(drain(seat) for seat, _ in seats)), strict=True):
        assert [*got, *rest] == list(range(length))
    await settle()
    assert not flight._tasks
