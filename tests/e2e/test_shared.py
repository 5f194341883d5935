"""Gateways that share a tier: one answer for all of them, one call for all of them, and no harm from its troubles."""

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.edits import editing
from tests.e2e.program import Stream, call, chat, config, metric, started, text_of, until
from tests.e2e.shared_house import House, house, upstream, with_shared
from tests.redis_server import RedisServer

# What a request may take longer for a tier that is known to be down: a miss here takes a few milliseconds.
NO_NOTABLE_LATENCY = 1.5
LONG = "slow " + "words " * 60


@pytest.fixture(scope="module")
def shared() -> Iterator[House]:
    """Two gateways for the tests that do no harm to them or to the server."""
    with house() as made:
        yield made


def written(url: str, count: int) -> None:
    """Wait until a gateway has written so many answers to the tier."""
    until(lambda: metric(url, "warmgate_cache_events_total", tier="shared", event="writes") >= count, "it is written")


def test_what_one_gateway_was_answered_the_other_serves(shared: House) -> None:
    """An answer is made once and is a hit on the other gateway, whole and as a stream."""
    one, other = shared.urls
    before = shared.upstream.asked()
    first = chat(one, "echo", "for all of us")
    written(one, 1)

    again = chat(other, "echo", "for all of us")
    assert text_of(again) == text_of(first) == "echo: for all of us"
    assert again.headers["cache-status"].startswith("warmgate; hit")
    with Stream(other, "echo", "for all of us") as stream:
        assert "".join(stream.texts()) == "echo: for all of us"
    assert shared.upstream.asked() == before + 1


def test_the_same_request_at_the_same_time_is_one_call(shared: House) -> None:
    """Whole answers and streams on both gateways, in the midst of a stream: one call, and all have all of it."""
    before = shared.upstream.asked()

    def ask(number: int) -> str:
        url = shared.urls[number % 2]
        if number % 4 < 2:
            return text_of(chat(url, "echo", LONG))
        with Stream(url, "echo", LONG) as stream:
            return "".join(stream.texts())

    with ThreadPoolExecutor(8) as pool, Stream(shared.urls[0], "echo", LONG) as first:
        pieces = first.texts()
        begun = next(pieces)
        answers = set(pool.map(ask, range(8)))
        assert {begun + "".join(pieces)} == answers == {f"echo: {LONG}".rstrip()}
    assert shared.upstream.asked() == before + 1
    assert metric(shared.urls[1], "warmgate_cache_events_total", tier="shared", event="followed") >= 1


def test_after_an_answer_that_fails_each_gateway_asks_for_itself(shared: House) -> None:
    """An error is nobody's but its client's: it is not shared, and nobody waits in turn for the next one."""
    one, other = shared.urls
    with ThreadPoolExecutor(2) as pool:
        assert [each.status for each in pool.map(lambda url: chat(url, "echo", "status-500 slow"), (one, other))] == [
            502,
            502,
        ]
    assert chat(other, "echo", "status-500 slow").status == 502


def test_a_purge_on_one_gateway_ends_the_answer_on_the_other(shared: House) -> None:
    """What both had in memory is made anew by whoever is asked first, and shared again."""
    one, other = shared.urls
    for url in (one, other):
        assert text_of(chat(url, "echo", "to be purged")) == "echo: to be purged"
    before = shared.upstream.asked()
    assert call(one, "POST", "/admin/cache/purge", {"model": "echo"}).status == 200
    until(
        lambda: chat(other, "echo", "to be purged").headers["cache-status"].startswith("warmgate; fwd=miss"),
        "the other gateway has heard of it",
    )
    assert text_of(chat(one, "echo", "to be purged")) == "echo: to be purged"
    assert shared.upstream.asked() == before + 1


def test_the_operator_sees_the_tier(shared: House) -> None:
    """Its counters are in the metrics and on the page of the cache; its password and its place are on neither."""
    one = shared.urls[0]
    assert metric(one, "warmgate_cache_shared_up") == 1
    page = call(one, "GET", "/admin/cache").json()
    assert "led" in str(page)
    assert "unix" not in f"{page}{call(one, 'GET', '/admin/config').json()['settings']['cache']['shared']}"


def test_a_leader_that_is_killed_is_succeeded() -> None:
    """A gateway dies in the midst of a stream that another waits for: that one makes the answer, and nothing fails."""
    with house() as made:
        one, other = made.gateways
        with Stream(one.url, "echo", LONG) as stream, ThreadPoolExecutor(1) as pool:
            next(stream.texts())
            waits = pool.submit(chat, other.url, "echo", LONG)
            until(lambda: metric(other.url, "warmgate_cache_events_total", tier="shared", event="misses"), "it asks")
            assert made.upstream.asked() == 1
            one.process.kill()
            one.process.wait()
            assert text_of(waits.result()) == f"echo: {LONG}".rstrip()
        assert made.upstream.asked() == 2


def test_a_wait_that_is_too_long_ends_in_a_call_of_its_own() -> None:
    """A stream that takes longer than others wait for it is made twice, and both clients have all of it."""
    with house(shared="timeout: 2s, wait: 100ms") as made:
        one, other = made.urls
        with Stream(one, "echo", LONG) as stream:
            next(stream.texts())
            with Stream(other, "echo", LONG) as second:
                assert "".join(second.texts()) == f"echo: {LONG}".rstrip()
        assert made.upstream.asked() == 2


@pytest.mark.parametrize("harm", ["kill", "pause"])
def test_a_tier_that_is_down_costs_misses_and_no_latency(harm: str) -> None:
    """Killed or paused in the midst: no request fails, and once that is known none is slower than without a tier."""
    with ExitStack() as stack:
        made = stack.enter_context(house(1, shared="timeout: 50ms"))
        directory = Path(made.gateways[0].log).parent / "plain"
        directory.mkdir()
        plain, _ = stack.enter_context(started(config(directory, made.upstream.model()), directory))
        with_tier = made.urls[0]
        assert chat(with_tier, "echo", "before").status == 200
        getattr(made.redis, harm)()
        number = 0
        while metric(with_tier, "warmgate_cache_shared_up"):
            number += 1
            assert text_of(chat(with_tier, "echo", f"meanwhile {number}")) == f"echo: meanwhile {number}"
            assert number < 50
        seconds: dict[str, list[float]] = {with_tier: [], plain.url: []}
        for turn in range(120):
            for url, taken in seconds.items():
                begun = time.perf_counter()
                assert text_of(chat(url, "echo", f"turn {turn}")) == f"echo: turn {turn}"
                taken.append(time.perf_counter() - begun)
        medians = [statistics.median(taken) for taken in seconds.values()]
        assert medians[0] < NO_NOTABLE_LATENCY * medians[1], medians
        assert chat(with_tier, "echo", "before").headers["cache-status"].startswith("warmgate; hit")
        if harm == "pause":
            made.redis.resume()
        else:
            made.redis.start()
        until(lambda: metric(with_tier, "warmgate_cache_shared_up"), "it is asked again")


def test_an_edit_opens_moves_and_closes_the_tier(tmp_path: Path) -> None:
    """While it runs: answers made before stay in memory, the new tier gets what comes, and is let go of again."""
    with ExitStack() as stack:
        places = [tmp_path / name for name in ("a", "b")]
        for place in places:
            place.mkdir()
        servers = [RedisServer(place) for place in places]
        for server in servers:
            stack.callback(server.kill)
        model = stack.enter_context(upstream())
        house = stack.enter_context(editing(tmp_path, model.model()))
        assert chat(house.url, "echo", "first").status == 200
        for turn, server in enumerate(servers):
            house.edit(with_shared(house.text(model.model()), server.url, "timeout: 2s"))
            until(lambda: metric(house.url, "warmgate_cache_shared_up"), "the tier is up")
            assert chat(house.url, "echo", "first").headers["cache-status"].startswith("warmgate; hit")
            assert chat(house.url, "echo", f"turn {turn}").status == 200
            written(house.url, 1)
            assert server.command("DBSIZE") != b":0\r\n"
        house.edit(house.text(model.model()))
        until(lambda: b"connected_clients:1\r\n" in servers[1].command("INFO", "clients"), "nobody is connected")
        assert chat(house.url, "echo", "turn 1").headers["cache-status"].startswith("warmgate; hit")
        assert model.asked() == 3
