"""What those who share a flight have to do with each other: nothing, as long as one of them stays."""

import asyncio
import gc

import pytest

from backends.contract import Job, Task
from backends.telling import Telling
from backends.upstream_answers import StreamDecoder
from cache.flight import SingleFlight
from tests.flight_work import KEY, Work, counting, drain, settle


async def test_who_reads_nothing_holds_up_nobody():
    """The work runs to its end at the pace of those who read, and the slow one finds all of it afterwards."""
    made: list[int] = []
    flight = SingleFlight[int]()
    slow, quick = flight.join(KEY, lambda: counting(50, made)), flight.join(KEY, lambda: counting(50, made))
    assert await anext(slow) == 0

    assert await drain(quick) == [*range(50)]
    assert flight.waiters(KEY) == 0  # it has landed, and the key is free
    assert await drain(slow) == [*range(1, 50)]


async def test_an_answer_is_remembered_though_its_leader_has_left():
    """What the leader wanted done with the whole is done for whoever is left."""
    work, flight, kept = Work(), SingleFlight[int](), []
    leader = flight.join(KEY, work.run, kept.extend)
    follower = flight.join(KEY, work.run, lambda _: kept.append("not by a follower"))
    work.feed.put_nowait(1)
    assert await anext(leader) == 1
    await leader.leave()
    for item in (2, None):
        work.feed.put_nowait(item)

    assert await drain(follower) == [1, 2]
    assert kept == [1, 2]


@pytest.mark.parametrize("gone", [0, 1, 2])
async def test_each_is_cancelled_alone(gone):
    """A client that hangs up, the leader too, ends its own reading and that of no other."""
    work, flight = Work(), SingleFlight[int]()
    seats = [flight.join(KEY, work.run) for _ in range(3)]

    async def read(place: int) -> list[int]:
        async with seats[place] as seat:
            return await drain(seat)

    readers = [asyncio.create_task(read(place)) for place in range(3)]
    work.feed.put_nowait(1)
    await settle()
    readers[gone].cancel()
    await settle()
    assert (flight.waiters(KEY), work.ends) == (2, 0)
    for item in (2, None):
        work.feed.put_nowait(item)

    ended = await asyncio.gather(*readers, return_exceptions=True)
    assert [place for place, told in enumerate(ended) if told == [1, 2]] == [
        place for place in range(3) if place != gone
    ]
    assert isinstance(ended[gone], asyncio.CancelledError)


async def test_who_comes_after_the_leader_left_begins_at_the_beginning():
    """The flight is not the leader's: a newcomer joins what others keep in the air."""
    work, flight = Work(), SingleFlight[int]()
    leader, follower = flight.join(KEY, work.run), flight.join(KEY, work.run)
    work.feed.put_nowait(1)
    assert await anext(leader) == 1
    await leader.leave()
    newcomer = flight.join(KEY, work.run)
    for item in (2, None):
        work.feed.put_nowait(item)

    assert await drain(newcomer) == await drain(follower) == [1, 2]
    assert (newcomer.leader, work.starts) == (False, 1)


def test_the_collector_lets_go_of_what_a_stream_is_kept_as():
    """Pieces of passed-on streams are kept by the hundred thousand, and each visit to one delays everybody's tokens."""
    telling = Telling(StreamDecoder(Job(Task.CHAT)), "openai /chat/completions stream", "text/event-stream")
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"%d"}}]}\n\n'
    kept = [made for number in range(9) for made in telling.told(chunk % number)]
    pieces = [made for made in kept if isinstance(made, tuple)]
    gc.collect()

    assert [text for _, text in pieces] == [str(number) for number in range(1, 9)]
    assert not any(map(gc.is_tracked, pieces))
