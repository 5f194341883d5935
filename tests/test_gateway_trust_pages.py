"""The operator's pages of what was learned: certificates, feedback also after a restart, and what was decided."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
import pytest

from backends.contract import Finish, Job, Task, Text
from cache.contract import Entry, Meaning
from cache.semantic.evidence import Evidence, Match, Miss, Reason, pair_of
from cache.semantic.guards import Veto
from cache.trust.contract import Decision
from cache.trust.journal import Journal
from cache.trust.live import LiveTrust
from cache.trust.state import Policy
from gateway.analyze import CachePolicy, analyze
from gateway.answer import Answer, Head
from gateway.caching.cache_control import CacheStatus
from gateway.callers.limits import Limiter
from gateway.errors import Forbidden, InvalidRequest, UnknownNamespace, UnknownPath, UnknownRequest
from gateway.pages.trust_pages import TrustPages
from gateway.query import Outcome, Sought
from gateway.request import Caller, Directives, Request
from gateway.surfaces.wire import Call, Reply
from gateway.trust.explaining import line
from gateway.trust.recent import Recent

ANYONE = Caller(scope="")
PARTITION = b"p" * 32
KEY = b"k" * 32
ASKED, STORED = "What is the price of 40 Äpfel?", 'What is the price of "14" apples?'


def sought(
    decision: Decision | None, *vetoes: Veto, similarity: float = 0.9417, reason: Reason = "below-threshold"
) -> Sought:
    """Make what a search came to that weighed one stored question."""
    asked, stored = Meaning(PARTITION, ASKED, b""), Meaning(PARTITION, STORED, b"")
    entry = Entry(KEY, b"", 0.0, 60.0, stored)
    confidence = None if decision is None else decision.confidence
    best = Evidence(entry, STORED, pair_of(asked, stored), similarity, 0.0219, vetoes, confidence, decision)
    if decision is not None and decision.serve:
        return Sought("n", ASKED, Match(best, (best,)))
    return Sought("n", ASKED, Miss("vetoed" if vetoes else reason, best, (best,)))


def outcome(found: Sought | None, *, hit: bool = True) -> Outcome:
    """Make what the pipeline came to."""
    job = Job(Task.CHAT)
    features = analyze(Request("m", job, {"messages": []}), ANYONE, Directives(), CachePolicy(), 60.0)
    detail = "exact" if found is None else "semantic"
    status = CacheStatus(hit=True, detail=detail) if hit else CacheStatus(forward="miss")
    head = Head("m", "m-1", 1.0)
    permit = Limiter(lambda: 0.0).admit(ANYONE, 0)
    answer = Answer(head, (Text("x"), Finish("stop")))
    return Outcome(head, status, 0.0, features, permit, job, 0.0, answer=answer, sought=found)


class House:
    """The pages over trust and memory, with or without a file."""

    def __init__(self, trust: LiveTrust, recent: Recent) -> None:
        self.trust, self.recent = trust, recent
        self.forgotten: list[bytes] = []
        self.pages = TrustPages(recent, trust, self._forget, lambda: 100.0)

    async def _forget(self, key: bytes) -> bool:
        self.forgotten.append(key)
        return True

    async def get(self, path: str, query: str = "", peer: str = "127.0.0.1", **names: str) -> Any:
        """Read a page."""
        return await self._call(path, Call("GET", path, {}, b"", peer, query=query, names=names))

    async def feedback(self, body: object) -> Any:
        """Tell of a request."""
        path = "/admin/cache/feedback"
        return await self._call(path, Call("POST", path, {}, orjson.dumps(body), "127.0.0.1"))

    async def _call(self, path: str, call: Call) -> Any:
        page: Callable[[Call], Awaitable[Reply]] = self.pages.table()[call.method, path]
        reply = await page(call)
        assert isinstance(reply.body, bytes)
        return orjson.loads(reply.body)


async def opened(file: Path | None = None, target: float | None = 0.01) -> House:
    """Open the pages, over a file where one is given."""
    journal = None if file is None else Journal(file)
    kept = None if journal is None else await journal.open()
    trust = LiveTrust(Policy(target, 0.9), "v1", journal, kept, chance=lambda: 0.9)
    return House(trust, Recent(journal))


SERVED = Decision(True, "certified", 0.993, 0.97, audit=True, share=0.5)


def test_feedback_on_a_hit_refuses_the_pair_once() -> None:
    """Told twice, it is refused and learned of once; told to be right, nothing changes."""

    async def run() -> None:
        house = await opened()
        found = sought(SERVED)
        house.recent.note("r1", outcome(found))
        assert await house.feedback({"request_id": "r1", "wrong": False}) == {"removed": None, "kept": True}
        for _ in range(2):
            assert await house.feedback({"request_id": "r1", "wrong": True}) == {"removed": "pair", "kept": True}
        assert house.trust.is_refused(found.found.best.pair)  # type: ignore[union-attr]
        ((_, state),) = house.trust.states()
        assert (state.labels, house.forgotten) == ((0, 0, 2), [])

    asyncio.run(run())


def test_feedback_is_taken_after_a_restart_too(tmp_path: Path) -> None:
    """A hit of the process before is known by its id, without any text having been written."""

    async def before() -> None:
        house = await opened(tmp_path / "trust.db")
        house.recent.note("r1", outcome(sought(SERVED)))
        await house.trust.close()

    async def after() -> None:
        house = await opened(tmp_path / "trust.db")
        assert (await house.feedback({"request_id": "r1", "wrong": True}))["kept"]
        assert house.trust.refused == 1
        await house.trust.close()

    asyncio.run(before())
    asyncio.run(after())
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"price" not in written


def test_feedback_on_an_exact_hit_removes_its_entry() -> None:
    """The entry goes; one that was right stays."""

    async def run() -> None:
        house = await opened()
        house.recent.note("r1", outcome(None))
        await house.feedback({"request_id": "r1", "wrong": False})
        assert house.forgotten == []
        assert (await house.feedback({"request_id": "r1", "wrong": True}))["removed"] == "entry"
        assert len(house.forgotten) == 1

    asyncio.run(run())


@pytest.mark.parametrize("body", [{"request_id": "r"}, {"wrong": True}, {"request_id": "r", "wrong": 1}, {"x": 1}, []])
def test_feedback_that_says_nothing_clear_is_refused(body: object) -> None:
    """The field that is at fault is named."""

    async def run() -> None:
        with pytest.raises(InvalidRequest):
            await (await opened()).feedback(body)

    asyncio.run(run())


def test_what_nobody_knows_is_not_found() -> None:
    """An unknown id is a 404, for feedback and for an explanation; so is everything without a semantic cache."""

    async def run() -> None:
        house = await opened()
        house.recent.note("miss", outcome(sought(Decision(False, "below-threshold", 0.8, 0.9)), hit=False))
        for name in ("nobody", "miss"):
            with pytest.raises(UnknownRequest):
                await house.feedback({"request_id": name, "wrong": True})
        with pytest.raises(UnknownRequest):
            await house.get("/admin/explain/{request}", request="nobody")
        house.pages = TrustPages(None, None, house._forget)
        with pytest.raises(UnknownPath, match=r"cache\.semantic"):
            await house.get("/admin/cache/certificate")
        with pytest.raises(UnknownPath, match="'cache'"):
            await house.feedback({"request_id": "r1", "wrong": True})

    asyncio.run(run())


def test_the_exact_cache_alone_takes_feedback_and_explains() -> None:
    """No section of meanings is needed; what is no hit is explained too, and a list's inputs are removed each."""

    async def run() -> None:
        recent, forgotten = Recent(clock=lambda: 7.0), list[bytes]()

        async def forget(key: bytes) -> bool:
            forgotten.append(key)
            return True

        table = TrustPages(recent, None, forget).table()

        async def explained(name: str) -> Any:
            call = Call("GET", "", {}, b"", "127.0.0.1", names={"request": name})
            reply = await table["GET", "/admin/explain/{request}"](call)
            assert isinstance(reply.body, bytes)
            return orjson.loads(reply.body)

        recent.note("miss", outcome(None, hit=False))
        recent.note("hit", outcome(None))
        recent.note("list", replace(outcome(None), parts=(b"a", b"b")))
        recent.served_by_bytes = {"bytes": KEY}.get
        told, hit = await explained("miss"), await explained("hit")
        assert (told["at"], told["outcome"], told["cache_status"]) == (7.0, "miss", "warmgate; fwd=miss")
        assert (told["model"], told["version"], told["reason"]) == ("m", "m-1", "unstated")
        assert (told["candidates"], told["line"], told["asked"]) == ([], None, None)
        assert hit["key"] == told["key"] is not None
        assert (await explained("bytes"))["key"] == KEY.hex()
        for name, count in (("hit", 1), ("list", 3), ("bytes", 4)):
            body = orjson.dumps({"request_id": name, "wrong": True})
            await table["POST", "/admin/cache/feedback"](Call("POST", "", {}, body, "127.0.0.1"))
            assert len(forgotten) == count
        assert forgotten[0].hex() == hit["key"]

    asyncio.run(run())


def test_certificates_are_of_all_namespaces_or_of_one() -> None:
    """Each has its own; without a target there is none."""

    async def run() -> None:
        house = await opened()
        pair = sought(SERVED).found.best.pair  # type: ignore[union-attr]
        for name in ("chat/b/", "chat/a/"):
            house.trust.decide(name, pair, 0.95)
        told = await house.get("/admin/cache/certificate")
        assert [each["namespace"] for each in told["namespaces"]] == ["chat/a/", "chat/b/"]
        assert (told["target"], told["date"], told["judged_by"]) == (0.01, 100.0, "v1")
        (one,) = (await house.get("/admin/cache/certificate", "namespace=chat%2Fb%2F"))["namespaces"]
        assert (one["namespace"], one["upper_bound"], one["served"]["hits"]) == ("chat/b/", 1.0, 1)
        with pytest.raises(UnknownNamespace, match="'chat/c/'; there are: 'chat/a/', 'chat/b/'"):
            await house.get("/admin/cache/certificate", "namespace=chat%2Fc%2F")
        with pytest.raises(InvalidRequest):
            await house.get("/admin/cache/certificate", "name=x")
        with pytest.raises(Forbidden):
            await house.get("/admin/cache/certificate", peer="10.0.0.1")
        free = await opened(target=None)
        free.trust.decide("n", pair, 0.95)
        assert (await free.get("/admin/cache/certificate"))["namespaces"] == []

    asyncio.run(run())


def test_a_decision_is_explained_by_its_request() -> None:
    """Both texts, every guard's verdict and what would have had to be otherwise are told."""

    async def run() -> None:
        house = await opened()
        veto = Veto("numbers", "14 against 40")
        house.recent.note("r1", outcome(sought(None, veto), hit=False))
        told = await house.get("/admin/explain/{request}", request="r1")
        assert (told["asked"], told["outcome"], told["namespace"]) == (ASKED, "miss", "n")
        (candidate,) = told["candidates"]
        assert candidate["counterfactual"] == "blocked by numbers: 14 against 40"
        assert any(guard["guard"] == "numbers" and guard["reason"] for guard in candidate["guards"])

    asyncio.run(run())


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (sought(SERVED), "semantic; sim=0.941; conf=0.993; tau=0.97; margin=0.021; certified; audit"),
        (
            sought(Decision(False, "below-threshold", 0.9417, 0.97)),
            'miss; reason=below-threshold; sim=0.941; conf=0.941; tau=0.97; margin=0.021; "would hit at tau<=0.941"',
        ),
        (
            sought(None, Veto("numbers", 'Ä"14"\n against 40 %')),
            "miss; reason=vetoed; sim=0.941; margin=0.021; \"blocked by numbers: %C3%84'14'  against 40 %25\"",
        ),
        (
            sought(Decision(False, "request", 0.9417, 0.9), reason="request"),
            (
                "miss; reason=request; sim=0.941; conf=0.941; tau=0.9; margin=0.021; "
                '"would hit but for the Cache-Control of the request"'
            ),
        ),
        (sought(None, similarity=0.3), 'miss; reason=below-threshold; sim=0.3; margin=0.021; "is another question"'),
        (Sought("n", ASKED, Miss("empty")), "miss; reason=empty"),
    ],
)
def test_a_header_says_it_in_a_line(found: Sought, said: str) -> None:
    """What a search came to fits a header, whatever clients wrote."""
    assert line(found) == said


@pytest.mark.parametrize("start", range(10))
def test_a_header_that_is_cut_has_no_half_a_letter(start: int) -> None:
    """What is beyond ASCII reads as what it was, wherever the line is cut."""
    words = "x" * start + "東京タワー" * 9
    said = line(sought(None, Veto("negation", words)))

    assert said.isascii()
    assert 230 < len(said) <= 240
    assert unquote(said, errors="strict").split("negation: ")[1] in words


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest hits and decisions go first."""
    monkeypatch.setattr("gateway.trust.recent._MOST_HITS", 2)
    monkeypatch.setattr("gateway.trust.recent._MOST_DECISIONS", 2)

    async def run() -> None:
        recent = Recent(None)
        for at in range(4):
            recent.note(f"r{at}", outcome(sought(SERVED)))
        assert [await recent.hit(f"r{at}") is not None for at in range(4)] == [False, False, True, True]
        recent.note("list", replace(outcome(None), parts=(b"a", b"b")))
        assert [await recent.hit(name) is not None for name in ("r3", "list")] == [False, True]
        assert [recent.decision(f"r{at}") is not None for at in range(4)] == [False, False, False, True]

    asyncio.run(run())
