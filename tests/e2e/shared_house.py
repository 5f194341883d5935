"""Several running gateways that share one Redis server, in front of one upstream that counts what it is asked."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks.programs import free_port
from scripts.running_gateway import ROOT, RunningGateway, stop
from tests.e2e.program import call, config, started, until
from tests.redis_server import RedisServer


@dataclass(frozen=True, slots=True)
class Upstream:
    """The test's own server."""

    url: str

    def asked(self) -> int:
        """Return how often it was asked."""
        times: int = call(self.url, "GET", "/v1/models").json()["asked"]
        return times

    def model(self) -> str:
        """Return the line of a config that names it."""
        return f"  echo: {{task: chat, http: {{url: {self.url}/v1, concurrency: 64}}}}"


@dataclass(frozen=True, slots=True)
class House:
    """All of it."""

    gateways: Sequence[RunningGateway]
    redis: RedisServer
    upstream: Upstream

    @property
    def urls(self) -> list[str]:
        """Where the gateways listen."""
        return [gateway.url for gateway in self.gateways]


@contextmanager
def upstream() -> Iterator[Upstream]:
    """Run the counting upstream."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(ROOT / "tests/openai_server.py"), "--port", str(port)])
    try:
        found = Upstream(f"http://127.0.0.1:{port}")
        until(lambda: _listens(found), "the upstream listens")
        yield found
    finally:
        process.kill()
        process.wait()


@contextmanager
def house(count: int = 2, shared: str = "timeout: 2s", redis: RedisServer | None = None) -> Iterator[House]:
    """Run `count` gateways with a tier in common; `shared` are its settings but for the URL."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wg-shared-")))
        server = redis or RedisServer(directory)
        stack.callback(server.kill)
        model = stack.enter_context(upstream())
        gateways = []
        for number in range(count):
            own = directory / str(number)
            own.mkdir()
            text = with_shared(config(own, model.model()), server.url, shared)
            gateway, family = stack.enter_context(started(text, own))
            stack.callback(family.wait_gone)
            stack.callback(stop, gateway.process)
            gateways.append(gateway)
        yield House(gateways, server, model)


def with_shared(text: str, url: str, settings: str) -> str:
    """Return a config with the tier in it."""
    return text.replace("models:\n", f'  shared: {{url: "{url}", {settings}}}\nmodels:\n', 1)


def _listens(found: Upstream) -> bool:
    try:
        return found.asked() == 0
    except OSError:
        return False
