"""Loads a model directory: manifest, tokenizer and session. Knows nothing of jobs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort
from tokenizers import Tokenizer

from backends.manifest import Manifest, read_manifest

_STATE = ort.capi.onnxruntime_pybind11_state
RUN_ERRORS = (_STATE.Fail, _STATE.InvalidArgument, _STATE.RuntimeException)
"""What a session raises when one run fails; the session stays usable."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a worker runs; `timings_s` says what took how long to load."""

    manifest: Manifest
    tokenizer: Tokenizer
    session: ort.InferenceSession
    timings_s: dict[str, float]


def load(directory: Path, threads: int, providers: Sequence[str]) -> Model:
    """Load everything. Raises ManifestError, or what the runtime and the tokenizer raise."""
    began = time.perf_counter()
    manifest = read_manifest(directory)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer_loaded = time.perf_counter()
    session = ort.InferenceSession(
        str(directory / "model.onnx"), sess_options=session_options(threads), providers=list(providers)
    )
    built = time.perf_counter()
    return Model(
        manifest, tokenizer, session, {"tokenizer": tokenizer_loaded - began, "session": built - tokenizer_loaded}
    )


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
