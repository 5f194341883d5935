"""Exact hits by the bytes of their requests: never otherwise than on the usual way, however the bytes come."""

import asyncio
import hashlib
import itertools
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.contract import Frame, Job, Made
from gateway.callers.auth import Gatekeeper, Key
from gateway.front import Front
from gateway.lane.door import Door
from gateway.lane.groups import Group
from gateway.lane.heads import Heads
from gateway.lane.hits import Hits
from gateway.lane.lane import Lane
from gateway.lane.passing import Passage
from gateway.request import Limits
from gateway.routes import Routes
from gateway.serving.connection import Connection
from gateway.serving.rules import Rules
from gateway.surfaces.anthropic import AnthropicSurface
from gateway.surfaces.native import NativeSurface
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.responses import ResponsesSurface
from tests.client_wire import Wire
from tests.fakes import ANSWER, FakeBackend, FakeEngine, run_virtual
from tests.test_gateway_pipeline import House, house

KEYS = {"one": Limits(600, 100_000, None), "two": Limits(), "poor": Limits(requests_per_minute=3)}


def request(body: object, key: str = "one", path: str = "/v1/chat/completions", **headers: str) -> bytes:
    """Write a request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = {"Host": "x", "Authorization": f"Bearer {key}", **headers, "Content-Length": str(len(data))}
    lines = [f"POST {path} HTTP/1.1", *[f"{name.replace('_', '-')}: {value}" for name, value in head.items()]]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


def chat(text: str = "hi", **more: object) -> dict[str, object]:
    """Return a chat."""
    return {"model": "a", "messages": [{"role": "user", "content": text}], **more}


ASKED = {
    "openai": request(chat()),
    "openai stream": request(chat(stream=True, stream_options={"include_usage": True})),
    "completions": request({"model": "a", "prompt": "hi"}, path="/v1/completions"),
    "responses": request({"model": "a", "input": "hi"}, path="/v1/responses"),
    "responses stream": request({"model": "a", "input": "hi", "stream": True}, path="/v1/responses"),
    "anthropic": request(chat(max_tokens=9), path="/v1/messages", anthropic_version="2023-06-01"),
    "anthropic stream": request(chat(max_tokens=9, stream=True), path="/v1/messages", anthropic_version="2023-06-01"),
    "native": request({"model": "a", "prompt": "hi"}, path="/api/v1/generate"),
}
OTHERS = [
    request(chat(), key="two"),
    request(chat(), key="poor"),
    request(chat(), key="nobody"),
    request(chat("another")),
    request(chat(user="me")),
    request(chat(user="you", metadata={"a": 1})),
    request(chat(user=1)),
    request(b'{"model": "b", "model": "a", "messages": [{"role": "user", "content": "hi"}]}'),
    request(chat(), X_Else="1"),
    request(chat(), Cache_Control="no-cache"),
    request(chat(), Cache_Control="max-age=5"),
    request(chat(), If_None_Match="*"),
    request(chat(), Connection="close"),
    request(chat(temperature=1)),
    request(b'{"model":'),
    request(chat(model="nobody")),
    request(chat()).replace(b"HTTP/1.1", b"HTTP/1.0"),
    b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
]


class Client:
    """A client of a house, with the lane before its connection or without."""

    def __init__(self, built: House, *, with_lane: bool) -> None:
        self.built = built
        digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in KEYS}
        gatekeeper = Gatekeeper([Key(name, digests[name], ("*",), limits) for name, limits in KEYS.items()])
        openai = OpenAISurface()
        surfaces = (openai, ResponsesSurface(), AnthropicSurface(), NativeSurface())
        front = Front(surfaces, {}, built.pipeline, gatekeeper, built.telemetry)
        routes, statistics = Routes(built.routes), built.statistics
        heads = Heads(gatekeeper, 2**16)
        self.hits = Hits(
            routes, built.pools, built.exact, limiter=built.pipeline.accounts._limiter,
            telemetry=built.telemetry, statistics=statistics, clock=built.wall,
        )  # fmt: skip
        front.on_hit = self.hits.learn
        self.by_bytes = 0
        answer = self.hits.reply

        def counted(group: Group, body: bytes) -> bytes | None:
            reply = answer(group, body)
            self.by_bytes += reply is not None
            return reply

        self.hits.reply = counted  # type: ignore[method-assign]
        passage = Passage(openai, routes, built.pools, front, statistics=statistics, deadline_s=100.0)
        self.lane = Lane(heads, self.hits, passage)
        self.rules = Rules(front.serve, front.refuse, 2**16, gatekeeper.identify, self.lane if with_lane else None)
        self.connect()

    def connect(self) -> None:
        """Begin a new connection."""
        self.wire = Wire()
        self.connection = Connection(self.rules, set())
        self.door = Door(self.rules, self.connection)
        self.door.connection_made(self.wire)

    async def send(self, *pieces: bytes) -> bytes:
        """Send pieces one by one, let each be answered as far as it can, and return what was written for them."""
        self.wire.written = b""
        for piece in pieces:
            self.door.data_received(piece)
            for _ in range(200):
                await asyncio.sleep(0)
                if self.connection.task is None:
                    break
        return settled(self.wire.written)

    def accounts(self) -> tuple[object, ...]:
        """Return everything that is counted, apart from times."""
        text = self.built.telemetry.exposition().decode()
        sums = self.built.statistics.of("a")
        accounts = self.built.pipeline.accounts._limiter._accounts
        return (
            [line for line in text.splitlines() if not re.search(r"_(sum|bucket|created)", line)],
            (sums.success.count, sums.fail.count, sums.cache_hit.count, sums.cache_miss.count, sums.queue.count),
            {scope: (each.requests, each.tokens, each.reserved, each.running) for scope, each in accounts.items()},
        )


def settled(data: bytes) -> bytes:
    """Return replies without what differs each time."""
    data = re.sub(rb"(Date|Server-Timing): [^\r]*", rb"\1", data)
    return re.sub(rb"[0-9a-f]{24}", b"ID", data)


Script = Sequence[tuple[Sequence[bytes], float]]
"""Pieces that are sent, each round after some seconds."""


def both(script: Script, engine: type[FakeEngine] = FakeEngine) -> int:
    """Run a script with the lane and without: all must be the same. Return how many the lane answered."""
    (replies, accounts, by_bytes), (usual_replies, usual_accounts, none) = [
        run_virtual(run(script, engine, with_lane=with_lane)) for with_lane in (True, False)
    ]
    for place, (reply, usual) in enumerate(zip(replies, usual_replies, strict=True)):
        assert reply == usual, place
    assert accounts == usual_accounts
    assert none == 0
    return by_bytes


async def run(
    script: Script, engine: type[FakeEngine] = FakeEngine, *, with_lane: bool
) -> tuple[list[tuple[bytes, str]], object, int]:
    """Return the replies to each round and how the connection stood, the accounts, and how many the lane answered."""
    async with house({"a": engine()}) as built:
        client = Client(built, with_lane=with_lane)
        replies: list[tuple[bytes, str]] = []
        for pieces, seconds in script:
            built.wall.now += seconds
            if client.wire.end:
                client.connect()
            replies.append((await client.send(*pieces), client.wire.end))
        return replies, client.accounts(), client.by_bytes


@pytest.mark.parametrize("kind", ASKED)
def test_a_repeat_is_answered_by_its_bytes_and_in_the_usual_words(kind: str) -> None:
    """On every wire, from the third time on; also over a new connection."""
    assert both([((ASKED[kind],), 0.7) for _ in range(6)]) == 4


def test_a_repeat_in_other_bytes_is_answered_by_its_writing() -> None:
    """Another end user, order or spacing each time: known from the first hit on, and then by their bytes too."""
    others = [chat(user=f"user {n}") for n in range(3)]
    spaced = json.dumps(dict(reversed(chat(metadata={"a": "b"}).items())), indent=2).encode()
    asked = [request(chat()), request(chat()), *map(request, others), request(spaced), request(chat()), request(chat())]
    assert both([((each,), 0.7) for each in asked]) == 6


class Echo(FakeBackend):
    """An upstream of OpenAI's wire that says in its reply for whom it is."""

    async def stream(self, job: Job) -> AsyncGenerator[Made, None]:  # type: ignore[override]
        """Yield the reply's bytes and what they say."""
        assert job.verbatim is not None
        user = json.loads(job.verbatim.body).get("user", "")
        yield Frame(b'{"user": "%b"}' % user.encode(), job.verbatim.kind, "application/json")
        for event in ANSWER:
            yield event


class EchoEngine(FakeEngine):
    """Makes echoes."""

    async def start(self) -> FakeBackend:
        """Return one at once."""
        return Echo(self.script)


def test_what_an_upstream_says_of_an_end_user_goes_to_no_other() -> None:
    """The bytes that it sent for one are told again to that one alone, by the lane too."""
    one, two = request(chat(user="one")), request(chat(user="two"))

    asked = [((each,), 0.7) for each in (one, one, two, two, one, two)]
    assert both(asked, EchoEngine) > 0
    replies, _, _ = run_virtual(run(asked, EchoEngine, with_lane=True))
    assert [b'"one"' in reply for reply, _ in replies] == [True, True, False, False, True, False]


def test_the_bytes_of_an_upstream_go_to_no_other_writing() -> None:
    """Who says more, or says it otherwise, gets the usual way's reply, though the lane knows the plain one."""
    plain = json.dumps(chat(), separators=(",", ":"), sort_keys=True).encode()
    others = [request(chat(user="one")), request(chat()), request(chat(metadata={"a": "b"}))]
    asked = [((each,), 0.7) for each in (*[request(plain)] * 3, *others, *others, request(plain))]
    assert both(asked, EchoEngine) > 0


def test_requests_sent_ahead_keep_their_order() -> None:
    """Known and unknown ones in one piece, the last of them cut."""
    known, other = ASKED["openai"], request(chat("another"))
    assert both([((known,), 0), ((known,), 0), ((known + known + other + known + known[:50], known[50:]), 0.5)]) == 2


@settings(max_examples=30, deadline=None)
@given(
    asked=st.lists(st.sampled_from([*ASKED.values(), *OTHERS]), min_size=1, max_size=8),
    cuts=st.lists(st.integers(0, 2000), max_size=6),
    seconds=st.floats(0, 70),
)
def test_any_requests_however_their_bytes_are_cut(asked: list[bytes], cuts: list[int], seconds: float) -> None:
    """Sent several times, so that much is known: whole or in pieces, ahead of the replies or not, later or at once."""
    data = b"".join(asked)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[low:high] for low, high in itertools.pairwise(edges)]
    both([(asked, 0.0), (asked, 0.3), (pieces, 0.3), (asked, seconds), (pieces, 0.0)])


@asynccontextmanager
async def known() -> AsyncIterator[Client]:
    """Have a client whose request is answered by its bytes."""
    async with house({"a": FakeEngine()}) as built:
        client = Client(built, with_lane=True)
        for _ in range(3):
            assert b" 200 OK" in await client.send(ASKED["openai"])
        assert client.by_bytes == 1
        yield client


def test_what_a_cache_has_no_more_is_not_answered() -> None:
    """An entry that was removed, or replaced by another, is asked for anew; so is one whose time is up."""

    async def main() -> None:
        async with known() as client:
            await client.built.exact.clear()
            assert b"fwd=miss" in await client.send(ASKED["openai"])
            assert b"; hit" in await client.send(ASKED["openai"])
            assert client.by_bytes == 1
            await client.send(ASKED["openai"])
            assert client.by_bytes == 2
            client.built.wall.now += 100
            assert b"fwd=miss" in await client.send(ASKED["openai"])

    run_virtual(main())


def test_an_unloaded_model_answers_nobody() -> None:
    """What its cache has included."""

    async def main() -> None:
        async with known() as client:
            client.built.pools["a"].rest(resting=True)
            assert (await client.send(ASKED["openai"])).startswith(b"HTTP/1.1 404 ")

    run_virtual(main())


def test_who_does_not_read_is_waited_for() -> None:
    """While its replies pile up no more than one is made, and nothing is read any more."""

    async def main() -> None:
        async with known() as client:
            client.door.pause_writing()
            await client.send(ASKED["openai"])
            await client.send(ASKED["openai"])
            assert client.by_bytes == 1
            assert client.wire.paused
            client.wire.written = b""
            client.door.resume_writing()
            for _ in range(20):
                await asyncio.sleep(0)
            assert client.wire.written.count(b" 200 OK") == 1
            assert not client.wire.paused

    run_virtual(main())


def test_replies_are_let_go_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked again outlives what is not; all stay within a bound."""
    monkeypatch.setattr("gateway.lane.hits._MOST_BYTES", 8 * 2**10)

    async def main() -> None:
        async with known() as client:
            for number in range(20):
                other = request(chat(f"question {number}"))
                for _ in range(2):
                    await client.send(other)
                before = client.by_bytes
                await client.send(ASKED["openai"])
                assert client.by_bytes == before + 1
            before = client.by_bytes
            await client.send(request(chat("question 0")))
            assert client.by_bytes == before

    run_virtual(main())


def test_an_operator_can_ask_what_a_request_was_answered_with() -> None:
    """By the id that its reply bore."""

    async def main() -> None:
        async with known() as client:
            client.wire.written = b""
            client.door.data_received(ASKED["openai"])
            told = re.search(rb"X-Request-Id: ([0-9a-f]{24})", client.wire.written)
            assert told is not None
            key = client.hits.key_of(told[1].decode())
            assert key is not None
            assert client.built.exact.peek(key) is not None
            assert client.hits.key_of("f" * 24) is None

    run_virtual(main())
