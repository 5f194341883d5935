"""Optimised graphs on disk: what is one, what is thrown out, and workers that start from them."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.contract import Finish, Job, Task, Tensor, Tensors
from backends.forkserver.client import Child
from backends.graphs import Graphs, machine
from backends.onnx import OnnxEngine
from backends.warmers import Warmers
from backends.worker import graph_files
from backends.worker.graphs import gains
from backends.worker.spec import KeptGraphs, WorkerSpec

LIMIT = 256 * 2**20
WIDTH, LAYERS = 512, 32


def put(directory: Path, name: str, size: int) -> Path:
    """Seal a graph of so many bytes."""
    place = directory / name
    with graph_files.scratch(directory) as fresh:
        (fresh / graph_files.GRAPH).write_bytes(b"g" * 100)
        (fresh / graph_files.WEIGHTS).write_bytes(os.urandom(size))
        graph_files.seal(fresh, place, gains=True)
    return place


def test_only_what_gains_is_kept():
    """A fifth of the processor's time must be spared, of a build that takes any."""
    assert gains(0.1, 0.03)
    assert not gains(0.1, 0.09)
    assert not gains(0.005, 0.001)


@pytest.mark.parametrize("part", [graph_files.GRAPH, graph_files.WEIGHTS, "seal.json"])
@pytest.mark.parametrize("damage", ["torn", "gone", "other"])
def test_what_is_not_whole_is_no_graph_and_is_removed(tmp_path, part, damage):
    """A file that was cut off, is missing or holds something else makes the whole graph go."""
    place = put(tmp_path, "a", 100_000)
    assert graph_files.is_whole(place) is True
    content = (place / part).read_bytes()
    (place / part).unlink()
    if damage != "gone":
        (place / part).write_bytes(content[:-1] if damage == "torn" else b"?" * len(content))

    assert graph_files.is_whole(place) is False
    assert not place.exists()


def test_it_is_known_what_gained_nothing(tmp_path):
    """Where a graph gained nothing no file of it is left but the note, so that it is not tried again."""
    with graph_files.scratch(tmp_path) as fresh:
        (fresh / graph_files.GRAPH).write_bytes(b"g" * 1000)
        graph_files.seal(fresh, tmp_path / "a", gains=False)

    assert graph_files.is_whole(tmp_path / "a") is None
    assert graph_files.size_of(tmp_path / "a") < 100


def test_who_comes_second_leaves_the_first_in_place(tmp_path):
    """Two that make the same graph at once: one of them is kept, whole, and nothing else is left."""
    place = put(tmp_path, "a", 1000)
    first = (place / graph_files.WEIGHTS).read_bytes()
    put(tmp_path, "a", 1000)

    assert (place / graph_files.WEIGHTS).read_bytes() == first
    assert graph_files.is_whole(place) is True
    assert list(tmp_path.iterdir()) == [place]


def test_the_longest_unused_go_first(tmp_path):
    """Over the limit those go that were used the longest ago, with what a dead process left behind."""
    for age, name in enumerate(["new", "old", "oldest"]):
        os.utime(put(tmp_path, name, 10_000), (1e9 - age, 1e9 - age))
    graph_files.is_whole(tmp_path / "oldest")
    (tmp_path / ".999999999-x").mkdir()
    (tmp_path / f".{os.getpid()}-y").mkdir()

    assert graph_files.trim(tmp_path, 25_000) < 25_000
    assert {each.name for each in tmp_path.iterdir()} == {"new", "oldest", f".{os.getpid()}-y"}


def heavy(directory: Path) -> Path:
    """Write a model whose weights are worth packing: products of 512 by 512."""
    generator = np.random.default_rng(0)
    directory.mkdir(exist_ok=True)
    nodes, weights, last = [], [], "x"
    for layer in range(LAYERS):
        values = generator.standard_normal((WIDTH, WIDTH), np.float32) / 30
        weights.append(numpy_helper.from_array(values, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]))
        last = "y" if layer == LAYERS - 1 else f"r{layer}"
        nodes.append(helper.make_node("Tanh", [f"m{layer}"], [last]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "heavy", ends[:1], ends[1:], weights)
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), directory / "model.onnx"
    )
    (directory / "model.yaml").write_text(
        f"task: infer\ninputs: {{x: {{datatype: FP32, shape: [-1, {WIDTH}]}}}}\n"
        f"outputs: {{y: {{datatype: FP32, shape: [-1, {WIDTH}]}}}}\nlimits: {{max_batch: 8}}\n"
    )
    return directory


JOB = Job(Task.INFER, tensors=(Tensor("x", "FP32", (1, WIDTH), np.linspace(-1, 1, WIDTH, dtype=np.float32).tobytes()),))


async def start_and_ask(engine: OnnxEngine) -> tuple[str, Tensors]:
    """Start a worker; return what became of its graph, and its answer to one job."""
    replica = await engine.start()
    try:
        answer, end = [event async for event in replica.stream(JOB)]
        assert isinstance(answer, Tensors)
        assert isinstance(end, Finish)
        return replica.worker.graph, answer
    finally:
        await replica.close()


async def settled(graphs: Graphs) -> None:
    """Wait until nothing is being made."""
    while graphs._making:
        await asyncio.wait(graphs._making)


async def test_the_next_worker_starts_from_the_graph_and_answers_alike(fork_server, tmp_path):
    """After the first start a graph is made; the next worker maps it, gives the same bits and holds its weights once.

    A broken one is found at the next start, removed, and made anew; the start succeeds.
    """
    warmers = Warmers(Graphs(lambda: 1e12, delay_s=0.0))
    graphs, kept = warmers.graphs, tmp_path / "graphs"
    await graphs.use(kept, LIMIT, fork_server)
    engine = await OnnxEngine.open(heavy(tmp_path / "m"), fork_server, threads=1, warmers=warmers)

    said, usual = await start_and_ask(engine)
    assert said == "missing"
    await settled(graphs)
    assert graphs.outcomes == {"missing": 1, "made": 1}
    assert 0 < graphs.held_bytes < LIMIT

    assert await start_and_ask(engine) == ("used", usual)

    (place,) = kept.iterdir()
    content = (place / graph_files.WEIGHTS).read_bytes()
    (place / graph_files.WEIGHTS).write_bytes(content[: len(content) // 2])
    assert await start_and_ask(engine) == ("broken", usual)
    assert graphs.outcomes["broken"] == 1


async def test_two_workers_make_the_same_graph_at_once(fork_server, tmp_path):
    """Two makers beside each other leave one graph that works."""
    engine = await OnnxEngine.open(heavy(tmp_path / "m"), fork_server, threads=1)
    spec = replace(engine._spec, graphs=KeptGraphs(tmp_path / "graphs", "v", LIMIT))
    makers = [Graphs(lambda: 1e12, delay_s=0.0) for _ in range(2)]
    for graphs in makers:
        await graphs.use(tmp_path / "graphs", LIMIT, fork_server)

    outcomes = await asyncio.gather(*[graphs._made(spec) for graphs in makers])

    assert outcomes == [("made", ""), ("made", "")]
    (place,) = (tmp_path / "graphs").iterdir()
    assert graph_files.is_whole(place) is True


async def test_a_maker_that_is_killed_leaves_a_start_as_it_was(fork_server, tmp_path):
    """A process that dies while it makes a graph is a failure that is counted, and nobody's start is touched."""
    warmers = Warmers(Graphs(lambda: 1e12, delay_s=0.0))
    await warmers.graphs.use(tmp_path / "graphs", LIMIT, fork_server)
    engine = await OnnxEngine.open(heavy(tmp_path / "m"), fork_server, threads=1, warmers=warmers)
    spawn = fork_server.spawn_worker

    async def spawned(spec: WorkerSpec, connection: socket.socket, output_fd: int) -> Child:
        child = await spawn(spec, connection, output_fd)
        if spec.makes_graph:
            child.signal(signal.SIGKILL)
        return child

    fork_server.spawn_worker = spawned
    said, _ = await start_and_ask(engine)
    await settled(warmers.graphs)

    assert said == "missing"
    assert warmers.graphs.outcomes == {"missing": 1, "failed": 1}
    assert warmers.transient_bytes() == 0
    assert (await start_and_ask(engine))[0] == "missing"


async def test_without_room_in_memory_none_is_made(fork_server, tmp_path):
    """Where the host's budget has no room for the making, there is no graph, and the worker serves."""
    warmers = Warmers(Graphs(lambda: 2**20, delay_s=0.0))
    await warmers.graphs.use(tmp_path / "graphs", LIMIT, fork_server)
    engine = await OnnxEngine.open(heavy(tmp_path / "m"), fork_server, threads=1, warmers=warmers)

    await start_and_ask(engine)
    await settled(warmers.graphs)

    assert warmers.graphs.outcomes == {"missing": 1, "no memory": 1}


FULL = """
import resource, signal, sys
from pathlib import Path
from backends.manifest import read_manifest
from backends.worker import graphs, model
from backends.worker.spec import KeptGraphs, WorkerSpec

directory, kept = Path(sys.argv[1]), Path(sys.argv[2])
spec = WorkerSpec(directory, read_manifest(directory), graphs=KeptGraphs(kept, "v", 2**30))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    print(graphs.make(spec, lambda: model.session_options(1), lambda session: None))
except graphs.LOAD_ERRORS as error:
    print("failed", type(error).__name__)
"""


@pytest.mark.parametrize("room", [0, 4096, 2**20, 30 * 2**20])
def test_a_full_disk_is_no_graph_and_leaves_nothing(tmp_path, room):
    """Where no more can be written, be it at the first byte or in the middle of the weights, nothing is left behind."""
    command = [sys.executable, "-c", FULL, str(heavy(tmp_path / "m")), str(tmp_path / "graphs"), str(room)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.stdout.startswith("failed"), done.stderr
    assert list((tmp_path / "graphs").iterdir()) == []


async def test_a_model_larger_than_the_limit_is_not_tried(fork_server, tmp_path):
    """What would not fit is not made."""
    engine = await OnnxEngine.open(heavy(tmp_path / "m"), fork_server, threads=1)
    graphs = Graphs(lambda: 1e12)
    await graphs.use(tmp_path / "graphs", 2**20, fork_server)

    spec = replace(engine._spec, graphs=graphs.kept("v"))

    assert await graphs._made(spec) == ("too large", "")


def test_a_graph_belongs_to_model_runtime_machine_and_provider(tmp_path):
    """Whatever a graph depends on is in the name of its place."""
    base = ("v1", "1.0", "CPUExecutionProvider", machine(()))
    others = [("v2", *base[1:]), (*base[:1], "1.1", *base[2:]), (*base[:3], machine(("a GPU",)))]

    assert len({graph_files.place_of(tmp_path, each) for each in (base, *others)}) == 4
