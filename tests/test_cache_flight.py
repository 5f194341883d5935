"""Single-flight: one piece of work, many readers, and who may end it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.flight import FlightCancelledError, Seat, SingleFlight
from tests.flight_work import KEY, Work, drain, settle


async def test_equal_keys_share_one_work_from_its_first_item():
    """A follower that comes late gets what was produced so far, then follows live; only the first one leads."""
    work, flight = Work(), SingleFlight[int]()
    first = flight.join(KEY, work.run)
    for n in (1, 2):
        work.feed.put_nowait(n)
    assert [await anext(first), await anext(first)] == [1, 2]

    second = flight.join(KEY, work.run)
    reading = asyncio.create_task(drain(second))
    await settle()
    for n in (3, None):
        work.feed.put_nowait(n)

    assert await drain(first) == [3]
    assert await reading == [1, 2, 3]
    assert (first.leader, second.leader, work.starts, work.ends) == (True, False, 1, 1)


async def test_other_keys_and_no_key_share_nothing():
    """Only equal keys join; without a key everybody works alone."""
    flight = SingleFlight[int]()
    works = [Work() for _ in range(4)]
    seats = [flight.join(key, w.run) for key, w in zip((b"a", b"b", None, None), works, strict=True)]
    for n, w in enumerate(works):
        w.feed.put_nowait(n)
        w.feed.put_nowait(None)

    assert [await drain(seat) for seat in seats] == [[0], [1], [2], [3]]
    assert all(seat.leader for seat in seats)


async def test_the_first_caller_may_leave_and_the_work_goes_on():
    """The work belongs to the flight: its leader's leaving changes nothing for a follower."""
    work, flight = Work(), SingleFlight[int]()
    leader, follower = flight.join(KEY, work.run), flight.join(KEY, work.run)
    assert flight.waiters(KEY) == 2

    await leader.leave()
    await leader.leave()
    assert flight.waiters(KEY) == 1
    for n in (1, None):
        work.feed.put_nowait(n)

    assert await drain(follower) == [1]


async def test_the_last_one_to_leave_cancels_the_work():
    """With nobody left the generator is closed, though it was in the middle of waiting."""
    work, flight = Work(), SingleFlight[int]()
    async with flight.join(KEY, work.run) as seat:
        work.feed.put_nowait(1)
        assert await anext(seat) == 1
    await settle()

    assert (work.ends, flight.waiters(KEY)) == (1, 0)


async def test_a_cancelled_reader_leaves_its_seat():
    """Cancelling the task that reads, as a client does who hangs up, cancels the work down to its end."""
    work, flight = Work(), SingleFlight[int]()

    async def read() -> None:
        async with flight.join(KEY, work.run) as seat:
            await drain(seat)

    reader = asyncio.create_task(read())
    await settle()
    reader.cancel()
    await asyncio.wait([reader])
    await settle()

    assert (work.starts, work.ends) == (1, 1)


async def test_a_newcomer_after_the_cancellation_starts_afresh():
    """While cancelled work still cleans up, its key is free; its late end does not free the newcomer's key."""
    old, new, flight = Work(), Work(), SingleFlight[int]()
    seat = flight.join(KEY, old.run)
    await settle()
    old.may_clean_up.clear()
    await seat.leave()
    await settle()
    assert old.ends == 0

    newcomer = flight.join(KEY, new.run)
    old.may_clean_up.set()
    await settle()
    follower = flight.join(KEY, new.run)
    for n in (7, None):
        new.feed.put_nowait(n)

    assert (newcomer.leader, follower.leader, old.ends) == (True, False, 1)
    assert await drain(newcomer) == await drain(follower) == [7]


async def test_a_seat_left_before_the_work_began_never_starts_it():
    """Joining and leaving within one turn of the loop costs nothing, and hangs nobody."""
    work, flight = Work(), SingleFlight[int]()

    await flight.join(KEY, work.run).leave()
    await settle()

    assert work.starts == 0


async def test_an_error_of_the_work_reaches_every_seat_after_the_items():
    """Whoever reads gets the same items, then the same error; the next one tries anew."""
    work, flight = Work(), SingleFlight[int]()
    seats = [flight.join(KEY, work.run) for _ in range(3)]
    for item in (1, ValueError("broken")):
        work.feed.put_nowait(item)

    for seat in seats:
        assert await anext(seat) == 1
        with pytest.raises(ValueError, match="broken"):
            await anext(seat)
    assert flight.join(KEY, work.run).leader


async def test_the_hook_runs_before_the_key_is_free():
    """on_complete has all items, once, while the key is still taken: nobody slips between the work and the cache."""
    work, flight = Work(), SingleFlight[int]()
    seen: list[tuple[list[int], int]] = []
    seat = flight.join(KEY, work.run, lambda items: seen.append((list(items), flight.waiters(KEY))))
    flight.join(KEY, work.run, lambda _: seen.append(([], 0)))
    for n in (1, 2, None):
        work.feed.put_nowait(n)

    assert await drain(seat) == [1, 2]
    assert seen == [([1, 2], 2)]


async def test_the_hook_does_not_run_for_work_that_failed_or_was_cancelled():
    """Only whole results are completed, also where the work swallows its cancellation."""
    flight, seen = SingleFlight[int](), []

    async def swallow() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    async def fail() -> AsyncIterator[int]:
        yield 1
        raise ValueError

    for work in (swallow, fail):
        seat = flight.join(KEY, work, seen.append)
        assert await anext(seat) == 1
        await settle()
        await seat.leave()
        await settle()

    assert seen == []


@pytest.mark.parametrize("key", [KEY, None])
async def test_a_failing_hook_fails_nobody(key, caplog):
    """The answer is whole; that it could not be stored is logged."""
    flight = SingleFlight[int]()

    async def work() -> AsyncIterator[int]:
        yield 1

    def hook(items: object) -> None:
        raise RuntimeError("full")

    assert await drain(flight.join(key, work, hook)) == [1]
    assert "hook" in caplog.text


async def test_work_alone_runs_in_the_reader_and_is_closed_when_it_leaves():
    """Without a key nothing runs ahead of the reader, and leaving closes the generator before it returns."""
    produced, ended = [], []

    async def work() -> AsyncIterator[int]:
        try:
            for n in range(5):
                produced.append(n)
                yield n
        finally:
            ended.append(True)

    async with SingleFlight[int]().join(None, work) as seat:
        async for item in seat:
            if item == 1:
                break
        assert (produced, ended) == ([0, 1], [])

    assert (produced, ended) == ([0, 1], [True])


async def test_work_alone_completes_like_a_flight():
    """The hook of work without a key gets all items, once."""
    seen = []

    async def work() -> AsyncIterator[int]:
        yield 1
        yield 2

    async with SingleFlight[int]().join(None, work, lambda items: seen.append(list(items))) as seat:
        assert await drain(seat) == [1, 2]

    assert seen == [[1, 2]]


async def test_closing_cancels_all_and_tells_the_seats():
    """After close no work is left, and who still waits gets an error instead of waiting for ever."""
    works, flight = [Work(), Work()], SingleFlight[int]()
    seats = [flight.join(bytes([n]), work.run) for n, work in enumerate(works)]
    await settle()
    unstarted = flight.join(b"late", Work().run)

    await flight.close()

    assert [work.ends for work in works] == [1, 1]
    for seat in (*seats, unstarted):
        with pytest.raises(FlightCancelledError):
            await drain(seat)


STEPS = st.lists(
    st.tuples(st.sampled_from(["join", "leave", "read", "produce", "settle"]), st.integers(0, 5)), max_size=50
)


@given(STEPS, st.sampled_from(["end", "error"]))
async def test_whoever_stays_sees_the_whole_sequence(steps, ending):  # noqa: C901, PLR0912 - one branch a step
    """Under any order of joins, leaves and reads: each seat's items are a prefix, whole for those who stay to the end.

    The work is cancelled if and only if everybody has left.
    """
    flight = SingleFlight[int]()
    works: list[tuple[Work, list[int]]] = []
    seats: list[tuple[Seat[int], list[int], int]] = []
    current: int | None = None

    def start() -> AsyncIterator[int]:
        return works[-1][0].run()

    for what, number in steps:
        if what == "join":
            if current is None:
                works.append((Work(), []))
                current = len(works) - 1
            seat = flight.join(KEY, start)
            assert seat.leader == (not any(of == current for _, _, of in seats))
            seats.append((seat, [], current))
            await asyncio.sleep(0)
        elif what == "leave" and seats:
            seat, _, of = seats.pop(number % len(seats))
            await seat.leave()
            if not any(o == of for _, _, o in seats):
                current = None
        elif what == "produce" and current is not None:
            work, made = works[current]
            made.append(number)
            work.feed.put_nowait(number)
        elif what == "read" and seats:
            seat, got, of = seats[number % len(seats)]
            if len(got) < len(works[of][1]):
                got.append(await anext(seat))
        else:
            await settle()

    if current is not None:
        works[current][0].feed.put_nowait(None if ending == "end" else ValueError("broken"))
    for seat, got, of in seats:
        try:
            async for item in seat:
                got.append(item)
        except ValueError:
            assert ending == "error"
        assert got == works[of][1]
    await settle()

    assert all(work.starts == work.ends for work, _ in works)
    assert flight.waiters(KEY) == 0
    assert not flight._tasks
