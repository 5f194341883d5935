"""The running program starts a worker from an optimised graph, and from the model itself where the graph is broken."""

import asyncio
import os
import tempfile
from pathlib import Path

import numpy as np

from backends.forkserver.client import ForkServer
from backends.graphs import Graphs
from backends.onnx import OnnxEngine
from backends.warmers import Warmers
from backends.worker import graph_files
from scripts.running_gateway import RunningGateway
from tests.e2e.program import call, config, metric, pool, started, stop, until
from tests.test_backends_graphs import LIMIT, WIDTH, heavy, settled

BODY = {
    "inputs": [
        {"name": "x", "shape": [1, WIDTH], "datatype": "FP32", "data": np.linspace(-1, 1, WIDTH).round(3).tolist()}
    ]
}


async def make_graph(model: Path, kept: Path) -> None:
    """Do what a gateway does some time after its first start."""
    server = ForkServer(os.environ)
    warmers = Warmers(Graphs(lambda: 1e12, delay_s=0.0))
    try:
        await warmers.use(kept, LIMIT, server, ())
        engine = await OnnxEngine.open(model, server, threads=1, warmers=warmers)
        await (await engine.start()).close()
        await settled(warmers.graphs)
        assert warmers.graphs.outcomes["made"] == 1
    finally:
        await warmers.close()
        await server.close(5.0)


def states(house: RunningGateway) -> set[object]:
    """Return the states of its replicas."""
    return {replica["state"] for replica in pool(house.url, "heavy")["replicas"]}


def ask(house: RunningGateway) -> object:
    """Return what the model gives."""
    answered = call(house.url, "POST", "/v2/models/heavy/infer", BODY, **{"Cache-Control": "no-store"})
    assert answered.status == 200, answered.body
    return answered.json()["outputs"]


def test_a_graph_is_used_over_a_restart_and_a_broken_one_is_no_failed_start() -> None:
    """The graph that an earlier run left is used, with the same answer; torn, it costs a count and nothing else."""
    with tempfile.TemporaryDirectory(prefix="warmgate-e2e-") as name:
        directory = Path(name)
        model, kept = heavy(directory / "heavy"), directory / "cache" / "graphs"
        asyncio.run(make_graph(model, kept))
        written = f"  heavy: {{task: infer, onnx: {{path: {model}, threads: 1}}, pool: {{keep_warm: 1s}}}}"
        with started(config(directory, written).replace("graphs: 0", "graphs: 1GiB"), directory) as (house, _):
            first = ask(house)
            assert metric(house.url, "warmgate_graphs_total", outcome="used") == 1
            assert metric(house.url, "warmgate_graph_bytes") > 0
            assert pool(house.url, "heavy")["starts"]["graphs"] == {"heavy-1": "used"}
            # It sleeps where that has been measured to spare something, and is gone otherwise.
            until(lambda: states(house) <= {"asleep"}, "its worker is gone")

            (place,) = kept.iterdir()
            (place / graph_files.WEIGHTS).write_bytes(b"torn")
            assert ask(house) == first
            assert metric(house.url, "warmgate_graphs_total", outcome="broken") == 1
            assert not place.exists()
            stop(house.process)
