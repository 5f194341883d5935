"""Optimised graphs: a session from one that was saved, and the making of one in a process of its own. Knows no jobs.

The runtime saves the graph after its optimisation, and beside it the weights, among them those that its kernels have
packed for this processor (ONNX Runtime: "Graph Optimizations", offline mode; `save_external_prepacked_constant_...`).
They are mapped when a session is made of it: nothing is packed or copied, and all workers of a model share one copy.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort

from backends.worker import graph_files
from backends.worker.spec import WorkerSpec

Options = Callable[[], ort.SessionOptions]

_STATE = ort.capi.onnxruntime_pybind11_state
LOAD_ERRORS: tuple[type[Exception], ...] = (
    *(each for each in vars(_STATE).values() if isinstance(each, type) and issubclass(each, Exception)),
    *(RuntimeError, ValueError, OSError),
)
"""What the runtime raises for a file that is not what it should be, or cannot be written."""

MOST_SHARE = 0.8
"""A graph is kept where its session takes at most this share of the usual one's processor time."""

# The weights as they are, once more as they were packed, and the graph.
_TIMES_AS_LARGE = 2.2
_LEAST_APART_BYTES = "1024"
_NICEST = 19
_TRIALS = 3


def place(spec: WorkerSpec) -> Path | None:
    """Return where this worker's graph is or would be; None where none is kept."""
    if spec.graphs is None:
        return None
    identity = (spec.graphs.identity, ort.__version__, *spec.providers, f"{len(spec.devices)} devices")
    return graph_files.place_of(spec.graphs.directory, identity)


def saved_session(spec: WorkerSpec, options: ort.SessionOptions) -> tuple[ort.InferenceSession | None, str]:
    """Return the session of the saved graph where there is one, and what became of it.

    `off`: none are kept; `missing`; `useless`: it was tried and gained nothing; `broken`: it was there and of no use,
    and is removed; `used`.
    """
    if (where := place(spec)) is None:
        return None, "off"
    try:
        whole = graph_files.is_whole(where)
    except FileNotFoundError:
        return None, "missing"
    if not whole:
        return None, "useless" if whole is None else "broken"
    try:
        return _load(where, spec, options), "used"
    except LOAD_ERRORS:
        graph_files.remove(where)
        return None, "broken"


def gains(usual_s: float, saved_s: float) -> bool:
    """Tell whether a saved graph is worth its room on the disk."""
    return usual_s >= graph_files.LEAST_SESSION_S and saved_s <= MOST_SHARE * usual_s


def make(spec: WorkerSpec, options: Options, check: Callable[[ort.InferenceSession], object]) -> str:
    """Make the graph of this worker, and keep it where it gains; return what came of it in one word.

    `check` runs an inference. Raises OSError and what the runtime raises where the disk is full or the graph cannot be
    saved; nothing is left behind then.
    """
    where = place(spec)
    assert where is not None, "who wants a graph says where"
    assert spec.graphs is not None
    os.nice(_NICEST)
    source = spec.directory / "model.onnx"
    needed = _TIMES_AS_LARGE * sum(file.stat().st_size for file in spec.directory.glob("model.onnx*"))
    if needed > spec.graphs.limit_bytes:
        return "too large"
    with graph_files.scratch(spec.graphs.directory) as fresh:
        if shutil.disk_usage(fresh).free < needed:
            return "no room"
        _save(source, fresh, spec, options())
        check(_load(fresh, spec, options()))
        usual_s = _least_s(lambda: _build(source, spec, options()))
        worth = gains(usual_s, _least_s(lambda: _load(fresh, spec, options())))
        graph_files.seal(fresh, where, gains=worth)
    graph_files.trim(spec.graphs.directory, spec.graphs.limit_bytes, keep=where)
    return "made" if worth else "useless"


def _least_s(build: Callable[[], ort.InferenceSession]) -> float:
    """Build a session some times; return the least time of the processor: others keep it, and its caches, busy."""
    times = []
    for _ in range(_TRIALS):
        began = time.process_time()
        build()
        times.append(time.process_time() - began)
    return min(times)


def _build(source: Path, spec: WorkerSpec, options: ort.SessionOptions) -> ort.InferenceSession:
    return ort.InferenceSession(str(source), options, providers=list(spec.providers))


def _save(source: Path, fresh: Path, spec: WorkerSpec, options: ort.SessionOptions) -> None:
    options.optimized_model_filepath = str(fresh / graph_files.GRAPH)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", graph_files.WEIGHTS)
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", _LEAST_APART_BYTES
    )
    # Only the processor's kernels pack their weights: a device would hold a second copy for nothing.
    packed = "0" if spec.devices else "1"
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", packed)
    _build(source, spec, options)


def _load(where: Path, spec: WorkerSpec, options: ort.SessionOptions) -> ort.InferenceSession:
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _build(where / graph_files.GRAPH, spec, options)
