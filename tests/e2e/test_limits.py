"""Keys and their limits with the real program, as the official client sees them; and nothing secret in the log."""

import hashlib
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import openai
import pytest

from scripts.running_gateway import RunningGateway
from tests.e2e.program import (
    DEADLINE_S,
    ECHO,
    Answered,
    call,
    chat_body,
    config,
    connect,
    in_flight,
    metric,
    started,
    until,
)

OPEN, SLOW, WORDY, ALONE = "sk-marked-open", "sk-marked-few", "sk-marked-wordy", "sk-marked-alone"
MARK = "zebra-marked-prompt"


def key(name: str, secret: str, **limits: object) -> dict[str, object]:
    """Write a key's settings."""
    return {"name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest(), **limits}


KEYS = [
    key("open", OPEN),
    key("few", SLOW, requests_per_minute=2, tokens_per_minute=100_000),
    key("wordy", WORDY, tokens_per_minute=60),
    key("alone", ALONE, concurrency=1, models=["echo"]),
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """Serve one model to four keys, and log as much as there is."""
    directory = tmp_path_factory.mktemp("limits")
    text = config(directory, ECHO, server=f"max_body: 64KiB, keys: {json.dumps(KEYS)}")
    with started(text, directory, log_level="debug") as (running, _):
        yield running


def ask(gateway: RunningGateway, secret: str, text: str, **more: object) -> Answered:
    """Ask one question with a key."""
    body = chat_body("echo", text, **more)
    return call(gateway.url, "POST", "/v1/chat/completions", body, Authorization=f"Bearer {secret}")


def test_explain_tells_of_the_key_that_is_named(gateway: RunningGateway) -> None:
    """What is cached for one key is told of that key alone; a name that there is not is refused by name."""
    ask(gateway, OPEN, "explained")
    question: dict[str, object] = {"path": "/v1/chat/completions", "body": chat_body("echo", "explained")}
    found = {}
    for scope in ("open", "alone", "", None):
        explained = call(gateway.url, "POST", "/admin/explain", {**question, "scope": scope}).json()
        found[scope] = explained["cache"]["exact"] is not None
        assert explained["features"]["scope"] == (f"key:{scope}" if scope else "")
    assert found == {"open": True, "alone": False, "": False, None: False}
    unknown = call(gateway.url, "POST", "/admin/explain", {**question, "scope": "opne"})
    assert unknown.status == 400
    assert "'scope' must be the name of a key: open, few, wordy, alone, got" in unknown.body.decode()
    assert call(gateway.url, "POST", "/admin/explain", {**question, "key": "open"}).status == 400


def test_requests_per_minute(gateway: RunningGateway) -> None:
    """Each answer counts down; then a 429 in OpenAI's shape says when to come again, and another key is served."""
    left = [ask(gateway, SLOW, f"one of few {turn}").headers["x-ratelimit-remaining-requests"] for turn in range(2)]
    refused = ask(gateway, SLOW, "one too many")

    assert left == ["1", "0"]
    assert refused.status == 429
    assert refused.error["code"] == "rate_limit_exceeded"
    assert refused.headers["x-should-retry"] == "true"
    assert refused.headers["x-ratelimit-limit-requests"] == "2"
    assert 0 < int(refused.headers["retry-after"]) <= 30
    assert 0 < int(refused.headers["retry-after-ms"]) <= 30_000
    assert ask(gateway, OPEN, "somebody else").status == 200


def test_tokens_per_minute_with_the_official_client(gateway: RunningGateway) -> None:
    """What an answer took is settled; a request that could never pass is not tried again by the client."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=WORDY, max_retries=2) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="echo", messages=[{"role": "user", "content": "few words"}], max_tokens=8
        )
        assert raw.headers["x-ratelimit-remaining-tokens"] < "60"
        before = metric(
            gateway.url, "warmgate_requests_total", surface="openai", model="echo", status="429", cache="none"
        )
        with pytest.raises(openai.RateLimitError, match="the key has 60 per minute"):
            client.chat.completions.create(
                model="echo", messages=[{"role": "user", "content": "too many words"}], max_tokens=600
            )
    again = ask(gateway, WORDY, "few words", max_tokens=8)

    assert again.headers["x-ratelimit-limit-tokens"] == "60"
    assert 0 <= int(again.headers["x-ratelimit-remaining-tokens"]) < 60
    after = metric(gateway.url, "warmgate_requests_total", surface="openai", model="echo", status="429", cache="none")
    assert after - before == 1


def test_concurrency(gateway: RunningGateway) -> None:
    """While a stream runs its key has no second place; when its client leaves, the place is free."""
    with closing(connect(gateway.url)) as client:
        body = json.dumps(chat_body("echo", "stall for alone", stream=True))
        client.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {ALONE}"})
        until(lambda: in_flight(gateway.url, "echo"), "the stream runs")
        refused = ask(gateway, ALONE, "second")
        assert refused.status == 429
        assert "1 of 1 requests running" in refused.error["message"]

    until(lambda: ask(gateway, ALONE, "third").status == 200, "the place is free again")


def test_key_is_looked_at_before_a_long_body(gateway: RunningGateway) -> None:
    """A stranger who announces a body is refused before sending it; with a key the client is told to go on."""
    where = urlsplit(gateway.url)
    for secret, expected in ((b"sk-stranger", b"HTTP/1.1 401 "), (OPEN.encode(), b"HTTP/1.1 100 ")):
        with socket.create_connection((where.hostname, where.port), timeout=DEADLINE_S) as client:
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                b"Authorization: Bearer " + secret + b"\r\nContent-Length: 60000\r\n\r\n"
            )
            assert client.recv(1000).startswith(expected)


def test_nothing_secret_is_logged_or_told(gateway: RunningGateway) -> None:
    """Good, bad, failing and refused requests leave neither a key nor a prompt in the log or in an error."""
    bodies = [
        chat_body("echo", f"{MARK} {way}".strip(), stream=stream)
        for way in ("", "die", "cut", "garbage", "break", "status-400", "status-429", "status-500")
        for stream in (False, True)
    ]
    bad = [{"model": "echo", "messages": MARK}, {"model": MARK}, {"model": "echo", "messages": [{"role": MARK}]}]
    for body in bodies:
        ask_raw(gateway, OPEN, body)
    told = [ask_raw(gateway, secret, body) for body in bad for secret in (OPEN, "sk-marked-unknown", ALONE)]
    told.append(call(gateway.url, "POST", f"/v1/{MARK}", {"x": MARK}, Authorization=f"Bearer {OPEN}"))

    log = gateway.log_text()
    assert "DEBUG" in log or "INFO" in log
    assert "sk-marked" not in log
    assert MARK not in log
    assert not [answer.body for answer in told if b"sk-marked" in answer.body]
    assert "unexpected error" not in log


def ask_raw(gateway: RunningGateway, secret: str, body: dict[str, object]) -> Answered:
    """Send a body with a key."""
    return call(gateway.url, "POST", "/v1/chat/completions", body, Authorization=f"Bearer {secret}")
