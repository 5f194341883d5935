"""What the tests of leaving and of deadlines share: models that hang and models that never start, over every wire."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from scripts.benchmarks.askers import WIRES, Client, GrpcClient, HttpClient
from scripts.benchmarks.hanging import Exchange, Upstream, models_of
from scripts.running_gateway import RunningGateway
from tests.e2e.program import SERVER, config, metrics, started, until
from tests.e2e.test_oip_grpc import address

ALONE, TWO = "sk-alone", "sk-two"
BEARER = {key: {"Authorization": f"Bearer {key}"} for key in (ALONE, TWO)}
SLOTS = 2
COLD = f'{{task: %s, command: {{run: "{SERVER} --start-s 600"}}, pool: {{start_timeout: 20m}}}}'
COLD_MODELS = {"cold": COLD % "chat", "cold-words": COLD % "completion", "cold-vectors": COLD % "embed"}
COLD_OF = {"near": "cold", "claude": "cold", "words": "cold-words", "vectors": "cold-vectors"}
GRPC = ("ModelInfer", "ModelStreamInfer")
ALL = (*WIRES, *GRPC)
STREAMED = [name for name in ALL if name == "ModelStreamInfer" or (name in WIRES and WIRES[name].streamed)]
# A relay is never shared, and gRPC's clients below ask what HTTP's ask.
SHARED = [name for name in ALL if "relay" not in name]


@dataclass(frozen=True, slots=True)
class House:
    """The running gateway, its upstream, and a channel to its gRPC."""

    gateway: RunningGateway
    upstream: Upstream
    channel: grpc.Channel

    def ask(self, name: str, text: str, key: str = ALONE, model: str | None = None, **headers: str) -> Client:
        """Ask in the way of this name."""
        if name in WIRES:
            return HttpClient(self.gateway.url, WIRES[name], text, BEARER[key] | headers, model)
        metadata = {name.lower(): value for name, value in BEARER[key].items()}
        return GrpcClient(self.channel, name, text, model=model or "near", metadata=metadata)

    def arrived(self, text: str) -> Exchange:
        """Wait until the upstream has been asked this."""
        return until(lambda: next(iter(self.upstream.about(text)), None), f"the upstream is asked {text!r}")

    def readings(self, what: str) -> dict[str, float]:
        """Return a gauge of the pools by their models."""
        return {dict(labels)["model"]: value for (name, labels), value in metrics(self.gateway.url).items()
                if name == f"warmgate_pool_{what}"}  # fmt: skip

    def wait_seats(self, count: int) -> None:
        """Wait until so many requests are in work that may be shared."""
        until(lambda: self.seats() == count, f"{count} share their work")

    def seats(self) -> float:
        """Return how many requests are in work that may be shared."""
        return metrics(self.gateway.url)["warmgate_flight_seats", ()]

    def wait_queued(self, model: str, count: int) -> None:
        """Wait until so many jobs wait for a model."""
        until(lambda: self.readings("queued")[model] == count, f"{count} wait for {model}")

    def wait_calm(self) -> None:
        """Wait until nothing is left of what was asked."""
        until(lambda: not self.upstream.open(), "the upstream has been left")
        until(lambda: not any(self.readings("in_flight").values()), "nothing is in flight")
        until(lambda: not any(self.readings("queued").values()), "nothing is queued")
        self.wait_seats(0)


@contextmanager
def hanging(directory: Path, server: str = "", more: str = "") -> Iterator[House]:
    """Serve; `server` and `more` are YAML of the config's."""
    with Upstream() as upstream:
        models = [f"  {name}: {said}" for name, said in (models_of(upstream) | COLD_MODELS).items()]
        text = config(directory, *models, server=f"{server}grpc: 127.0.0.1:0") + more
        with started(text, directory) as (gateway, _), grpc.insecure_channel(address(gateway)) as channel:
            yield House(gateway, upstream, channel)
