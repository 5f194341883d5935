"""Requests that cannot be served: each gets one clear answer in the right shape, and the program goes on."""

import http.client
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from scripts.running_gateway import RunningGateway
from tests.e2e.program import call, chat, chat_body, text_of

LIMIT = 64 * 1024


@pytest.fixture(autouse=True)
def goes_on(gateway: RunningGateway) -> Iterator[None]:
    """Check that the next request is served, whatever a test sent."""
    yield
    assert text_of(chat(gateway.url, "echo", "still there?")) == "echo: still there?"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b"", None, "the body is not valid JSON"),
        (b'{"model": "atlas", "messages": [', None, "the body is not valid JSON"),
        (b'\xff\xfe{"model"', None, "the body is not valid JSON"),
        (b"[1, 2]", None, "must be a JSON object, got [1,2]"),
        (b'{"messages": []}', "messages", "a non-empty list of messages, got []"),
        (b'{"model": 7, "messages": [{"role": "user", "content": "x"}]}', "model", "a non-empty string, got 7"),
        (b'{"model": "atlas", "messages": [{"role": "robot", "content": "x"}]}', "messages[0].role", "system, develop"),
        (b'{"model": "atlas", "messages": [{"role": "user", "content": 5}]}', "messages[0].content", "got 5"),
        (json.dumps(chat_body("atlas", "x", stream="yes")).encode(), "stream", 'true or false, got "yes"'),
        (json.dumps(chat_body("atlas", "x", max_tokens="many")).encode(), "max_tokens", 'got "many"'),
        (json.dumps(chat_body("atlas", "x", seed=1.5)).encode(), "seed", "a whole number"),
        (json.dumps(chat_body("atlas", "x", stop=["a"] * 5)).encode(), "stop", "at most 4"),
        (json.dumps(chat_body("atlas", "word " * 5000)).encode(), "messages", "tokens"),
        (json.dumps(chat_body("atlas", "")).encode(), "messages", ""),
    ],
)
def test_bad_chat_names_the_field_the_value_and_what_is_allowed(
    gateway: RunningGateway, body: bytes, param: str | None, words: str
) -> None:
    """A chat that cannot be understood or served is a 400 that names the field, its value and what is allowed."""
    answered = call(gateway.url, "POST", "/v1/chat/completions", body)

    assert answered.status == 400, answered.body
    assert answered.error["type"] == "invalid_request_error"
    assert answered.error["param"] == param
    assert words in answered.error["message"]
    assert answered.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("value", [[], "", 5, [[]], ["a", 5], [-1], {"text": "a"}])
def test_bad_embedding_input(gateway: RunningGateway, value: object) -> None:
    """An input that is neither text nor tokens is a 400 that names it."""
    answered = call(gateway.url, "POST", "/v1/embeddings", {"model": "minilm", "input": value})

    assert answered.status == 400
    assert answered.error["param"].startswith("input")


def test_unknown_model(gateway: RunningGateway) -> None:
    """A name that nobody configured is a 404 that lists those that there are."""
    answered = chat(gateway.url, "gpt-99", "hello")

    assert answered.status == 404
    assert answered.error["code"] == "model_not_found"
    assert "'gpt-99' does not exist; there are: minilm, atlas" in answered.error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/chat/completions", 405), ("POST", "/metrics", 405), ("POST", "/v1/nothing", 404), ("GET", "/", 404)],
)
def test_wrong_path_or_method(gateway: RunningGateway, method: str, path: str, status: int) -> None:
    """A path that is not served, or not with this method, is told apart."""
    answered = call(gateway.url, method, path)

    assert answered.status == status
    assert path in answered.error["message"]


def test_announced_body_over_the_limit(gateway: RunningGateway) -> None:
    """A Content-Length above the limit is refused before the body is read."""
    answered = chat(gateway.url, "echo", "x" * LIMIT)

    assert answered.status == 413
    assert f"at most {LIMIT} bytes are read (server.max_body)" in answered.error["message"]


def test_chunked_body_over_the_limit(gateway: RunningGateway) -> None:
    """A body that announces no length is refused once it has passed the limit."""
    answered = call(gateway.url, "POST", "/v1/chat/completions", iter([b"x" * 1024] * 65))

    assert answered.status == 413
    assert f"at most {LIMIT} bytes" in answered.error["message"]


def test_body_just_below_the_limit_is_served(gateway: RunningGateway) -> None:
    """The limit itself is allowed."""
    room = LIMIT - len(json.dumps(chat_body("echo", "")))

    assert chat(gateway.url, "echo", "x" * room).status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"no http at all\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
    ids=["no-http", "bad-length", "bad-chunk", "long-header"],
)
def test_bytes_that_are_no_request(gateway: RunningGateway, sent: bytes) -> None:
    """What is no HTTP gets a 400 and the connection's end, never a hang."""
    where = urlsplit(gateway.url)
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        connection.sendall(sent)
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 400
        response.read()


def test_bad_cache_control(gateway: RunningGateway) -> None:
    """A max-age that is no number is refused, not ignored."""
    body = chat_body("echo", "hello")
    answered = call(gateway.url, "POST", "/v1/chat/completions", body, **{"Cache-Control": "max-age=soon"})

    assert answered.status == 400
    assert "max-age must be a whole number of seconds, got 'soon'" in answered.error["message"]
