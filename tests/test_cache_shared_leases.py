"""Leases: of several gateways one makes an answer, and the others get it, whatever becomes of the one."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest

from cache.contract import Entry
from cache.shared import SharedTier
from cache.shared.leases import LEASE_S
from tests.shared_tier import HASTY_S, WITHIN_S, make_entry, name_of, opened, opens, until

WORK = b"work" * 8
ENTRY = make_entry(1)
LEASE = name_of(WORK, "lease")


def anything(entry: Entry) -> bool:
    """Every entry will do."""
    return entry is not None


async def ask(tier: SharedTier, fits: Callable[[Entry], bool] = anything, within_s: float = WITHIN_S) -> Entry | None:
    """Ask whether another gateway makes the one answer."""
    return await tier.ask(WORK, [bytes(32), ENTRY.key], fits, within_s)


async def work(go_on: asyncio.Event, *, fails: bool = False) -> AsyncIterator[int]:
    """Work that ends when the test lets it."""
    yield 1
    await go_on.wait()
    if fails:
        raise RuntimeError("the model failed")
    yield 2


async def run(tier: SharedTier, go_on: asyncio.Event, *, fails: bool = False, stores: bool = True) -> list[int]:
    """Do the work under the lease, and keep what it made as a flight does: in the same turn as its end."""
    async with aclosing(tier.lead(WORK, lambda: work(go_on, fails=fails))()) as source:
        items = [item async for item in source]
    if stores:
        tier.keep(ENTRY)
    return items


async def test_one_leads_and_the_others_get_its_answer(redis_server):
    """Who asks first is to make it; who asks meanwhile waits, and gets the very entry."""
    go_on = asyncio.Event()
    async with opened(redis_server) as one, opened(redis_server) as other, opened(redis_server) as third:
        assert await ask(one) is None
        leading = asyncio.create_task(run(one, go_on))
        following = [asyncio.create_task(ask(tier)) for tier in (other, third, other)]
        await until(lambda: redis_server.command("EXISTS", LEASE) == b":1\r\n", "the lease is there")
        await asyncio.sleep(0)
        assert not any(task.done() for task in following)
        go_on.set()
        assert await leading == [1, 2]
        assert await asyncio.gather(*following) == [ENTRY] * 3
        await until(lambda: redis_server.command("EXISTS", LEASE) == b":0\r\n", "the lease is released")
        stats = [tier.stats() for tier in (one, other, third)]
        assert [each["led"] for each in stats] == [1, 0, 0]
        assert [each["followed"] for each in stats] == [0, 1, 1]


async def test_what_is_there_already_is_returned_at_once_and_the_lease_given_back(redis_server):
    """An answer that came between the look-up and the question is used; nobody waits for a lease without work."""
    async with opened(redis_server) as one, opened(redis_server) as other:
        one.keep(ENTRY)
        await one.flush()
        assert await ask(other) == ENTRY
        await until(lambda: redis_server.command("EXISTS", LEASE) == b":0\r\n", "the lease is given back")


async def test_what_does_not_fit_is_waited_past(redis_server):
    """An old answer that the request does not take is no reason to end the wait for the new one."""
    go_on = asyncio.Event()
    old = make_entry(1, b"old")
    async with opened(redis_server) as one, opened(redis_server) as other:
        one.keep(old)
        await one.flush()
        assert await ask(one, lambda entry: entry.value != b"old") is None
        leading = asyncio.create_task(run(one, go_on))
        following = asyncio.create_task(ask(other, lambda entry: entry.value != b"old"))
        go_on.set()
        await leading
        assert await following == ENTRY


@pytest.mark.parametrize("fails", [True, False])
async def test_after_an_answer_that_cannot_be_kept_nobody_waits_in_turn(redis_server, fails):
    """The work failed, or its answer must not be stored: all who waited make it themselves, at once."""
    go_on = asyncio.Event()
    async with opened(redis_server) as one, opened(redis_server) as other, opened(redis_server) as third:
        assert await ask(one) is None
        leading = asyncio.create_task(run(one, go_on, fails=fails, stores=False))
        following = [asyncio.create_task(ask(tier)) for tier in (other, third)]
        await until(lambda: other.leases.asking == third.leases.asking == 1, "both wait")
        go_on.set()
        await asyncio.gather(leading, return_exceptions=True)
        assert await asyncio.gather(*following) == [None, None]
        # Whoever got the lease in the moment after may lead; but nobody was made to wait for another's turn.
        assert one.stats()["led"] + other.stats()["led"] + third.stats()["led"] <= 2


async def test_a_leader_that_dies_is_succeeded_by_one_of_those_who_wait(redis_server):
    """A lease that nobody renews ends by itself: one takes it over, the others go on waiting for that one."""
    go_on = asyncio.Event()
    redis_server.command("SET", LEASE, "of one that was killed", "PX", 300)
    async with opened(redis_server) as one, opened(redis_server) as other:
        asked = {asyncio.create_task(ask(tier)): tier for tier in (one, other)}
        done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        (successor,), (follower,) = done, waiting
        assert successor.result() is None
        go_on.set()
        await run(asked[successor], go_on)
        assert await follower == ENTRY


async def test_a_lease_is_prolonged_for_as_long_as_the_work_takes(redis_server):
    """Work that outlasts a lease several times is still waited for."""
    go_on = asyncio.Event()
    async with opened(redis_server) as one, opened(redis_server) as other:
        assert await ask(one) is None
        leading = asyncio.create_task(run(one, go_on))
        # What is left of the lease falls, and rises again: that is a renewal, and there are some of them.
        left, renewals = LEASE_S * 1000, 0
        end = time.monotonic() + WITHIN_S
        while renewals < 3:
            assert time.monotonic() < end
            now = int(redis_server.command("PTTL", LEASE).strip(b":\r\n"))
            assert now > 0
            renewals += now > left
            left = now
            await asyncio.sleep(0.02)
        following = asyncio.create_task(ask(other))
        go_on.set()
        await leading
        assert await following == ENTRY


async def test_whoever_waits_long_enough_makes_it_itself(redis_server):
    """The leader goes on and on: the wait ends, nothing fails, and nobody's lease is touched."""
    async with opened(redis_server) as one, opened(redis_server) as other:
        assert await ask(one) is None
        one.lead(WORK, lambda: work(asyncio.Event()))
        assert await ask(other, within_s=0.05) is None
        assert other.stats()["gave_up"] == 1
        assert other.lead(WORK, made := lambda: work(asyncio.Event())) is made
        assert redis_server.command("EXISTS", LEASE) == b":1\r\n"


async def test_a_server_that_goes_while_somebody_waits_ends_the_wait(redis_server):
    """Killed or paused: whoever waits makes the answer itself, without an error."""
    for harm in ("pause", "kill"):
        async with opened(redis_server, deadline_s=HASTY_S) as one, opened(redis_server, deadline_s=HASTY_S) as other:
            assert await ask(one) is None
            waits = asyncio.create_task(ask(other))
            await until(lambda other=other: other.leases.asking == 1, "it waits")
            getattr(redis_server, harm)()
            assert await waits is None
            await opens(one)
            if harm == "pause":
                redis_server.resume()
                redis_server.command("DEL", LEASE)
                await until(lambda one=one: one.stats()["up"], "it is asked again")


async def test_a_lease_that_nobody_works_under_is_given_back(redis_server):
    """Whoever asked has left in the moment of getting it: the others wait for a second, not for an answer."""
    async with opened(redis_server) as one:
        assert await ask(one) is None
        await until(lambda: redis_server.command("EXISTS", LEASE) == b":0\r\n", "it is given back")


async def test_a_question_that_is_cancelled_leaves_no_lease(redis_server):
    """In whatever moment its client leaves."""
    async with opened(redis_server) as one:
        for turns in range(12):
            asks = asyncio.create_task(ask(one))
            for _ in range(turns):
                await asyncio.sleep(0)
            asks.cancel()
            await asyncio.gather(asks, return_exceptions=True)
        await until(lambda: redis_server.command("GET", LEASE) in (b"$-1\r\n", b"$4\r\nvoid\r\n"), "no lease is held")
        assert one.leases.asking == 0


async def test_the_lease_of_another_is_never_released(redis_server):
    """A leader that was so slow that its lease ended does not end that of its successor."""
    go_on = asyncio.Event()
    async with opened(redis_server) as one:
        assert await ask(one) is None
        leading = asyncio.create_task(run(one, go_on))
        redis_server.command("SET", LEASE, "of another")
        go_on.set()
        await leading
        await one.flush()
    assert redis_server.command("GET", LEASE) == b"$10\r\nof another\r\n"


async def test_a_gateway_that_stops_releases_what_it_holds(redis_server):
    """Nobody waits for a gateway that was told to end."""
    async with opened(redis_server) as one, opened(redis_server) as other:
        assert await ask(one) is None
        leading = one.lead(WORK, lambda: work(asyncio.Event()))()
        assert await anext(leading) == 1
        waits = asyncio.create_task(ask(other))
        await until(lambda: other.leases.asking == 1, "it waits")
        await one.close()
        assert await waits is None
        await leading.aclose()


async def test_a_write_that_is_lost_leaves_nobody_waiting_in_turn(redis_server):
    """A full server keeps no answer: those who waited for it make it themselves, all of them."""
    go_on = asyncio.Event()
    async with opened(redis_server) as one, opened(redis_server) as other:
        assert await ask(one) is None
        leading = asyncio.create_task(run(one, go_on))
        waits = asyncio.create_task(ask(other))
        await until(lambda: other.leases.asking == 1, "it waits")
        redis_server.command("CONFIG", "SET", "maxmemory", "1")
        go_on.set()
        await leading
        assert await waits is None


async def test_without_single_flight_nobody_is_asked_for_a_lease(redis_server):
    """The setting takes effect at once."""
    async with opened(redis_server, single_flight=False) as one:
        assert not one.leads
        one.adjust(deadline_s=1.0, single_flight=True)
        assert one.leads
