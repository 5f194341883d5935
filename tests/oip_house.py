"""A gateway of fakes that speaks the Open Inference Protocol: sums, texts and vectors without a worker."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from backends.contract import Event, Finish, Job, Scores, Task, Tensor, Tensors, TensorSpec, Text, Usage, Vectors
from gateway.callers.auth import Gatekeeper, Key
from gateway.catalog import Catalog
from gateway.front import Front
from gateway.pages.oip_pages import OipPages
from gateway.surfaces.oip.grpc_server import GrpcServer
from gateway.surfaces.oip.inference import Serving
from gateway.surfaces.oip.surface import OipSurface
from gateway.surfaces.wire import Call, Reply
from tests.fakes import FakeBackend, FakeEngine
from tests.test_gateway_pipeline import House, house


class AddBackend(FakeBackend):
    """Adds and subtracts its two inputs."""

    async def stream(self, job: Job) -> AsyncGenerator[Event, None]:
        """Answer with the outputs that the job names, or both."""
        one, other = (np.frombuffer(tensor.data, "<i4") for tensor in job.tensors)
        made = {"OUTPUT0": one + other, "OUTPUT1": one - other}
        names = job.outputs or tuple(made)
        yield Tensors(tuple([Tensor(name, "INT32", job.tensors[0].shape, made[name].tobytes()) for name in names]))
        yield Finish("stop")


class EchoBackend(FakeBackend):
    """Gives back what it was given."""

    async def stream(self, job: Job) -> AsyncGenerator[Event, None]:
        """Answer with the one input as the one output."""
        tensor = job.tensors[0]
        yield Tensors((Tensor("OUTPUT0", tensor.datatype, tensor.shape, tensor.data),))
        yield Finish("stop")


class TensorEngine(FakeEngine):
    """A fake that tells of its tensors, as a worker's engine does."""

    def __init__(
        self, kind: type[FakeBackend], datatype: str, names: tuple[str, ...], shape: tuple[int, ...], max_batch: int = 8
    ) -> None:
        super().__init__()
        self.kind = kind
        self.max_batch = max_batch
        self.inputs = tuple([TensorSpec(name, datatype, shape) for name in names if name.startswith("INPUT")])
        self.outputs = tuple([TensorSpec(name, datatype, shape) for name in names if name.startswith("OUTPUT")])

    async def start(self) -> FakeBackend:
        """Return a backend at once."""
        self.starts += 1
        return self.kind(())


def simple() -> TensorEngine:
    """Make a model like the toy `simple`."""
    return TensorEngine(AddBackend, "INT32", ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1"), (-1, 16))


def echo(datatype: str, shape: tuple[int, ...] = (-1,)) -> TensorEngine:
    """Make a model that gives back what it was given, without a batch."""
    return TensorEngine(EchoBackend, datatype, ("INPUT0", "OUTPUT0"), shape, max_batch=0)


VECTORS = Vectors(np.arange(4, dtype="<f4").tobytes(), (2, 2))
SCORES = Scores(np.array([0.25, 0.75], "<f4").tobytes(), (1, 2), ("no", "yes"))
SAID = (Text("Hello "), Text("world"), Usage(3, 2), Finish("stop"))


class OipHouse:
    """The surface, its pages and its gRPC service over one pipeline."""

    def __init__(self, built: House, tasks: Mapping[str, Task], keys: list[Key]) -> None:
        self.house = built
        routes = {name: (*route.candidates, *route.fallback) for name, route in built.routes.items()}
        self.catalog = Catalog(built.pools, tasks, routes, cached=True, clock=built.keeper._clock)
        self.statistics = built.statistics
        self.statistics._max_batch = self.catalog.max_batch
        self.gatekeeper = Gatekeeper(keys)
        surface = OipSurface(self.catalog.find)
        pages = OipPages(catalog=self.catalog, statistics=self.statistics, gatekeeper=self.gatekeeper, surface=surface)
        self.front = Front((surface,), pages.table(), built.pipeline, self.gatekeeper, built.telemetry)

    async def grpc_server(self, port: int = 0, tls: tuple[bytes, bytes] | None = None) -> tuple[GrpcServer, str]:
        """Serve gRPC; return the server and its address."""
        serving = Serving(self.house.pipeline, self.gatekeeper, self.catalog)
        server = GrpcServer(lambda: serving, self.statistics, self.house.telemetry, max_body_bytes=1 << 20)
        host, bound = await server.listen("127.0.0.1", port, tls)
        return server, f"{host}:{bound}"

    @asynccontextmanager
    async def grpc(self) -> AsyncIterator[str]:
        """Serve gRPC for a while; yield the address."""
        server, address = await self.grpc_server()
        try:
            yield address
        finally:
            await server.drain(0.0)

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Make one call; a body that is no bytes is sent as JSON."""
        sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.front.serve(Call(method, path, named, sent, "127.0.0.1"))

    async def json(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Make one call that succeeds and return its JSON."""
        reply = await self.call(method, path, body, **headers)
        assert reply.status == 200, reply.body
        assert isinstance(reply.body, bytes)
        return json.loads(reply.body)

    async def refused(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Make one call that is refused, and return the status and the words."""
        reply = await self.call(method, path, body, **headers)
        assert reply.status != 200, reply.body
        assert isinstance(reply.body, bytes)
        words: str = json.loads(reply.body)["error"]
        return reply.status, words


@asynccontextmanager
async def oip_house(
    models: Mapping[str, tuple[Task, FakeEngine]], keys: list[Key] | None = None, **more: Any
) -> AsyncIterator[OipHouse]:
    """Open a gateway of these models."""
    async with house({name: engine for name, (_, engine) in models.items()}, **more) as built:
        yield OipHouse(built, {name: task for name, (task, _) in models.items()}, keys or [])
