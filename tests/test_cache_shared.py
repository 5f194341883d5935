"""The shared tier on a real server: rows, deadlines, the breaker, and what a server's troubles cost."""

import asyncio
import struct
import time
import zlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.contract import Entry, Meaning
from cache.disk.row import ROW_VERSION, pack_row
from cache.shared.breaker import FAILURES_TO_OPEN, Breaker
from cache.shared.link import Link
from cache.shared.store import SharedStore
from tests.shared_tier import HASTY_S, make_entry, name_of, opened, opens, until


async def test_what_one_gateway_puts_another_gets(redis_server):
    """An entry comes back as it was, its meaning and groups included, whoever asks; first from the queue."""
    entry = make_entry(
        1, b"\x00\xff" * 1000, meaning=Meaning(b"p", "t\ud800", b"v", b"k"), groups=("model:a", "tag:b"), stamp=7
    )
    async with opened(redis_server) as one, opened(redis_server) as other:
        assert await other.get(entry.key) is None
        await one.put(entry)
        assert await one.get(entry.key) == entry
        assert await one.flush()
        assert await other.get(entry.key) == entry
        assert (one.stats()["writes"], other.stats()["hits"], other.stats()["misses"]) == (1, 1, 1)


async def test_the_server_ends_an_entry_when_its_time_is_over_and_no_reading_prolongs_it(redis_server):
    """A row has the life that its entry has left, whatever reads it: what expired is not there to be kept alive."""
    short, long = make_entry(1, expires_at=time.time() + 0.2), make_entry(2, expires_at=time.time() + 1000)
    async with opened(redis_server) as tier:
        await tier.put(short)
        await tier.put(long)
        await tier.flush()
        left = int(redis_server.command("PTTL", name_of(long.key)).strip(b":\r\n"))
        assert await tier.get(long.key) == long
        assert 0 < int(redis_server.command("PTTL", name_of(long.key)).strip(b":\r\n")) <= left <= 1_000_000
        await until(lambda: redis_server.command("EXISTS", name_of(short.key)) == b":0\r\n", "the server forgets it")
        assert time.time() >= short.expires_at - 0.002, "the server counts whole milliseconds, from its own"
        assert await tier.get(short.key) is None


async def test_many_at_once_are_read_in_few_commands(redis_server):
    """Who asks while a read is under way goes with the next one; each gets the entry that it asked for."""
    entries = [make_entry(n, b"%d" % n) for n in range(300)]
    async with opened(redis_server) as tier:
        for entry in entries:
            tier.keep(entry)
        await tier.flush()
        before = redis_server.reads()
        found = await asyncio.gather(*[tier.get(entry.key) for entry in (*entries, make_entry(999))])
        assert found == [*entries, None]
        assert redis_server.reads() - before <= 20


async def test_with_the_breaker_open_nothing_is_awaited(redis_server):
    """A server that is down costs a few failures; from then on a read, a write and a question are over at once."""
    async with opened(redis_server, deadline_s=HASTY_S) as tier:
        redis_server.kill()
        await opens(tier)
        assert tier.stats()["openings"] == 1
        before = tier.stats()
        for call in (tier.get(bytes(32)), tier.put(make_entry(1)), tier.ask(b"w", [bytes(32)], lambda _: True, 9.0)):
            with pytest.raises(StopIteration) as over:
                call.send(None)
            assert over.value.value is None
        after = tier.stats()
        assert (after["skipped"] - before["skipped"], after["dropped"] - before["dropped"]) == (1, 1)
        assert after["errors"] == before["errors"]
        assert not tier.leads


async def test_a_server_that_was_killed_is_used_again_when_it_is_back(redis_server):
    """Its memory is gone, and all else goes on as before; the log has one line for going and one for coming."""
    async with opened(redis_server) as tier:
        await tier.put(make_entry(1))
        await tier.flush()
        redis_server.kill()
        await opens(tier)
        redis_server.start()
        await until(lambda: tier.stats()["up"], "it is asked again")
        assert await tier.get(make_entry(1).key) is None
        await tier.put(make_entry(2))
        await tier.flush()
        assert (await tier.get(make_entry(2).key)).value == b"value"


async def test_a_server_that_is_not_there_at_the_start_is_used_once_it_is(redis_server, caplog):
    """Opening never fails: the gateway serves without the tier, says so once, and takes it up when it comes."""
    redis_server.kill()
    async with opened(redis_server) as tier:
        for _ in range(20):
            assert await tier.get(bytes(32)) is None
        assert not tier.stats()["up"]
        assert len(caplog.records) <= 3
        redis_server.start()
        await until(lambda: tier.stats()["up"], "it is asked")


async def test_a_paused_server_costs_a_deadline_a_few_times_and_then_nothing(redis_server):
    """It accepts connections and says nothing: a slow dependency must not be worse than a dead one."""
    async with opened(redis_server, deadline_s=HASTY_S) as tier:
        await tier.put(make_entry(1))
        await tier.flush()
        redis_server.pause()
        await opens(tier)
        # Each of two readers may be under way with a read when the last failure comes.
        assert tier.stats()["timeouts"] <= 2 * FAILURES_TO_OPEN
        redis_server.resume()
        await until(lambda: tier.stats()["up"], "it is asked again")
        assert await tier.get(make_entry(1).key) is not None


async def test_a_read_that_came_too_late_is_never_taken_for_another(redis_server):
    """Reads that are given up leave their replies behind; nobody else ever gets one of them."""
    entries = [make_entry(n, b"%d" % n) for n in range(50)]
    async with opened(redis_server) as tier:
        for entry in entries:
            tier.keep(entry)
        await tier.flush()
        for turn in range(200):
            tier.adjust(deadline_s=0.0005 * (turn % 4) + 0.0001, single_flight=True)
            asked = [asyncio.create_task(tier.get(entry.key)) for entry in entries]
            asked[turn % 50].cancel()
            for entry, found in zip(entries, await asyncio.gather(*asked, return_exceptions=True), strict=True):
                assert found in (None, entry) or isinstance(found, asyncio.CancelledError)
        assert tier.stats()["corrupt"] == 0


async def test_a_flushed_server_is_misses(redis_server):
    """Somebody empties it: what was there is not found, and that is all."""
    async with opened(redis_server) as tier:
        await tier.put(make_entry(1))
        await tier.flush()
        redis_server.command("FLUSHALL")
        assert await tier.get(make_entry(1).key) is None
        assert tier.stats()["errors"] == 0


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"no row",
        pack_row(make_entry(1))[:-1],
        bytes([ROW_VERSION + 1]) + pack_row(make_entry(1))[1:],
        pack_row(make_entry(2)),
    ],
    ids=["empty", "foreign", "torn", "of another version", "of another key"],
)
async def test_what_is_no_row_of_this_key_is_a_miss_and_counted(redis_server, row):
    """Bytes from anywhere are never served, and do not end the use of the tier."""
    async with opened(redis_server) as tier:
        redis_server.command("SET", name_of(make_entry(1).key), row)
        for _ in range(2 * FAILURES_TO_OPEN):
            assert await tier.get(make_entry(1).key) is None
        assert tier.stats()["corrupt"] == 2 * FAILURES_TO_OPEN
        assert tier.stats()["up"]
        await tier.put(make_entry(1))
        await tier.flush()
        assert (await tier.get(make_entry(1).key)).value == b"value"


def forged(*fields: object) -> bytes:
    """Return a row with a right checksum and these fields."""
    body = msgpack.packb(fields)
    return struct.pack(">BI", ROW_VERSION, zlib.crc32(body)) + body


SOUND: dict[str, object] = {
    "key": make_entry(1).key,
    "value": b"v",
    "stored_at": 1.0,
    "expires_at": 4e9,
    "meaning": None,
    "stale_s": 0.0,
    "groups": ("model:a",),
    "stamp": 1,
}
FORGERIES = [
    {"value": "text"},
    {"stored_at": float("nan")},
    {"expires_at": "soon"},
    {"meaning": (b"p", "t")},
    {"meaning": (b"p", 1, b"v", b"k")},
    {"meaning": 3},
    {"groups": 7},
    {"groups": (1,)},
    {"stale_s": None},
    {"stamp": 1.5},
]


@pytest.mark.parametrize("wrong", FORGERIES, ids=str)
async def test_a_row_of_sound_bytes_and_wrong_values_is_a_miss(redis_server, wrong):
    """Who can write to the server can still not make a request fail."""
    async with opened(redis_server) as tier:
        redis_server.command("SET", name_of(make_entry(1).key), forged(*SOUND.values()))
        assert (await tier.get(make_entry(1).key)).value == b"v"
        redis_server.command("SET", name_of(make_entry(1).key), forged(*(SOUND | wrong).values()))
        assert await tier.get(make_entry(1).key) is None
        assert tier.stats()["corrupt"] == 1
        redis_server.command("SET", name_of(make_entry(1).key), forged(*list(SOUND.values())[:-1]))
        assert await tier.get(make_entry(1).key) is None


@given(
    st.recursive(
        st.none() | st.integers(-(2**63), 2**63) | st.text() | st.binary() | st.floats(), st.lists, max_leaves=12
    )
)
def test_no_row_makes_reading_fail(value):
    """Whatever a row with a right checksum says."""
    store = SharedStore(Link("redis://127.0.0.1:1", deadline_s=1.0), name_of)
    body = msgpack.packb(value)
    row = struct.pack(">BI", ROW_VERSION, zlib.crc32(body)) + body
    assert list(store.read([bytes(32)], [row])) == []
    assert store.counters.corrupt == 1


async def test_a_value_of_another_type_is_a_miss(redis_server):
    """A list where a row should be: nothing is read, and the next write puts a row in its place."""
    async with opened(redis_server) as tier:
        redis_server.command("RPUSH", name_of(make_entry(1).key), "x")
        assert await tier.get(make_entry(1).key) is None
        await tier.put(make_entry(1))
        await tier.flush()
        assert (await tier.get(make_entry(1).key)).value == b"value"


async def test_a_server_without_memory_loses_writes_and_is_still_read(redis_server):
    """Every write is refused and counted as lost; what is there goes on being served."""
    async with opened(redis_server) as tier:
        await tier.put(make_entry(1))
        await tier.flush()
        redis_server.command("CONFIG", "SET", "maxmemory", "1")
        for n in range(2, 12):
            tier.keep(make_entry(n))
        await tier.flush()
        assert await tier.get(make_entry(1).key) is not None
        assert await tier.get(make_entry(2).key) is None
        stats = tier.stats()
        assert (stats["dropped"], stats["writes"], stats["up"]) == (10, 1, 1)
        redis_server.command("CONFIG", "SET", "maxmemory", "0")
        tier.keep(make_entry(3))
        await tier.flush()
        assert await tier.get(make_entry(3).key) is not None


async def test_what_the_queue_cannot_take_is_lost_and_counted(redis_server):
    """A write never waits: by number, by bytes together, and by the size of one."""
    async with opened(redis_server) as tier:
        redis_server.pause()
        for n in range(2000):
            tier.keep(make_entry(n))
        assert tier.stats()["dropped"] >= 2000 - 1024
        redis_server.resume()
        await tier.flush()
        before = tier.stats()["dropped"]
        tier.keep(make_entry(3000, bytes(5 << 20)))
        assert tier.stats()["dropped"] == before + 1
        for n in range(3001, 3012):
            tier.keep(make_entry(n, bytes(3 << 20)))
        assert tier.stats()["dropped"] == before + 2


async def test_close_writes_what_is_queued(redis_server):
    """A gateway that stops leaves to the others what it has just made."""
    async with opened(redis_server) as tier:
        for n in range(300):
            tier.keep(make_entry(n))
    async with opened(redis_server) as tier:
        assert await tier.get(make_entry(299).key) is not None


async def test_a_removal_reaches_the_server_also_when_that_was_down(redis_server):
    """What was removed while the server was not there is not served from it when it is back."""
    entry = make_entry(1)
    async with opened(redis_server, deadline_s=HASTY_S) as tier:
        await tier.put(entry)
        await tier.flush()
        await tier.remove(entry.key)
        assert redis_server.command("EXISTS", name_of(entry.key)) == b":0\r\n"
        await tier.put(entry)
        await tier.flush()
        redis_server.pause()
        await opens(tier)
        await tier.remove(entry.key)
        redis_server.resume()
        await until(lambda: redis_server.command("EXISTS", name_of(entry.key)) == b":0\r\n", "it is removed")
        await until(lambda: tier.stats()["up"], "it is asked again")
        assert await tier.get(entry.key) is None
        await tier.put(entry)
        await tier.flush()
        assert await tier.get(entry.key) == entry


@pytest.mark.parametrize("tcp", [True, False])
async def test_a_password_is_used_and_never_told(make_redis, tcp, caplog):
    """Over a port and over a socket; a wrong one is a server that is not there, and no log has either."""
    server = make_redis(tcp=tcp, password="very-secret")
    async with opened(server) as tier:
        await tier.put(make_entry(1))
        assert await tier.flush()
        assert tier.stats()["writes"] == 1
    async with opened(server, url=server.url.replace("very-secret", "also-secret")) as tier:
        assert await tier.get(make_entry(1).key) is None
        assert not tier.leads or tier.stats()["errors"]
    assert "-secret" not in caplog.text
    assert caplog.records


async def test_a_server_with_tls_is_asked_over_tls(make_redis):
    """With the authority that the URL names; a certificate of another one is refused."""
    server = make_redis(tls=True)
    async with opened(server) as tier:
        await tier.put(make_entry(1))
        await tier.flush()
        assert await tier.get(make_entry(1).key) is not None
        assert tier.stats()["writes"] == 1
    async with opened(server, url=server.url.partition("?")[0]) as tier:
        assert await tier.get(make_entry(1).key) is None
        assert tier.stats()["errors"] > 0


def test_the_breaker_opens_after_some_failures_in_a_row_and_rests_longer_each_time():
    """One success in between starts the count anew; a probe that fails doubles the rest, up to half a minute."""
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.failed(0.0)
    breaker.succeeded(0.0)
    assert breaker.closed
    for _ in range(FAILURES_TO_OPEN):
        assert breaker.closed
        breaker.failed(10.0)
    assert (breaker.closed, breaker.probe_at, breaker.openings) == (False, 11.0, 1)
    rests = []
    for _ in range(7):
        now = breaker.probe_at
        breaker.failed(now)
        rests.append(breaker.probe_at - now)
    assert rests == [2, 4, 8, 16, 30, 30, 30]
    breaker.succeeded(200.0)
    assert breaker.closed


def test_a_breaker_that_opens_again_soon_rests_longer_and_one_that_held_does_not():
    """A server that answers a probe and nothing else is probed ever more seldom."""
    breaker = Breaker()

    def fail(now: float) -> float:
        for _ in range(FAILURES_TO_OPEN):
            breaker.failed(now)
        return breaker.probe_at - now

    assert fail(0.0) == 1
    breaker.succeeded(1.0)
    assert fail(2.0) == 2
    breaker.succeeded(4.0)
    assert fail(5.0) == 4
    breaker.succeeded(9.0)
    assert fail(60.0) == 1


async def test_entries_end_by_this_gateways_clock_as_well(redis_server):
    """Where the server's clock is behind, what is over here is not served."""
    entry = Entry(bytes(32), b"v", 0.0, time.time() + 1000)
    async with opened(redis_server, clock=lambda: entry.expires_at) as tier:
        redis_server.command("SET", name_of(entry.key), pack_row(entry))
        assert await tier.get(entry.key) is None
