"""Requests that cannot be served: each gets one clear answer in the right shape, and the program goes on."""

import contextlib
import gzip
import http.client
import json
import socket
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import psutil
import pytest

from scripts.running_gateway import RunningGateway
from tests.e2e.program import Answered, call, chat, chat_body, text_of

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
        (b'{"messages": []}', "messages", "a non-empty list of messages, at most 16384, got []"),
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
    ("sent", "status"),
    [
        (b"no http at all\r\n\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 2**20 + b"\r\n\r\n", 431),
    ],
    ids=["no-http", "bad-length", "bad-chunk", "http-2", "no-host", "long-header"],
)
def test_bytes_that_are_no_request(gateway: RunningGateway, sent: bytes, status: int) -> None:
    """What is no HTTP gets one clear refusal and the connection's end, never a hang."""
    where = urlsplit(gateway.url)
    with socket.create_connection((where.hostname, where.port), timeout=90) as connection:
        with contextlib.suppress(ConnectionError):  # it may be refused before all of it was sent
            connection.sendall(sent)
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == status
        assert b"error" in response.read()


def test_bad_cache_control(gateway: RunningGateway) -> None:
    """A max-age that is no number is refused, not ignored."""
    body = chat_body("echo", "hello")
    answered = call(gateway.url, "POST", "/v1/chat/completions", body, **{"Cache-Control": "max-age=soon"})

    assert answered.status == 400
    assert "max-age must be a whole number of seconds, got 'soon'" in answered.error["message"]


USER = [{"role": "user", "content": "hi"}]
TENSOR = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["hi"]}
# A good body for each kind of request, and the field that holds the words.
GOOD: dict[str, tuple[dict[str, Any], str]] = {
    "/v1/chat/completions": ({"model": "echo", "messages": USER}, "messages"),
    "/v1/completions": ({"model": "echo", "prompt": "hi"}, "prompt"),
    "/v1/embeddings": ({"model": "minilm", "input": "hi"}, "input"),
    "/v1/responses": ({"model": "echo", "input": "hi"}, "input"),
    "/v1/messages": ({"model": "echo", "max_tokens": 5, "messages": USER}, "messages"),
    "/v1/messages/count_tokens": ({"model": "echo", "messages": USER}, "messages"),
    "/v2/models/echo/infer": ({"inputs": [TENSOR]}, "inputs"),
    "/v2/models/echo/generate": ({"text_input": "hi"}, "text_input"),
    "/v2/models/echo/generate_stream": ({"text_input": "hi"}, "text_input"),
    "/api/v1/predict": ({"model": "intents", "input": "hi"}, "input"),
    "/api/v1/generate": ({"model": "echo", "prompt": "hi", "stream": False}, "prompt"),
    "/api/v1/embed": ({"model": "minilm", "inputs": ["hi"]}, "inputs"),
}


def told(answered: Answered) -> str:
    """Return what an error says, in whichever shape."""
    error = answered.json()["error"]
    message: str = error if isinstance(error, str) else error["message"]
    return message


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize(
    ("hostile", "name"),
    [
        (b"[" * 30_000, "bomb"),
        (b'{"a":' * 10_000, "deep"),
        (b"[" * 300 + b"]" * 300, "nested"),
        (b"1" * 5000, "digits"),
        (b"18446744073709551616", "beyond-64-bits"),
        (b'"\\ud800"', "surrogate"),
        (b'"\xed\xa0\x80"', "no-utf-8"),
        (b"1e400", "infinite"),
        (b'{"": [{}]}', "object"),
        (b"-1", "negative"),
        (b"null", "null"),
    ],
)
def test_hostile_values_are_refused_on_every_route(
    gateway: RunningGateway, path: str, hostile: bytes, name: str
) -> None:
    """A value that is no JSON, too deep, too great or of the wrong kind is a 400 that is short and says why."""
    good, field = GOOD[path]
    body = json.dumps({**good, field: "HERE"}).encode().replace(b'"HERE"', hostile)
    answered = call(gateway.url, "POST", path, body)

    assert answered.status == 400, (name, answered.body)
    assert 10 < len(told(answered)) < 600
    assert answered.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize(
    "model", ["../../../etc/passwd", "..%2f..%2fetc", "a\0b", "a\r\nX-Injected: 1", "\u202e", "x" * 3000]
)
def test_hostile_model_names(gateway: RunningGateway, path: str, model: str) -> None:
    """A name that no model has is a 404 that repeats little of it, and none of it as a header."""
    good, _ = GOOD[path]
    if "model" in good:
        answered = call(gateway.url, "POST", path, {**good, "model": model})
    else:
        answered = call(gateway.url, "POST", path.replace("echo", quote(model, safe="")), good)

    assert answered.status == 404, answered.body
    assert len(answered.body) < 1000
    assert "x-injected" not in answered.headers


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data, wbits=-15)),
        ("identity", bytes),
    ],
    ids=["gzip", "deflate", "deflate-raw", "identity"],
)
@pytest.mark.parametrize("path", GOOD)
def test_compressed_bodies_are_read(gateway: RunningGateway, path: str, coding: str, pack: Any) -> None:
    """Compressed, a request gets what it gets as it is."""
    body = json.dumps(GOOD[path][0]).encode()
    plain = call(gateway.url, "POST", path, body)
    packed = call(gateway.url, "POST", path, pack(body), **{"Content-Encoding": coding})

    assert packed.status == plain.status


@pytest.mark.parametrize(
    ("coding", "body", "status", "words"),
    [
        ("gzip", gzip.compress(bytes(64 * 2**20)), 413, f"at most {LIMIT} bytes are read"),
        ("gzip", gzip.compress(b"{}")[:-3], 400, "ends in the middle of its gzip"),
        ("gzip", gzip.compress(b"{}") + b"more", 400, "goes on behind the end of its gzip"),
        ("deflate", b"\xff\xff\xff", 400, "the body is not deflate"),
        ("br", b"x", 415, "allowed is one of gzip, deflate"),
        ("zstd", b"x", 415, "allowed is one of gzip, deflate"),
        ("gzip, gzip", b"x", 415, "allowed is one of gzip, deflate"),
    ],
    ids=["bomb", "cut", "more", "nonsense", "br", "zstd", "twice"],
)
def test_bad_compression(gateway: RunningGateway, coding: str, body: bytes, status: int, words: str) -> None:
    """What cannot be undone within the limit is refused by name."""
    answered = call(gateway.url, "POST", "/v1/chat/completions", body, **{"Content-Encoding": coding})

    assert answered.status == status
    assert words in answered.error["message"]


@pytest.mark.parametrize("value", ["nan", "inf", "1_0", "-1", "0", "soon", "1e-9", "1e300", "", "1, 2"])
def test_bad_request_timeout(gateway: RunningGateway, value: str) -> None:
    """A deadline that is no time is refused; one beyond all bounds is the operator's."""
    bad = call(gateway.url, "POST", "/v1/chat/completions", chat_body("echo", "x"), **{"X-Request-Timeout": value})
    assert (bad.status, "X-Request-Timeout must be a number of seconds" in bad.error["message"]) == (400, True)

    body = chat_body("echo", f"endless beside {value}")
    endless = call(gateway.url, "POST", "/v1/chat/completions", body, **{"X-Request-Timeout": "9" * 400})
    assert endless.status == 200


def test_memory_stays_bounded(gateway: RunningGateway) -> None:
    """Bombs, endless heads, and a hundred clients that stop half-way leave the program as small as it was."""
    process = psutil.Process(gateway.process.pid)
    where = urlsplit(gateway.url)
    bomb, deep = gzip.compress(bytes(64 * 2**20)), b'{"a":' * 12_000
    for _ in range(3):
        call(gateway.url, "POST", "/v1/chat/completions", bomb, **{"Content-Encoding": "gzip"})
    before = process.memory_info().rss
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    with contextlib.ExitStack() as open_clients:
        for _ in range(100):
            client = open_clients.enter_context(socket.create_connection((where.hostname, where.port), timeout=90))
            client.sendall(head + b"Content-Length: 65000\r\n\r\n" + b"x" * 64_000)
        for _ in range(30):
            assert call(gateway.url, "POST", "/v1/chat/completions", bomb, **{"Content-Encoding": "gzip"}).status == 413
            assert call(gateway.url, "POST", "/v1/chat/completions", deep).status == 400
            with socket.create_connection((where.hostname, where.port), timeout=90) as client:
                with contextlib.suppress(ConnectionError):
                    client.sendall(head + b"X: " + b"x" * 2**20)
                assert client.recv(100).startswith(b"HTTP/1.1 431 ")
        grown = process.memory_info().rss - before

    assert grown < 48 * 2**20, f"{grown / 2**20:.1f} MiB"


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/chat/completions", {"messages": [0] * 16_385}, "at most 16384"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [0] * 16_385}]}, "at most 16384 parts"),
        ("/v1/chat/completions", {"messages": USER, "tools": [0] * 4097}, "at most 4096 items"),
        ("/v1/embeddings", {"input": [1] * 20_000, "model": "minilm"}, "256"),
        ("/v1/responses", {"input": [0] * 16_385}, "at most 16384"),
        ("/v1/messages", {"max_tokens": 5, "messages": [0] * 16_385}, "1 to 16384"),
        ("/v2/models/echo/infer", {"inputs": [0] * 1025}, "at most 1024"),
    ],
)
def test_great_many_small_values(gateway: RunningGateway, path: str, body: dict[str, Any], words: str) -> None:
    """Lists that would take long to look at are refused by their length, which is named."""
    answered = call(gateway.url, "POST", path, {"model": "echo", **body})

    assert answered.status == 400, answered.body
    assert words in told(answered)
