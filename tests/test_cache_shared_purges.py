"""Purges on one gateway end the answers on all, whenever they hear of each other."""

import asyncio
import time

from cache.contract import Entry
from cache.disk import DiskStore
from cache.exact import ExactCache
from cache.memory import MemoryStore
from cache.purges import ALL, Mark, Purges, of_key, of_model, of_tag
from tests.fakes import VirtualClock
from tests.shared_tier import HASTY_S, make_entry, name_of, opened, opens, until

MODEL = of_model("atlas")
LOG = name_of(b"", "marks")


def of_model_entry(purges: Purges, n: int = 1) -> Entry:
    """Return an entry that the model made now."""
    return make_entry(n, groups=(MODEL,), stamp=purges.stamp())


async def test_a_purge_on_one_gateway_is_soon_one_on_all(redis_server):
    """By group, by key and by age, and also on a gateway that starts later; new answers live."""
    here, there, later = Purges(), Purges(), Purges()
    async with opened(redis_server, here) as one, opened(redis_server, there):
        old = of_model_entry(there)
        for mark in (here.purge(MODEL), here.purge(of_key(bytes(32))), here.purge_stored_by(123.5)):
            await until(lambda mark=mark: mark in there.marks(), "the other has heard of it")
        assert there.is_dead(old)
        assert not there.is_dead(of_model_entry(there))
        assert one.stats()["purges_sent"] == 3
        async with opened(redis_server, later):
            assert sorted(later.marks()) == sorted(here.marks())
            unrelated = make_entry(2, stamp=later.stamp())
            here.purge(ALL)
            await until(lambda: later.is_dead(unrelated) and there.is_dead(unrelated), "all of it has ended for all")


async def test_a_purged_entry_is_served_from_no_tier(redis_server):
    """What another gateway purged is neither served from memory, nor from what is shared, nor comes back later."""
    here, there = Purges(), Purges()
    async with opened(redis_server, here) as one, opened(redis_server, there) as other:
        exact_here = ExactCache(MemoryStore(1 << 20), None, here, one)
        exact_there = ExactCache(MemoryStore(1 << 20), None, there, other)
        entry = of_model_entry(here)
        exact_here.keep(entry)
        await one.flush()
        assert await exact_there.get(entry.key) == entry
        await exact_here.purge(MODEL)
        assert await exact_here.get(entry.key) is None
        await until(lambda: exact_there.peek(entry.key) is None, "the other serves it no more")
        assert await exact_there.get(entry.key) is None
        fresh = of_model_entry(there)
        exact_there.keep(fresh)
        await other.flush()
        assert await exact_here.get(entry.key) == fresh


async def test_a_purge_that_has_returned_is_known_to_the_server(redis_server):
    """A gateway that dies right after it brings nothing back; where the server is away it says so, having no disk."""
    here, later = Purges(), Purges()
    async with opened(redis_server, here) as one:
        exact = ExactCache(MemoryStore(1 << 20), None, here, one)
        assert await exact.purge(MODEL)
        assert one.stats()["purges_sent"] == 1
        async with opened(redis_server, later):
            assert later.marks() == here.marks()
        redis_server.kill()
        try:
            assert not await exact.purge(of_tag("x"))
            assert here.is_dead(make_entry(1, groups=(of_tag("x"),)))
        finally:
            redis_server.start()
        await exact.close()


async def test_purges_while_the_server_is_away_are_sent_when_it_is_back(redis_server):
    """Until then they are this gateway's own; afterwards everybody's."""
    here, there = Purges(), Purges()
    async with opened(redis_server, here, deadline_s=HASTY_S) as one, opened(redis_server, there, deadline_s=HASTY_S):
        redis_server.pause()
        await opens(one)
        old = of_model_entry(here)
        mark = here.purge(MODEL)
        assert here.is_dead(old)
        assert mark not in there.marks()
        redis_server.resume()
        await until(lambda: mark in there.marks(), "the other has heard of it")


async def test_purges_go_on_while_requests_do_without_the_server(redis_server):
    """A gateway that does not ask a server for half a minute, since that failed again and again, hears of them all."""
    here, there = Purges(), Purges()
    async with opened(redis_server, here) as one, opened(redis_server, there) as other:
        breaker = other._link.breaker
        while breaker.closed or breaker.probe_at < time.monotonic() + 10:
            breaker.failed(time.monotonic())
        entry, heard = of_model_entry(there), other.stats()["purges_received"]
        here.purge(MODEL)
        assert await one.tell()
        await until(lambda: there.is_dead(entry), "the other has heard of it")
        assert (other.stats()["up"], other.stats()["purges_received"]) == (0, heard + 1)
        there.purge(of_tag("t"))
        assert await other.tell()
        await until(lambda: len(here.marks()) == 2, "the one has heard of the other's")
        assert not other.stats()["up"]


async def test_a_server_that_lost_everything_is_told_all_purges_again(redis_server):
    """After a flush or a restart a new gateway still learns what was purged."""
    here, there = Purges(), Purges()
    async with opened(redis_server, here) as one:
        marks = [here.purge(of_tag(str(n))) for n in range(5)]
        await until(lambda: one.stats()["purges_sent"] == 5, "they are sent")
        redis_server.command("FLUSHALL")
        await until(lambda: one.stats()["purges_sent"] == 10, "they are sent again")
        async with opened(redis_server, there):
            assert sorted(there.marks()) == sorted(marks)
        another = here.purge(MODEL)
        redis_server.kill()
        redis_server.start()
        await until(lambda: one.stats()["up"] and one.stats()["purges_sent"] >= 16, "they are sent again")
        third = Purges()
        async with opened(redis_server, third):
            assert another in third.marks()


async def test_gateways_do_not_send_each_other_the_same_purge_for_ever(redis_server):
    """What came from another is not sent on."""
    purges = [Purges() for _ in range(3)]
    async with (
        opened(redis_server, purges[0]) as one,
        opened(redis_server, purges[1]) as two,
        opened(redis_server, purges[2]) as three,
    ):
        purges[0].purge(MODEL)
        purges[1].purge(of_tag("a"))
        await until(lambda: all(len(each.marks()) == 2 for each in purges), "all know of both")
        # The next purge is sent after all that could be sent by then.
        purges[2].purge(of_tag("b"))
        await until(lambda: all(len(each.marks()) == 3 for each in purges), "all know of it")
        assert [tier.stats()["purges_sent"] for tier in (one, two, three)] == [1, 1, 1]


async def test_thousands_of_purges_are_exchanged(redis_server):
    """More than are read at once."""
    here, there = Purges(), Purges()
    for n in range(3500):
        here.purge(of_tag(str(n)))
    async with opened(redis_server, here), opened(redis_server, there):
        await until(lambda: len(there.marks()) == 3500, "all have come")


async def test_a_gateway_whose_clock_is_ahead_cannot_outlive_a_purge(redis_server):
    """Its stamps are seen by the others before they purge, so that what it made is older than their purge."""
    clock = VirtualClock(2_000_000_000.0)
    ahead, here = Purges(clock), Purges(VirtualClock(1_000_000_000.0))
    async with opened(redis_server, ahead), opened(redis_server, here):
        entry = of_model_entry(ahead)
        await until(lambda: here.stamp() > entry.stamp, "its stamps are known here")
        mark = here.purge(MODEL)
        await until(lambda: mark in ahead.marks(), "it has heard of the purge")
        assert ahead.is_dead(entry)


async def test_what_is_no_mark_in_the_log_is_passed_over(redis_server):
    """Rows of another release, or of anybody else, neither end the exchange nor purge anything."""
    here = Purges()
    async with opened(redis_server, here):
        for fields in (
            ("a", "b"),
            ("group", "g", "stamp", "x", "by", "0"),
            ("group", "\xff", "stamp", "1", "by", "nan!"),
        ):
            redis_server.command("XADD", LOG, "*", *fields)
        redis_server.command("XADD", LOG, "*", "group", "tag:a", "stamp", 5, "by", "0.0")
        await until(here.marks, "the mark has come")
        assert here.marks() == [Mark("tag:a", 5)]


async def test_a_log_of_another_type_costs_only_the_exchange(redis_server):
    """A string where the log should be: answers are still shared."""
    redis_server.command("SET", LOG, "x")
    here = Purges()
    async with opened(redis_server, here) as one:
        here.purge(MODEL)
        await one.put(make_entry(1))
        await one.flush()
        assert await one.get(make_entry(1).key) is not None
        await until(lambda: one.stats()["errors"] > 2, "the exchange was tried")
        assert one.stats()["up"]


async def test_the_tiers_stand_in_for_each_other(redis_server, tmp_path):
    """What is only shared is promoted to memory and to disk, with the life that it has left, and learned of."""
    purges = Purges()
    disk = DiskStore(tmp_path, 1 << 20, purges=purges)
    await disk.open()
    async with opened(redis_server, purges) as one, opened(redis_server) as other:
        entry = make_entry(1)
        other.keep(entry)
        await other.flush()
        exact = ExactCache(MemoryStore(1 << 20), disk, purges, one)
        learned: list[Entry] = []
        exact.learn = learned.append
        assert exact.peek(entry.key) is None
        assert await exact.get(entry.key) == await exact.get(entry.key) == entry
        assert learned == [entry]
        redis_server.kill()
        assert exact.peek(entry.key) == entry
        await disk.flush()
        assert await ExactCache(MemoryStore(1 << 20), disk, purges, one).get(entry.key) == entry
    await disk.close()


async def test_a_row_read_meanwhile_does_not_shadow_a_new_entry(redis_server):
    """A get waits for the server, put comes in between: the reader and memory have the new entry."""
    old, new = make_entry(1, b"old"), make_entry(1, b"new")
    async with opened(redis_server) as one, opened(redis_server) as other:
        other.keep(old)
        await other.flush()
        exact = ExactCache(MemoryStore(1 << 20), None, None, one)
        reads = asyncio.create_task(exact.get(old.key))
        await asyncio.sleep(0)
        exact.keep(new)
        assert await reads == exact.peek(old.key) == new


async def test_a_removed_entry_is_gone_from_what_is_shared(redis_server):
    """For every gateway that has it not in a tier of its own."""
    async with opened(redis_server) as one, opened(redis_server) as other:
        exact = ExactCache(MemoryStore(1 << 20), None, None, one)
        exact.keep(make_entry(1))
        await one.flush()
        assert await other.get(make_entry(1).key) is not None
        await exact.remove(make_entry(1).key)
        assert await other.get(make_entry(1).key) is None


async def test_a_forged_clock_or_mark_on_the_server_is_passed_over(redis_server):
    """What is no stamp moves no clock here, so that purges can still be written, and ends nothing."""
    purges = Purges()
    async with opened(redis_server, purges) as tier:
        redis_server.command("SET", name_of(b"", "clock"), "9" * 5000)
        redis_server.command("XADD", LOG, "*", "group", ALL, "stamp", "9" * 25, "by", "0.0")
        purges.purge(MODEL)
        assert await tier.tell()
        assert [mark.group for mark in purges.marks()] == [MODEL]
        assert purges.stamp() < 1 << 63
