"""The short way of requests that are passed on: what it takes, and that nothing else differs from the usual way."""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from backends.costs import ModelCosts
from backends.demand import Demand
from backends.keeper import Keeper
from backends.pool import Pool, PoolLimits
from backends.upstream import HttpEngine
from cache.flight import SingleFlight
from gateway.analyze import CachePolicy
from gateway.auth import Gatekeeper, Key
from gateway.catalog import Catalog
from gateway.front import Front
from gateway.lane.heads import Heads
from gateway.lane.lane import Lane
from gateway.lane.passing import MAX_BYTES, Passage
from gateway.limits import Limiter
from gateway.model_statistics import ModelStatistics
from gateway.pipeline import Pipeline
from gateway.request import Limits
from gateway.routes import Route, Routes
from gateway.server import Server
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.wire import Call
from gateway.telemetry import Telemetry
from tests.test_backends_http import Streams, request_from, server

KEY = "a key"
OFF = CachePolicy(enabled=False)
DEADLINE_S = 0.3
ANSWER = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
).encode()

UNTIL_ITS_END = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + ANSWER

Way = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def replies(*written: bytes | None) -> Way:
    """Answer the requests of all connections in turn; nothing closes the connection, the last stands for all later."""
    left = list(written)

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_from(reader)
            data = left.pop(0) if len(left) > 1 else left[0]
            if data is None:
                return
            writer.write(data)
            if data is UNTIL_ITS_END:
                return

    return way


def http(body: bytes, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    """Write a reply."""
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        status.encode(),
        content_type.encode(),
        len(body),
        body,
    )


FINE = http(ANSWER)


def post(body: object, *, version: str = "1.1", path: str = "/v1/chat/completions", **headers: str) -> bytes:
    """Write a request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = {"Host": "x", "Authorization": f"Bearer {KEY}", **headers, "Content-Length": str(len(data))}
    lines = [f"POST {path} HTTP/{version}", *[f"{name}: {value}" for name, value in head.items()]]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


def chat(model: str = "plain", **more: object) -> dict[str, object]:
    """Return a chat."""
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}


class Counting(Passage):
    """Counts what it takes."""

    taken = 0

    def begin(self, group, body, client):
        """Count what is taken."""
        errand = super().begin(group, body, client)
        self.taken += errand is not None
        return errand


class Place:
    """A gateway of one upstream: with the lane, or without."""

    def __init__(self, url: str, *, with_lane: bool, deadline_s: float = 30.0) -> None:
        self.keeper = Keeper(None, time.monotonic)
        self.pool = Pool(
            "up",
            HttpEngine(f"{url}/v1", "theirs", concurrency=2),
            PoolLimits(min_replicas=1, queue=4),
            costs=ModelCosts(),
            demand=Demand(time.monotonic()),
            clock=time.monotonic,
            wake_keeper=self.keeper.wake,
        )
        self.telemetry = Telemetry()
        self.statistics = ModelStatistics(lambda _: 0)
        self.limiter = Limiter(lambda: 0.0)
        pools = {"up": self.pool}
        routes = Routes(
            {
                "up": Route("up", ("up",)),
                "plain": Route("plain", ("up",), policy=OFF),
                "two": Route("two", ("up", "up"), policy=OFF),
                "backed": Route("backed", ("up",), fallback=("up",), policy=OFF),
                "closed": Route("closed", ("up",), policy=OFF),
            }
        )
        self.pipeline = Pipeline(
            routes, pools, None, SingleFlight(), limiter=self.limiter, telemetry=self.telemetry,
            statistics=self.statistics, catalog=Catalog(pools, {}, {}, cached=False), deadline_s=deadline_s,
        )  # fmt: skip
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        limits = Limits(requests_per_minute=60, tokens_per_minute=6000, concurrency=50)
        gatekeeper = Gatekeeper([Key("k", digest, ("up", "plain", "two", "backed"), limits)])
        surface = OpenAISurface()
        self.front = Front((surface,), {}, self.pipeline, gatekeeper, self.telemetry)
        self.passage = Counting(
            surface, routes, pools, self.front, statistics=self.statistics, deadline_s=deadline_s
        )
        self.heads = Heads(gatekeeper, 2**20)
        self.clients: list[asyncio.StreamWriter] = []
        self.address = ("", 0)
        self.server = Server(self.front.serve, self.front.refuse, max_body_bytes=2**20)
        if with_lane:
            self.server.exchange(
                self.front.serve, self.front.refuse, 2**20, lane=Lane(self.heads, None, self.passage)
            )

    @property
    def taken(self) -> int:
        """How many requests went through the lane."""
        return self.passage.taken

    def way(self, body: bytes, path: str = "/v1/chat/completions", **headers: str) -> str:
        """Return why a request does not go through the lane; empty where it does."""
        headers = {"authorization": f"Bearer {KEY}", **headers}
        group = self.heads.group_of("POST", path, "", headers, "127.0.0.1")
        if group is None:
            return "head"
        way = self.passage.way(group, body)
        found = way if isinstance(way, str) else self.passage.free(way, body)
        return found if isinstance(found, str) else ""

    async def connect(self) -> Streams:
        """Return a client's new connection, which ends with the place."""
        streams = await asyncio.open_connection(*self.address)
        self.clients.append(streams[1])
        return streams

    def accounts(self) -> tuple[object, ...]:
        """Return everything that is counted, apart from times."""
        text = self.telemetry.exposition().decode()
        counts = [line for line in text.splitlines() if not re.search(r"_(sum|bucket|created)", line)]
        of = self.statistics.of("up")
        account = self.limiter._accounts["key:k"]
        costs = self.pool.costs.dump()
        return (
            counts, of.success.count, of.fail.count, of.queue.count, of.inference_count, of.execution_count,
            of.cache_miss.count, account.requests, account.tokens, account.reserved, account.running,
            costs["tokens_out"], costs["fit"]["count"], self.pool.snapshot(0).replicas[0].in_flight,
        )  # fmt: skip


@asynccontextmanager
async def place(way: Way, *, with_lane: bool = True, deadline_s: float = 30.0) -> AsyncIterator[Place]:
    """Run a gateway before an upstream that answers in a way, with one connection kept."""
    async with server(way) as url:
        built = Place(url, with_lane=with_lane, deadline_s=deadline_s)
        built.keeper.add(built.pool)
        built.keeper.start()
        try:
            built.address = await built.server.listen("127.0.0.1", 0)
            await built.pool.warm_up(time.monotonic() + 10)
            yield built
        finally:
            for client in built.clients:
                client.close()
            await built.server.drain(0.0)
            await built.keeper.close()


async def reply(streams: Streams) -> bytes:
    """Read one reply whole."""
    return await asyncio.wait_for(request_from(streams[0]), 10)


async def ask(streams: Streams, request: bytes) -> bytes:
    """Ask and read the reply."""
    streams[1].write(request)
    return await reply(streams)


def settled(data: bytes) -> bytes:
    """Return a reply without what differs each time."""
    data = re.sub(rb"(Date|Server-Timing|X-Request-Id|request-id): [^\r]*", rb"\1", data)
    return re.sub(rb"\d+\.\d+ s", b"N s", data)


async def until(look: Callable[[], bool]) -> None:
    """Wait for a state."""
    async with asyncio.timeout(10):
        while not look():  # noqa: ASYNC110 - what is looked at tells nobody
            await asyncio.sleep(0.001)


CASES = {
    "fine": (FINE,),
    "no usage": (FINE, http(ANSWER.replace(b'"usage"', b'"used"'))),
    "refused": (FINE, http(b'{"error": {"message": "no", "param": "n"}}', "422 Unprocessable")),
    "busy": (FINE, http(b"later", "429 Too Many")),
    "broken": (FINE, http(b"no", "500 Internal")),
    "no answer": (FINE, http(b'{"choices": []}')),
    "an error": (FINE, http(b'{"error": {"message": "no"}}')),
    "no HTTP": (FINE, b"what?\r\n\r\n"),
    "closed": (FINE, None, FINE),
    "cut off": (FINE, FINE[:-5] + b"\r\n", FINE),
    "until its end": (FINE, UNTIL_ITS_END, FINE),
    "long": (FINE, http(ANSWER.replace(b"yes", b"y" * 2**20))),
    "stream": (FINE, http(b"data: [DONE]\n\n", content_type="text/event-stream")),
}


@pytest.mark.parametrize("case", CASES)
async def test_replies_and_accounts_are_those_of_the_usual_way(case):
    """Whatever the upstream does, the bytes and the counts are the same with the lane and without it."""
    seen = []
    for with_lane in (False, True):
        async with place(
            replies(*CASES[case]), with_lane=with_lane, deadline_s=DEADLINE_S if case == "cut off" else 30
        ) as built:
            streams = await built.connect()
            got = [settled(await ask(streams, post(chat(max_tokens=5)))) for _ in range(2)]
            streams[1].close()
            seen.append((got, built.accounts()))
            assert built.taken == with_lane  # the head of the first was not known
            await built.pipeline.accounts.until_idle()
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("body", "headers", "why"),
    [
        ({}, {"cache-control": "no-store"}, "head"),
        ({}, {"x-request-timeout": "3"}, "head"),
        ({}, {"authorization": "Bearer other"}, "head"),
        ({}, {"path": "/v1/messages"}, "another kind of request"),
        ({"user": "x" * MAX_BYTES}, {}, "another kind of request"),
        ({"model": "closed"}, {}, "caller"),
        ({"model": "nobody"}, {}, "unknown model"),
        ({"model": "two"}, {}, "several models"),
        ({"model": "backed"}, {}, "several models"),
        ({"model": "up"}, {}, "cacheable"),
        ({"stream": True}, {}, "stream"),
        ({"temperature": "warm"}, {}, "malformed"),
        ({"temperature": 1, "tools": []}, {}, ""),
    ],
)
async def test_what_it_does_not_take(body, headers, why):
    """Each of these goes the usual way, and nothing was taken for it."""
    async with place(replies(FINE)) as built:
        streams = await built.connect()
        assert (await ask(streams, post(chat()))).endswith(ANSWER)
        assert built.way(json.dumps(chat() | body).encode(), **headers) == why


async def test_it_takes_a_sampled_answer_of_a_route_with_caches():
    """A temperature makes an answer one that no cache keeps and nobody shares."""
    async with place(replies(FINE)) as built:
        streams = await built.connect()
        for _ in range(2):
            assert b"\r\nCache-Status: warmgate; fwd=bypass; detail=temperature\r\n" in await ask(
                streams, post(chat("up", temperature=1))
            )
        assert built.taken == 1


async def test_it_needs_a_slot_a_connection_and_leave():
    """Where one of them is missing the usual way waits, opens, or refuses."""
    body = json.dumps(chat()).encode()
    async with place(replies(FINE)) as built:
        assert built.way(body) == "no connection"
        streams = await built.connect()
        await ask(streams, post(chat()))
        assert not built.way(body)
        built.pool.rest(resting=True)
        assert built.way(body) == "no connection"
        built.pool.rest(resting=False)
        await built.pool.warm_up(time.monotonic() + 10)
        statuses = [(await ask(streams, post(chat())))[9:12] for _ in range(60)]
        assert statuses == [b"200"] * 59 + [b"429"]
        assert built.taken == 58
        await built.pipeline.accounts.until_idle()


class Held:
    """An upstream that answers the first request at once, the others when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.gone = 0
        self.go_on = asyncio.Event()

    async def way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        try:
            while await request_from(reader):
                self.asked += 1
                if self.asked > 1:
                    wait = asyncio.ensure_future(self.go_on.wait())
                    left = asyncio.ensure_future(reader.read(1))
                    await asyncio.wait({wait, left}, return_when=asyncio.FIRST_COMPLETED)
                    if left.done():
                        return
                    left.cancel()
                    await asyncio.wait({left})
                writer.write(FINE)
        finally:
            self.gone += 1


@asynccontextmanager
async def holding(*, deadline_s: float = 30.0) -> AsyncIterator[tuple[Held, Place, Streams]]:
    """Have a request under way in the lane, held by its upstream."""
    held = Held()
    async with place(held.way, deadline_s=deadline_s) as built:
        streams = await built.connect()
        await ask(streams, post(chat()))
        streams[1].write(post(chat()))
        await until(lambda: held.asked == 2)
        assert built.taken == 1
        yield held, built, streams
        held.go_on.set()
        streams[1].close()


async def test_who_leaves_ends_its_request():
    """The upstream's connection is closed, the slot free, the permit settled."""
    async with holding() as (held, built, streams):
        streams[1].transport.abort()
        await until(lambda: held.gone == 1)
        await built.pipeline.accounts.until_idle()
        assert built.accounts()[9:11] == (0, 0)
        assert built.accounts()[-1] == 0


async def test_until_idle_waits_for_it():
    """A generation that retires is not idle while a request of its lane is under way."""
    async with holding() as (held, built, streams):
        idle = asyncio.ensure_future(built.pipeline.accounts.until_idle())
        await asyncio.sleep(0)
        assert not idle.done()
        held.go_on.set()
        assert (await reply(streams)).endswith(ANSWER)
        await idle


async def test_the_time_it_has_ends():
    """An upstream that takes too long is a 504 in the wire's shape."""
    async with holding(deadline_s=DEADLINE_S) as (held, built, streams):
        got = await reply(streams)
        assert got.startswith(b"HTTP/1.1 504 ")
        assert b"deadline" in got
        await until(lambda: held.gone == 1)
        assert built.accounts()[-1] == 0


async def test_requests_sent_ahead_keep_their_order():
    """What comes while one is under way is answered after it."""
    async with holding() as (held, _, streams):
        streams[1].write(post(chat("nobody")) + post(chat()))
        await asyncio.sleep(0)
        held.go_on.set()
        assert [(await reply(streams))[9:12] for _ in range(3)] == [b"200", b"404", b"200"]


async def test_a_server_that_drains_waits_for_it():
    """The request in progress is answered, then the connection ends."""
    async with holding() as (held, built, streams):
        drain = asyncio.ensure_future(built.server.drain(10))
        await until(lambda: any(connection.task for connection in built.server._connections))
        held.go_on.set()
        got = await reply(streams)
        assert got.endswith(ANSWER)
        assert b"\r\nConnection: close\r\n" in got
        await drain


async def test_a_server_whose_time_is_up_refuses_it():
    """What is not answered in time is told so."""
    async with holding() as (held, built, streams):
        await built.server.drain(0.01)
        assert (await reply(streams)).startswith(b"HTTP/1.1 503 ")
        await until(lambda: held.gone == 1)


async def test_http_1_0_is_answered_and_closed():
    """A client of HTTP/1.0 that does not ask for more gets its reply and the end."""
    async with place(replies(FINE)) as built:
        await ask(await built.connect(), post(chat()))
        streams = await built.connect()
        streams[1].write(post(chat(), version="1.0"))
        got = await asyncio.wait_for(streams[0].read(), 10)
        assert got.endswith(ANSWER)
        assert b"\r\nConnection: close\r\n" in got
        assert built.taken == 0
