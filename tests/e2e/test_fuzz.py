"""Bytes that nobody would send, to every route for a bounded time: the program answers in HTTP, lives, and stays small.

`WARMGATE_FUZZ_SEED` and `WARMGATE_FUZZ_S` make another run, or a longer one; a failure tells its seed and its bytes.
"""

import contextlib
import json
import os
import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from gateway.openapi.document import operations
from scripts.running_gateway import RunningGateway
from tests.e2e.program import DEADLINE_S, INTENTS, MINILM, SERVER, chat, config, needs, started, text_of

SEED = int(os.environ.get("WARMGATE_FUZZ_SEED", "20"))
SECONDS = float(os.environ.get("WARMGATE_FUZZ_S", "10"))
MAX_GROWTH_BYTES = 96 * 2**20
# A defect would be a 500; these tell of what a model or an upstream did with what it was sent.
TOLD = {501, 502, 503, 504, 529}

ECHO = f'  echo: {{task: chat, command: {{run: "{SERVER}", concurrency: 8}}, pool: {{min: 1, max: 1, queue: 100}}}}'
MESSAGES = [{"role": "user", "content": "hi"}]
TENSOR = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["hi"]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
BODIES: dict[str, object] = {
    "/v1/chat/completions": {
        "model": "echo", "messages": MESSAGES, "stream": True, "tools": [TOOL], "stop": ["x"], "logit_bias": {"1": 2.5}
    },
    "/v1/completions": {"model": "echo", "prompt": ["hi", [1, 2]], "max_tokens": 5},
    "/v1/embeddings": {"model": "minilm", "input": ["a", [1]], "encoding_format": "base64"},
    "/v1/responses": {"model": "echo", "input": [{"role": "user", "content": "hi"}], "stream": True},
    "/v1/messages": {
        "model": "echo", "max_tokens": 9, "stream": True, "messages": MESSAGES,
        "system": [{"type": "text", "text": "s"}],
    },
    "/v1/messages/count_tokens": {"model": "echo", "messages": MESSAGES},
    "/api/v1/generate": {"model": "echo", "prompt": "hi", "stream": False},
    "/api/v1/predict": {"model": "intents", "input": "hi"},
    "/api/v1/embed": {"model": "minilm", "inputs": ["hi"]},
    "/api/v1/batch": {"model": "echo", "inputs": ["a"], "task": "generate", "parameters": {"max_tokens": 3}},
    "/admin/explain": {"path": "/v1/chat/completions", "body": {"model": "echo", "messages": MESSAGES}},
    "infer": {"id": "1", "inputs": [TENSOR], "outputs": [{"name": "text_output"}], "parameters": {"max_tokens": 3}},
    "generate": {"text_input": "hi", "parameters": {"temperature": 0.5}},
    "generate_stream": {"text_input": "hi"},
}  # fmt: skip

HOSTILE = (
    b"\0", b"\r\n\r\n", b"\r\n", b"\n", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"%00", b"%", b"../../",
    b"//", b"[" * 2000, b'{"a":' * 2000, b"1" * 400, b"1e999", b"-1", b"18446744073709551616", b"9223372036854775807",
    b"NaN", b"null", b"true", b"[]", b"{}", b'""', b",", b":", b'"model":"echo",', b" " * 300, b"\t", b"A" * 5000,
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"Host: y\r\n",
    b"Inference-Header-Content-Length: 9\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"HTTP/1.0",
    b"Cache-Control: max-age=x\r\n", b"X-Request-Timeout: nan\r\n", b"Upgrade: h2c\r\n", b"POST / HTTP/1.1\r\n",
)  # fmt: skip

DEEP: list[Any] = []
for _ in range(300):
    DEEP = [DEEP]
VALUES = tuple(
    json.dumps(value) for value in (
        None, True, False, 0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**63), 2**64, 10**400, 0.5, 1e308, float("nan"),
        float("inf"), "", "a", "\0", "\ud800", "\n\r", "../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/",
        "echo", "x" * 5000, [], [[]], [None], ["x"] * 50, [-1], [2**64, 2**64], [1] * 3000, DEEP, {}, {"": ""},
        {"type": "text"}, {"type": []}, {"type": "tool_use"}, {"type": "image", "source": {"type": "base64"}},
        {"binary_data_size": 2**64}, {"shared_memory_region": "r"}, {"classification": 2**64}, {"role": "tool"},
        {"role": "assistant", "content": None},
    )
)  # fmt: skip


def request(method: str, path: str) -> bytes:
    """Make a good request for a route."""
    for name, value in (("model", "echo"), ("version", "1"), ("region", "r"), ("id", "x")):
        path = path.replace(f"{{{name}}}", value)
    body = json.dumps(BODIES.get(path, BODIES.get(path.rpartition("/")[2], {}))).encode() if method == "post" else b""
    head = f"{method.upper()} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


# What takes a model away from the others is asked for one that there is not.
ROUTES = [
    request(
        method, path.replace("models/{model}/load", "models/nobody/load").replace("{model}/unload", "nobody/unload")
    )
    for path, methods in operations().items()
    for method in methods
]


def mutated(draw: random.Random, good: bytes) -> bytes:
    """Return a request with some of it changed: mostly its body, whose length is then right, so that it is read."""
    head, blank, body = good.partition(b"\r\n\r\n")
    if body and draw.random() < 0.7:
        body = draw.choice((_changed, _restructured))(draw, body)
        return re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head) + blank + body
    return _changed(draw, good)


def _changed(draw: random.Random, good: bytes) -> bytes:
    data = bytearray(good)
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        draw.choice(MUTATIONS)(draw, data)
    return bytes(data)


def _restructured(draw: random.Random, good: bytes) -> bytes:
    """Put hostile values, each of them good JSON, where others were."""
    whole = [json.loads(good)]
    for _ in range(draw.choice((1, 1, 2, 4))):
        place: Any = whole
        key: Any = 0
        while isinstance(place[key], dict | list) and place[key] and draw.random() < 0.8:
            place = place[key]
            key = draw.choice(list(place)) if isinstance(place, dict) else draw.randrange(len(place))
        place[key] = json.loads(draw.choice(VALUES))  # a value of its own: what was put in may be changed in turn
    return json.dumps(whole[0]).encode()


def _flip(draw: random.Random, data: bytearray) -> None:
    if data:
        data[draw.randrange(len(data))] = draw.randrange(256)


def _insert(draw: random.Random, data: bytearray) -> None:
    place = draw.randrange(len(data) + 1)
    data[place:place] = draw.choice(HOSTILE)


def _replace_value(draw: random.Random, data: bytearray) -> None:
    """Put something hostile where a value of the JSON or of a header is."""
    values = list(re.finditer(rb"(?<=: )[^\r\n,}\]]+", bytes(data)))
    if values:
        start, end = draw.choice(values).span()
        data[start:end] = draw.choice(HOSTILE)


def _drop(draw: random.Random, data: bytearray) -> None:
    start = draw.randrange(len(data) + 1)
    del data[start : start + draw.choice((1, 2, 10, 100))]


def _repeat(draw: random.Random, data: bytearray) -> None:
    start = draw.randrange(len(data) + 1)
    piece = data[start : start + draw.choice((1, 10, 60))]
    data[start:start] = piece * draw.choice((1, 2, 50))


MUTATIONS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _flip, _insert, _insert, _replace_value, _replace_value, _drop, _repeat
)  # fmt: skip


def answers(url: str, sent: bytes) -> bytes:
    """Send bytes, send no more, and return all that is answered until the connection's end."""
    where = urlsplit(url)
    received = b""
    with socket.create_connection((where.hostname, where.port), timeout=DEADLINE_S) as client:
        with contextlib.suppress(ConnectionError):  # it may have been refused before all of it was sent
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while data := client.recv(65536):
                received += data
    return received


def statuses(received: bytes, requests: bytes) -> list[int]:
    """Read responses one after the other; raise `ValueError` where that is not what the bytes are."""
    found = []
    while received:
        head, blank, rest = received.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        first = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]*", lines[0])
        if not blank or not first or not all(re.fullmatch(rb"[\w-]+: [^\r\n\0]*", line) for line in lines[1:]):
            raise ValueError(f"not the head of a response: {head[:200]!r}")
        received = rest
        if first[1] == b"100":
            continue
        found.append(int(first[1]))
        fields = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines[1:])}
        if fields.get(b"transfer-encoding") == b"chunked":
            received = _after_chunks(received)
        elif b"content-length" in fields:
            size = 0 if b"HEAD " in requests else int(fields[b"content-length"])
            if len(received) < size:
                raise ValueError(f"{len(received)} of {size} bytes came")
            received = received[size:]
        else:
            received = b""
    return found


def _after_chunks(received: bytes) -> bytes:
    while True:
        size, line, received = received.partition(b"\r\n")
        if not line:
            return b""  # broken off, which is how a stream tells of a failure
        received = received[int(size, 16) + 2 :]
        if int(size, 16) == 0:
            return received


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """Serve a model of each task, and batches."""
    needs("minilm", "intents")
    directory = tmp_path_factory.mktemp("fuzz")
    batches = f"batch: {{directory: {directory / 'batch'}, callback_secret: s3cret}}\n"
    text = config(directory, MINILM, INTENTS, ECHO, server="max_body: 64KiB") + batches
    with started(text, directory) as (running, _):
        yield running


@pytest.mark.timeout(SECONDS + 300)
def test_no_bytes_harm_the_program(gateway: RunningGateway) -> None:
    """Every route, with its request changed at random, gets well-formed answers, of which none tells of a defect."""
    draw = random.Random(SEED)
    process = psutil.Process(gateway.process.pid)
    for good in ROUTES:
        assert 500 not in statuses(answers(gateway.url, good), good)
    before = process.memory_info().rss
    ends_at = time.monotonic() + SECONDS
    count = 0
    while time.monotonic() < ends_at:
        sent = b"".join([mutated(draw, draw.choice(ROUTES)) for _ in range(draw.choice((1, 1, 1, 3)))])
        count += 1
        told = f"seed {SEED}, case {count}: {sent[:3000]!r}"
        received = answers(gateway.url, sent)
        try:
            found = statuses(received, sent)
        except ValueError as error:
            pytest.fail(f"{error}; {told}")
        assert not [status for status in found if status >= 500 and status not in TOLD], told
        assert gateway.process.poll() is None, told

    assert count > 100, f"only {count} cases were sent"
    log = gateway.log_text()
    assert "unexpected error" not in log, f"seed {SEED}: {log[-3000:]}"
    assert "Traceback" not in log, f"seed {SEED}: {log[-3000:]}"
    assert process.memory_info().rss - before < MAX_GROWTH_BYTES
    assert text_of(chat(gateway.url, "echo", "still there?")) == "echo: still there?"
