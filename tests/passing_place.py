"""A gateway of one upstream that passes requests on, with the lane or without; and what its client sees."""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from backends.costs import ModelCosts
from backends.demand import Demand
from backends.keeper import Keeper
from backends.pool import Pool, PoolLimits
from backends.upstream import HttpEngine
from cache.flight import SingleFlight
from gateway.analyze import CachePolicy
from gateway.callers.auth import Gatekeeper, Key
from gateway.callers.limits import Limiter
from gateway.catalog import Catalog
from gateway.counting.model_statistics import ModelStatistics
from gateway.counting.telemetry import Telemetry
from gateway.front import Front
from gateway.lane.heads import Heads
from gateway.lane.lane import Lane
from gateway.lane.passing import Passage
from gateway.pipeline import Pipeline
from gateway.request import Limits
from gateway.routes import Route, Routes
from gateway.serving.server import Server
from gateway.surfaces.openai import OpenAISurface
from tests.http_upstream import Streams, request_from, server

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
        self.passage = Counting(surface, routes, pools, self.front, statistics=self.statistics, deadline_s=deadline_s)
        self.heads = Heads(gatekeeper, 2**20)
        self.clients: list[asyncio.StreamWriter] = []
        self.address = ("", 0)
        self.server = Server(self.front.serve, self.front.refuse, max_body_bytes=2**20)
        if with_lane:
            self.server.exchange(self.front.serve, self.front.refuse, 2**20, lane=Lane(self.heads, None, self.passage))

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
            await built.pool.warm_up(time.monotonic() + 90)
            yield built
        finally:
            for client in built.clients:
                client.close()
            await built.server.drain(0.0)
            await built.keeper.close()


async def reply(streams: Streams) -> bytes:
    """Read one reply whole."""
    return await asyncio.wait_for(request_from(streams[0]), 90)


async def ask(streams: Streams, request: bytes) -> bytes:
    """Ask and read the reply."""
    streams[1].write(request)
    return await reply(streams)


def settled(data: bytes) -> bytes:
    """Return a reply without what differs each time."""
    data = re.sub(rb"(Date|Server-Timing|X-Request-Id|request-id): [^\r]*", rb"\1", data)
    data = re.sub(rb"127\.0\.0\.1:\d+", b"upstream", data)
    data = re.sub(rb"Content-Length: \d+", b"Content-Length", data)  # of a port with fewer digits, too
    return re.sub(rb"\d+\.\d+ s", b"N s", data)


async def until(look: Callable[[], bool]) -> None:
    """Wait for a state."""
    async with asyncio.timeout(90):
        while not look():  # noqa: ASYNC110 - what is looked at tells nobody
            await asyncio.sleep(0.001)
