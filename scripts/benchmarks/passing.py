"""What passing a request through costs: against nginx and a router in Rust, and until a stream's first byte."""

import hashlib
import json
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from scripts.benchmarks import load, nginx, programs, rivals, serving
from scripts.benchmarks.contests import GATEWAY, QUESTION, Bench, Contest
from scripts.benchmarks.load import Post
from scripts.benchmarks.programs import LOCALHOST, Served
from scripts.running_gateway import running

ROUTER = "sglang-router"
PROXY = "nginx proxy_pass"
_ASKED = 500
_DEADLINE_S = 20.0
_POLL_S = 0.05

_CHUNKS = [
    {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "At once."}}]},
    {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]
_STREAM = "".join([f"data: {json.dumps(chunk)}\n\n" for chunk in _CHUNKS]) + "data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class FirstBytes:
    """Median seconds until the first byte of a stream's body, of each round: directly, and through the gateway."""

    direct_s: list[float]
    through_s: list[float]

    @property
    def added_s(self) -> float:
        """The median of what the rounds' medians differ by."""
        pairs = zip(self.through_s, self.direct_s, strict=True)
        return statistics.median(through - direct for through, direct in pairs)


def config(upstream: str) -> str:
    """Return what somebody configures who only passes through: keys with limits, no cache; metrics are always on."""
    digest = hashlib.sha256(serving.KEY.encode()).hexdigest()
    return f"""\
server:
  listen: {LOCALHOST}:0
  keys: [{{name: bench, sha256: "{digest}", {serving.LIMITS}}}]
models:
  upstream: {{task: chat, http: {{url: "{upstream}/v1"}}}}
routes:
  instant: {{candidates: [upstream], cache: {{enabled: false}}}}
"""


def contests(bench: Bench, upstream: Served) -> list[Contest]:
    """Let the gateway, sglang-router and nginx pass the same requests through, from 32 connections and from one."""
    post, differing = serving.chat("instant", QUESTION), serving.chat("instant", f"{QUESTION} {load.NUMBER}")
    with ExitStack() as stack:
        gateway = stack.enter_context(_gateway(bench, upstream))
        router = stack.enter_context(rivals.sglang_router(bench.served_on, upstream))
        proxy = stack.enter_context(
            bench.nginx("pass", bench.served_on, lambda directory, port: nginx.passing(directory, port, upstream.host))
        )
        servers = {GATEWAY: gateway, ROUTER: router, PROXY: proxy}
        for server in servers.values():
            _await_answer(server, post)
        return [
            bench.contest(f"pass-through, {load.CONNECTIONS} clients", post, servers),
            bench.contest("pass-through, bodies that differ", differing, servers),
            bench.contest("pass-through, 1 client", post, servers, connections=1),
        ]


def first_bytes(bench: Bench) -> FirstBytes:
    """Ask for streams one after the other, in turns from the upstream and through the gateway."""
    post = serving.chat("instant", QUESTION, stream=True)
    seen = FirstBytes([], [])
    with (
        bench.nginx("streaming", bench.load_on, _streaming) as upstream,
        _gateway(bench, upstream) as gateway,
        programs.pinned_to(bench.load_on),
    ):
        for _ in range(bench.rounds + 1):
            for server, medians in ((upstream, seen.direct_s), (gateway, seen.through_s)):
                medians.append(_first_byte_s(server, post))
    return FirstBytes(seen.direct_s[1:], seen.through_s[1:])  # the first round warmed up


@contextmanager
def _gateway(bench: Bench, upstream: Served) -> Iterator[Served]:
    place = bench.directory / f"passing-{programs.free_port()}"
    place.mkdir()
    with programs.pinned_to(bench.served_on), running(config(upstream.url), place) as runs:
        yield Served(runs.url, runs.process.pid)


def _await_answer(server: Served, post: Post) -> None:
    """Wait until a server passes requests on: the router listens before it has looked at its upstream."""
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        try:
            serving.ask(server.url, post)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)
        else:
            return


def _streaming(directory: Path, port: int) -> str:
    return nginx.instant(directory, port, _STREAM).replace("application/json", "text/event-stream")


def _first_byte_s(server: Served, post: Post) -> float:
    """Return the median of many requests over one connection, each timed up to the first byte of its body."""
    request = _written(server, post)
    times: list[float] = []
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port or 0), _DEADLINE_S) as connection:
        for _ in range(_ASKED):
            began = time.perf_counter()
            connection.sendall(request)
            came = b""
            while not came.partition(b"\r\n\r\n")[2]:
                came += connection.recv(65536)
            times.append(time.perf_counter() - began)
            while not _ended(came):
                came += connection.recv(65536)
    return statistics.median(times)


def _written(server: Served, post: Post) -> bytes:
    body = post.body.encode()
    headers = {"Host": server.host, **post.headers, "Content-Length": str(len(body))}
    head = "\r\n".join([f"POST {post.path} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()]])
    return head.encode() + b"\r\n\r\n" + body


def _ended(came: bytes) -> bool:
    """Tell whether a reply is complete: nginx tells its length, the gateway sends chunks."""
    head, _, body = came.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        return body.endswith(b"0\r\n\r\n")
    return len(body) == int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
