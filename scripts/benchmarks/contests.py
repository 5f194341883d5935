"""The loads: each puts the gateway and its rivals under the same requests, in turns, so that noise hits all alike."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks import load, nginx, programs, serving
from scripts.benchmarks.load import Load, Post
from scripts.benchmarks.programs import Served
from scripts.benchmarks.serving import Answer

GATEWAY = "warmgate"
CACHE = "nginx proxy_cache"
BARE = "bare aiohttp"
QUESTION = "What is the capital of France?"
# Written by the server itself, or about the connection: not for a rival to repeat.
_NOT_REPEATED = frozenset({"content-length", "date", "server", "connection"})
_WARM_UP_S = 1

_INSTANT_ANSWER = json.dumps(
    {
        "id": "chatcmpl-instant",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "instant",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "At once. " * 32}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 96, "total_tokens": 105},
    }
)


@dataclass(frozen=True, slots=True)
class Contest:
    """One load, and the runs of everybody who bore it: by name, the gateway's first, in the order of the rounds."""

    title: str
    runs: Mapping[str, list[Load]]


@dataclass(frozen=True, slots=True)
class Bench:
    """How to measure: the core of who is measured and that of the load, a run's seconds, the rounds; where to write."""

    served_on: int
    load_on: int
    seconds: int
    rounds: int
    directory: Path

    def contest(
        self, title: str, post: Post, servers: Mapping[str, Served], *, connections: int = load.CONNECTIONS
    ) -> Contest:
        """Let all bear the load in turns, round after round, after a short warm-up."""
        runs: dict[str, list[Load]] = {name: [] for name in servers}
        for server in servers.values():
            load.run(server, post, _WARM_UP_S, self.load_on, connections)
        for _ in range(self.rounds):
            for name, server in servers.items():
                runs[name].append(load.run(server, post, self.seconds, self.load_on, connections))
        return Contest(title, runs)

    @contextmanager
    def nginx(self, name: str, core: int, config: Callable[[Path, int], str]) -> Iterator[Served]:
        """Run one nginx on a core; `config` makes its file from its directory and its port."""
        directory, port = self.directory / name, programs.free_port()
        directory.mkdir()
        file = directory / "nginx.conf"
        file.write_text(config(directory, port), encoding="utf-8")
        with programs.listening([programs.find("nginx"), "-e", "stderr", "-c", str(file)], core, port) as served:
            yield served

    @contextmanager
    def bare(self, reply: Answer) -> Iterator[Served]:
        """Run the bare aiohttp handler with the same reply."""
        port, file = programs.free_port(), self.directory / "reply.json"
        headers = {name: value for name, value in reply.headers.items() if name not in _NOT_REPEATED}
        file.write_text(json.dumps({"headers": headers, "body": reply.body}), encoding="utf-8")
        command = [sys.executable, "-m", "scripts.benchmarks.bare", str(port), str(file)]
        with programs.listening(command, self.served_on, port) as served:
            yield served


def instant(directory: Path, port: int) -> str:
    """Return the configuration of the upstream that answers every chat at once."""
    return nginx.instant(directory, port, _INSTANT_ANSWER)


def exact_hits(bench: Bench, gateway: Served) -> list[Contest]:
    """Measure exact hits: of the same bytes against nginx's cache, of others against a bare aiohttp handler."""
    post = serving.chat("atlas", QUESTION)
    serving.ask(gateway.url, post)
    reply = _cached(gateway, post, "exact")
    with ExitStack() as stack:
        bare = stack.enter_context(bench.bare(reply))
        cache = stack.enter_context(
            bench.nginx("cache", bench.served_on, lambda directory, port: nginx.caching(directory, port, bare.host))
        )
        serving.ask(cache.url, post)
        kept = serving.ask(cache.url, post)
        if kept.headers["cache-status"] != "HIT" or kept.body != reply.body:
            raise RuntimeError(f"nginx did not answer from its cache: {kept}")
        unknown = serving.chat("atlas", QUESTION, user=load.NUMBER)
        return [
            bench.contest("exact hits", post, {GATEWAY: gateway, CACHE: cache}),
            bench.contest("exact hits, bodies that differ", unknown, {GATEWAY: gateway, BARE: bare}),
        ]


def streamed_hits(bench: Bench, gateway: Served) -> Contest:
    """Measure exact hits that are replayed as streams."""
    post = serving.chat("atlas", QUESTION, stream=True)
    serving.ask(gateway.url, post)
    _cached(gateway, post, "exact")
    return bench.contest("exact hits, streamed", post, {GATEWAY: gateway})


def _cached(gateway: Served, post: Post, tier: str) -> Answer:
    reply = serving.ask(gateway.url, post)
    if f"detail={tier}" not in reply.headers["cache-status"]:
        raise RuntimeError(f"expected a hit of the {tier} cache, got {reply.headers['cache-status']}")
    return reply
