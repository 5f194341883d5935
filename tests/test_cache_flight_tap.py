"""Items that reach the readers of a flight at once, past the tasks that wait for them."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.flight import Seat, SingleFlight
from tests.fakes import run_virtual
from tests.flight_work import KEY, Work, settle


async def read(seat: Seat[int], into: list[int]) -> None:
    """Read a seat to its end."""
    async with seat:
        async for item in seat:
            into += [item]  # one by one: what a taker takes meanwhile has its place among them


@pytest.mark.parametrize("key", [KEY, None])
async def test_an_item_given_by_the_tap_reaches_a_waiting_reader_at_once(key: bytes | None) -> None:
    """The taker is called before the tap returns, and its reader is not woken for it."""
    work, flight = Work(), SingleFlight[int]()
    tap, taken, woken, kept = flight.tap(), list[int](), list[int](), list[int]()
    seat = flight.join(key, work.run, kept.extend, tap)
    seat.give_to(lambda item: taken.append(item) or True)  # type: ignore[func-returns-value]
    reading = asyncio.create_task(read(seat, woken))
    await settle()

    assert tap(1)
    assert taken == [1]
    work.feed.put_nowait(None)
    await reading
    await settle()

    assert (woken, kept) == ([], [1])


@pytest.mark.parametrize("key", [KEY, None])
async def test_an_item_that_the_taker_refuses_is_read_as_ever(key: bytes | None) -> None:
    """What a taker does not want is kept for the reader, who is woken for it; alone, the work yields it itself."""
    work, flight = Work(), SingleFlight[int]()
    tap, woken = flight.tap(), list[int]()
    seat = flight.join(key, work.run, None, tap)
    seat.give_to(lambda _: False)
    reading = asyncio.create_task(read(seat, woken))
    await settle()

    assert tap(1) == (key is not None)
    if key is None:
        work.feed.put_nowait(1)
    work.feed.put_nowait(None)
    await reading

    assert woken == [1]


async def test_a_tap_of_work_that_was_not_begun_takes_nothing() -> None:
    """Who joins a flight in the air has no work of their own, so their tap leads nowhere."""
    work, flight = Work(), SingleFlight[int]()
    tap = flight.tap()
    async with flight.join(KEY, work.run), flight.join(KEY, work.run, None, tap):
        assert not tap(1)


async def test_a_reader_that_is_being_cancelled_takes_nothing_more() -> None:
    """Between the cancellation and the seat's end an item goes to the others only."""
    work, flight = Work(), SingleFlight[int]()
    tap, taken, other = flight.tap(), list[int](), list[int]()
    seat, second = flight.join(KEY, work.run, None, tap), flight.join(KEY, work.run)
    seat.give_to(lambda item: taken.append(item) or True)  # type: ignore[func-returns-value]
    reading, staying = asyncio.create_task(read(seat, [])), asyncio.create_task(read(second, other))
    await settle()

    reading.cancel()
    assert tap(1)
    work.feed.put_nowait(None)
    await staying

    assert (taken, other) == ([], [1])


async def test_the_tap_stops_at_the_bound() -> None:
    """What would go past it is not taken, so that the work waits for the slow as ever."""
    work, flight = Work(), SingleFlight[int](2)
    tap, woken = flight.tap(), list[int]()
    reading = asyncio.create_task(read(flight.join(KEY, work.run, None, tap), woken))
    await settle()

    assert [tap(n) for n in (1, 2, 3)] == [True, True, False]
    for n in (3, None):
        work.feed.put_nowait(n)
    await reading

    assert woken == [1, 2, 3]


steps = st.lists(st.tuples(st.sampled_from(["tap", "yield", "join", "turn"]), st.booleans()), max_size=30)


@given(steps, st.integers(1, 6))
def test_every_reader_gets_every_item_once_and_in_order(script: list[tuple[str, bool]], bound: int) -> None:
    """However items come, and whatever takers refuse, each seat that is read gets all there was from its join on."""

    async def run() -> None:
        work, flight = Work(), SingleFlight[int](bound)
        tap = flight.tap()
        tasks, got, made = list[asyncio.Task[None]](), list[list[int]](), 0

        def join(*, takes: bool) -> None:
            seat, into = flight.join(KEY, work.run, None, tap if not tasks else None), list[int]()
            got.append(into)
            seat.give_to(lambda item: takes and (into.append(item) or True))  # type: ignore[func-returns-value]
            tasks.append(asyncio.create_task(read(seat, into)))

        join(takes=True)
        await settle()
        for step, flag in script:
            if step == "join" and flight.waiters(KEY):
                join(takes=flag)
            elif step in ("tap", "yield"):
                # The tap is for work whose flight waits for it: all that was fed has been read.
                await settle()
                if step == "yield" or not tap(made):
                    work.feed.put_nowait(made)
                made += 1
            if flag:
                await settle()
        work.feed.put_nowait(None)
        await asyncio.wait_for(asyncio.gather(*tasks), 90)

        assert got == [list(range(made))] * len(got)

    run_virtual(run())
