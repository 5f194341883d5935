"""Loads a model directory: tokenizer, where it has one, and session. Knows nothing of jobs."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import onnxruntime as ort
from tokenizers import Tokenizer

from backends.contract import Task
from backends.manifest import Manifest
from backends.worker import graphs
from backends.worker.spec import WorkerSpec

T = TypeVar("T")

_STATE = ort.capi.onnxruntime_pybind11_state
RUN_ERRORS = (_STATE.Fail, _STATE.InvalidArgument, _STATE.RuntimeException, _STATE.EPFail)
"""What a session raises when one run fails; the session stays usable."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a worker runs; `timings_s` says what took how long to load. Only a model of tensors has no tokenizer.

    `graph` says what became of the optimised graph, as `graphs.saved_session` does; `files` are those that were read.
    """

    manifest: Manifest
    tokenizer: Tokenizer | None
    session: ort.InferenceSession
    timings_s: dict[str, float]
    graph: str = "off"
    files: tuple[str, ...] = ()


def around(spec: WorkerSpec, session: ort.InferenceSession) -> Model:
    """Return the model that runs a session which is built already."""
    has_text = spec.manifest.task is not Task.INFER
    return Model(spec.manifest, _tokenizer(spec) if has_text else None, session, {})


def load(spec: WorkerSpec) -> Model:
    """Load everything. Raises what the runtime and the tokenizer raise."""
    if spec.manifest.task is Task.INFER:
        (session, graph), session_s = _timed(lambda: _session(spec))
        return Model(spec.manifest, None, session, {"session": session_s}, graph, _read(spec, graph))
    with ThreadPoolExecutor(1) as pool:
        # Neither holds the interpreter's lock for long, so on two cores the tokenizer costs no time.
        loading = pool.submit(_timed, lambda: _tokenizer(spec))
        (session, graph), session_s = _timed(lambda: _session(spec))
        tokenizer, tokenizer_s = loading.result()
    timings_s = {"tokenizer": tokenizer_s, "session": session_s}
    return Model(spec.manifest, tokenizer, session, timings_s, graph, _read(spec, graph))


def _read(spec: WorkerSpec, graph: str) -> tuple[str, ...]:
    """Name the files that a start reads: the graph with its weights, and the tokenizer."""
    kept = graphs.place(spec) if graph == "used" else None
    weights = spec.directory.glob("model.onnx*") if kept is None else kept.glob("graph.onnx*")
    return tuple(sorted(map(str, [*weights, *spec.directory.glob("tokenizer.json")])))


def _tokenizer(spec: WorkerSpec) -> Tokenizer:
    return Tokenizer.from_file(str(spec.directory / "tokenizer.json"))


def _timed(make: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    made = make()
    return made, time.perf_counter() - began


def _session(spec: WorkerSpec) -> tuple[ort.InferenceSession, str]:
    """Build the session, from the optimised graph where one is kept; say what became of that."""
    session, graph = graphs.saved_session(spec, session_options(spec.threads))
    if session is None:
        model = str(spec.directory / "model.onnx")
        session = ort.InferenceSession(model, session_options(spec.threads), providers=list(spec.providers))
    return session, graph


def session_options(threads: int) -> ort.SessionOptions:
    """Return the options of every session: an explicit number of threads, which sleep rather than spin."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Several workers share the cores: a thread that spins while it waits takes its neighbour's time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options
