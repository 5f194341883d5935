"""Gateways that share a tier: one answer for all of them, one call for all of them, and no harm from its troubles."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.program import Stream, chat, metric, text_of, until
from tests.e2e.shared_house import House, house


@pytest.fixture(scope="module")
def shared() -> Iterator[House]:
    """Two gateways for the tests that do no harm to them or to the server."""
    with house() as made:
        yield made


def test_what_one_gateway_was_answered_the_other_serves(shared: House) -> None:
    """An answer is made once, is a hit on the other gateway, and keeps its age and what it says."""
    one, other = shared.urls
    before = shared.upstream.asked()
    first = chat(one, "echo", "for all of us")
    until(lambda: metric(one, "warmgate_cache_events_total", tier="shared", event="writes") >= 1, "it is written")

    again = chat(other, "echo", "for all of us")
    assert text_of(again) == text_of(first) == "echo: for all of us"
    assert again.headers["cache-status"].startswith("warmgate; hit")
    with Stream(other, "echo", "for all of us") as stream:
        assert "".join(stream.texts()) == "echo: for all of us"
    assert shared.upstream.asked() == before + 1


def test_the_same_request_at_the_same_time_is_one_call(shared: House) -> None:
    """Whole answers and streams, on both gateways at once: the model is asked once, and all say the same."""
    before = shared.upstream.asked()
    text = "slow " + "words " * 20

    def ask(number: int) -> str:
        url = shared.urls[number % 2]
        if number % 4 < 2:
            return text_of(chat(url, "echo", text))
        with Stream(url, "echo", text) as stream:
            return "".join(stream.texts())

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(ask, range(8)))
    assert answers == {f"echo: {text}".rstrip()}
    assert shared.upstream.asked() == before + 1
