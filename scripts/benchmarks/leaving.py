"""Measures the time from a client's leaving until the upstream is left, or the place in a queue is free. Prints JSON.

`python -m scripts.benchmarks.leaving [--rounds N] [--only WIRE …]`. Milliseconds for each stage and wire. What the
upstream notices is exact; the end of a wait, or of a worker's job, is seen by asking again and again, and so a little
late.
"""

import argparse
import itertools
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TypeVar

import grpc

from scripts.benchmarks.askers import DEADLINE_S, WIRES, Client, GrpcClient, HttpClient
from scripts.benchmarks.hanging import Exchange, Upstream, models_of
from scripts.running_gateway import ROOT, RunningGateway, running

_R = TypeVar("_R")
LIMIT_MS = 100.0
_GRPC = ("ModelInfer", "ModelStreamInfer")
_SLOTS = 2
_SERVES_GRPC = re.compile(r"^warmgate serves gRPC on (\S+)$", re.MULTILINE)
_AHEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
_WORKER = ROOT / "var/models/atlas"
_COLD = "{task: chat, command: {run: \"sh -c 'sleep 9999' {port}\"}, pool: {start_timeout: 20m}}"
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Place:
    """The running gateway, its upstream, and ways to ask it."""

    gateway: RunningGateway
    upstream: Upstream
    channel: grpc.Channel
    admin: HTTPConnection

    def ask(self, name: str, text: str, model: str | None = None) -> Client:
        """Ask in the way of this name."""
        if name in WIRES:
            return HttpClient(self.gateway.url, WIRES[name], text, model=model)
        return GrpcClient(self.channel, name, text, model=model or "near")

    def arrived(self, text: str) -> Exchange:
        """Wait until the upstream has been asked this."""
        return _until(lambda: next(iter(self.upstream.about(text)), None))

    def queued(self, model: str) -> int:
        """Return how many wait for a model."""
        return int(self._pool(model)["queued"])

    def in_flight(self, model: str) -> int:
        """Return how many jobs a model's replicas hold."""
        return sum(replica["in_flight"] for replica in self._pool(model)["replicas"])

    def seats(self) -> int:
        """Return how many are in work that may be shared."""
        found = re.search(r"^warmgate_flight_seats (\d+)", self._get("/metrics"), re.MULTILINE)
        assert found is not None
        return int(found[1])

    def _pool(self, model: str) -> dict[str, Any]:
        pool: dict[str, Any] = json.loads(self._get("/admin/pools"))["pools"][model]
        return pool

    def _get(self, path: str) -> str:
        self.admin.request("GET", path)
        return self.admin.getresponse().read().decode()


def silent(place: Place, name: str, text: str) -> float:
    """Leave before the first token."""
    client = place.ask(name, f"{text} silent")
    return _left(client, place.arrived(text))


def partly(place: Place, name: str, text: str) -> float:
    """Leave in the midst of the answer; where it is wanted whole, when its beginning has come to the gateway."""
    client = place.ask(name, f"{text} partly")
    if name == "ModelStreamInfer" or (name in WIRES and WIRES[name].streamed):
        client.until_begun()
    return _left(client, place.arrived(text))


def sent_ahead(place: Place, name: str, text: str) -> float:
    """Leave after another request was sent that waits for its turn."""
    client = place.ask(name, f"{text} silent")
    exchange = place.arrived(text)
    assert isinstance(client, HttpClient)
    client.socket.sendall(_AHEAD)
    return _left(client, exchange)


def last_of_two(place: Place, name: str, text: str) -> float:
    """Leave as a follower whose leader has left before."""
    leader = place.ask(name, f"{text} silent")
    exchange = place.arrived(text)
    follower = place.ask(name, f"{text} silent")
    _until(lambda: place.seats() == _SLOTS)
    leader.leave()
    _until(lambda: place.seats() == 1)
    return _left(follower, exchange)


def queued(place: Place, name: str, text: str) -> float:
    """Leave the queue of a pool that is full."""
    model = WIRES[name].model if name in WIRES else "near"
    kind = next(each for each in WIRES if WIRES[each].model == model)
    with ExitStack() as stack:
        for number in range(_SLOTS):
            stack.callback(place.ask(kind, f"{text} silent holder {number}").leave)
            place.arrived(f"{text} silent holder {number}")
        return _freed(place.ask(name, f"{text} waits"), lambda: place.queued(model))


def starting(place: Place, name: str, text: str) -> float:
    """Leave while a worker starts."""
    return _freed(place.ask(name, text, "cold"), lambda: place.queued("cold"))


def worker(place: Place, name: str, text: str) -> float:
    """Leave a stream that a worker of ours makes."""
    client = place.ask(name, f"Describe Germany. {text}", "atlas")
    return _freed(client, lambda: place.in_flight("atlas"))


_CHATS = tuple(name for name in WIRES if WIRES[name].model == "near" and "relay" not in name)
STAGES: Mapping[Callable[[Place, str, str], float], Sequence[str]] = {
    silent: (*WIRES, *_GRPC),
    partly: (*WIRES, *_GRPC),
    sent_ahead: ("chat", "chat-stream"),
    last_of_two: tuple(name for name in (*WIRES, *_GRPC) if "relay" not in name),
    queued: (*WIRES, *_GRPC),
    starting: (*_CHATS, *_GRPC),
    worker: tuple(name for name in _CHATS if WIRES[name].streamed),
}


def _left(client: Client, exchange: Exchange) -> float:
    """Leave; return the seconds until the upstream's client has left."""
    began = time.perf_counter()
    client.leave()
    return _until(lambda: exchange.ended_s) - began


def _freed(client: Client, count: Callable[[], int]) -> float:
    """Leave once the client is counted; return the seconds until it is not any more."""
    _until(count)
    began = time.perf_counter()
    client.leave()
    _until(lambda: not count(), pause_s=0.0)
    return time.perf_counter() - began


def _until(look: Callable[[], _R | None], pause_s: float = 0.001) -> _R:
    deadline = time.perf_counter() + DEADLINE_S
    while time.perf_counter() < deadline:
        if found := look():
            return found
        time.sleep(pause_s)
    raise TimeoutError("what should follow never came")


@contextmanager
def _place(directory: Path) -> Iterator[Place]:
    with Upstream() as upstream:
        models = models_of(upstream) | {"cold": _COLD}
        if (_WORKER / "model.onnx").exists():
            models |= {"atlas": f"{{task: chat, onnx: {{path: {_WORKER}}}, pool: {{min: 1}}}}"}
        said = "".join([f"  {name}: {model}\n" for name, model in models.items()])
        cache = f"cache: {{directory: {directory / 'cache'}, exact: {{memory: 16MiB, disk: 64MiB, ttl: 1h}}}}\n"
        text = f"server: {{listen: 127.0.0.1:0, grpc: 127.0.0.1:0}}\n{cache}models:\n{said}"
        with running(text, directory) as gateway:
            found = _SERVES_GRPC.search(gateway.log_text())
            assert found is not None
            admin = HTTPConnection(gateway.url.removeprefix("http://"), timeout=DEADLINE_S)
            with grpc.insecure_channel(found[1]) as channel:
                yield Place(gateway, upstream, channel, admin)
            admin.close()


def _figures(seconds: Sequence[float]) -> dict[str, float]:
    millis = sorted(1000 * each for each in seconds)
    return {
        "median_ms": round(statistics.median(millis), 2),
        "p99_ms": round(millis[int(0.99 * (len(millis) - 1))], 2),
        "most_ms": round(millis[-1], 2),
    }


def main() -> int:
    """Measure, print, and tell by the exit code whether all was within the limit."""
    parser = argparse.ArgumentParser(prog="python -m scripts.benchmarks.leaving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="times that each is measured (default 20)")
    parser.add_argument("--only", nargs="+", choices=(*WIRES, *_GRPC), default=(*WIRES, *_GRPC), metavar="WIRE")
    options = parser.parse_args()
    took: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="warmgate-leaving-") as name, _place(Path(name)) as place:
        for stage, wires in STAGES.items():
            if stage is worker and not (_WORKER / "model.onnx").exists():
                continue
            took[stage.__name__] = {
                wire: _figures([stage(place, wire, f"number {next(_numbers)};") for _ in range(options.rounds)])
                for wire in wires
                if wire in options.only
            }
    most = max((figures["most_ms"] for wires in took.values() for figures in wires.values()), default=0.0)
    print(json.dumps({"limit_ms": LIMIT_MS, "most_ms": most, "rounds": options.rounds, "stages": took}, indent=1))
    return 0 if most <= LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
