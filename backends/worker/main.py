"""A worker's life after the fork: load, run once, say ready, serve until the gateway closes. Knows nothing of why."""

import ctypes
import os
import socket
import time

from backends import messages
from backends.contract import Task
from backends.devices.gpus import environment_for
from backends.worker import loop, model
from backends.worker.generate import GenerationRunner
from backends.worker.rows import RowRunner
from backends.worker.spec import WorkerSpec
from backends.worker.tensors import TensorRunner


def run(connection: socket.socket, spec: WorkerSpec) -> None:
    """Serve a model on `connection`; a model that cannot be served is told and ends the worker."""
    loop.limit_writes(connection)
    if spec.devices:  # read by the driver when the session first touches a device
        os.environ.update(environment_for(spec.devices))
    began = time.perf_counter()
    try:
        loaded = model.load(spec)
        runner = _runner(loaded)
        loaded_at = time.perf_counter()
        doubt = runner.warm()
        _give_back()
    except Exception as error:
        connection.sendall(messages.failed_frame(f"{spec.directory}: {error}"))
        raise
    ready_at = time.perf_counter()
    timings_s = {**loaded.timings_s, "warm": ready_at - loaded_at, "all": ready_at - began}
    connection.sendall(messages.ready_frame(timings_s, loaded.session.get_providers(), doubt))
    loop.serve(connection, runner)


def _give_back() -> None:
    """Return to the system what only loading took: a quarter of a small worker's memory. Only glibc keeps it at all."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _runner(loaded: model.Model) -> GenerationRunner | RowRunner | TensorRunner:
    match loaded.manifest.task:
        case Task.CHAT:
            return GenerationRunner(loaded)
        case Task.INFER:
            return TensorRunner(loaded)
        case _:
            return RowRunner(loaded)
