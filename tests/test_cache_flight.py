"""Single-flight: one piece of work, many readers, and who may end it."""

import asyncio
import weakref
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.flight import FlightCancelledError, FlightLaggedError, Seat, SingleFlight
from tests.fakes import run_virtual

KEY = b"key"


class Work:
    """Work that yields what the test feeds it; counts its starts, and remembers how it ended."""

    def __init__(self) -> None:
        self.feed: asyncio.Queue[int | Exception | None] = asyncio.Queue()
        self.starts = 0
        self.ends = 0
        self.may_clean_up = asyncio.Event()
        self.may_clean_up.set()

    async def run(self) -> AsyncIterator[int]:
        """Yield what is fed; an error is raised, None ends."""
        self.starts += 1
        try:
            while (item := await self.feed.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            await self.may_clean_up.wait()
            self.ends += 1


async def drain(seat: Seat[int]) -> list[int]:
    """Return what the seat still has to give."""
    return [item async for item in seat]


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


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


def counting(end: int, made: list[int]) -> AsyncIterator[int]:
    """Yield the numbers up to the end; `made` has those that were produced."""

    async def count() -> AsyncIterator[int]:
        for n in range(end):
            made.append(n)
            yield n

    return count()


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
