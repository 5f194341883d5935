"""A worker's life after the fork: load, run once, say ready, serve until the gateway closes. Knows nothing of why."""

import contextlib
import ctypes
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from backends import messages
from backends.contract import Task
from backends.frames import Frame
from backends.worker import device, graphs, loop, model
from backends.worker.generate import GenerationRunner
from backends.worker.rows import RowRunner
from backends.worker.shapes import Shape
from backends.worker.spec import WorkerSpec, read_order
from backends.worker.tensors import TensorRunner

Runner = GenerationRunner | RowRunner | TensorRunner


def stand_by(connection: socket.socket, devices: tuple[int, ...], providers: tuple[str, ...]) -> None:
    """Make devices ready, say so, and serve the model that is then named on `connection`, if any is."""
    loop.limit_writes(connection)
    device.see(devices)
    session, device_s = device.touch(providers)
    connection.sendall(messages.standing_frame(device_s))
    inbox, orders = loop.Inbox(connection), list[Frame]()
    while not orders:
        if (received := inbox.receive(wait=True)) is None:
            return
        orders += received
    header: Mapping[str, Any] = orders[0].header
    run(connection, read_order(header["order"]), device_s)
    del session  # it held the device open until now


def run(connection: socket.socket, spec: WorkerSpec, device_s: float | None = None) -> None:
    """Serve a model on `connection`; a model that cannot be served is told and ends the worker.

    `device_s`: its device is ready, and took so long.
    """
    loop.limit_writes(connection)
    device.see(spec.devices)
    if spec.makes_graph:
        _make_graph(connection, spec)
        return
    began = time.perf_counter()
    try:
        if device_s is None:
            device_s = device.touch(spec.providers)[1] if spec.devices else 0.0
        loaded = model.load(spec)
        runner = _runner(loaded)
        loaded_at, shared_bytes = time.perf_counter(), _shared_bytes()
        doubt = _warm(runner, spec.shapes)
        _give_back()
    except Exception as error:
        connection.sendall(messages.failed_frame(f"{spec.directory}: {error}"))
        raise
    ready_at = time.perf_counter()
    timings_s = {**loaded.timings_s, "device": device_s, "warm": ready_at - loaded_at, "all": ready_at - began}
    told = {"graph": loaded.graph, "shared_bytes": shared_bytes, "files": loaded.files}
    connection.sendall(messages.ready_frame(timings_s, loaded.session.get_providers(), doubt, told))
    loop.serve(connection, runner, runner.shapes.due)


def _warm(runner: Runner, shapes: Sequence[Shape]) -> str:
    """Run a real inference, and one of each shape that is asked for; one that cannot be run any more is left out."""
    runner.shapes.is_warming = True
    doubt = runner.warm()
    runner.shapes.forget()  # the first run of all makes more ready than its shape
    for shape in shapes:
        with contextlib.suppress(*graphs.LOAD_ERRORS, ValueError):
            runner.warm_shape(shape)
    runner.shapes.is_warming = False
    return doubt


def _make_graph(connection: socket.socket, spec: WorkerSpec) -> None:
    """Make the optimised graph of a model and tell what came of it; a full disk is told like all else."""
    try:
        outcome, why = graphs.make(spec, lambda: model.session_options(spec.threads), _check_of(spec)), ""
    except graphs.LOAD_ERRORS as error:
        outcome, why = "failed", str(error)
    connection.sendall(messages.made_frame(outcome, why))


def _check_of(spec: WorkerSpec) -> Callable[[ort.InferenceSession], str]:
    return lambda session: _runner(model.around(spec, session)).warm()


def _give_back() -> None:
    """Return to the system what only loading took: a quarter of a small worker's memory. Only glibc keeps it at all."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _shared_bytes() -> int:
    """Return the resident bytes of mapped files: before the first inference, those of the libraries alone."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _runner(loaded: model.Model) -> Runner:
    match loaded.manifest.task:
        case Task.CHAT:
            return GenerationRunner(loaded)
        case Task.INFER:
            return TensorRunner(loaded)
        case _:
            return RowRunner(loaded)
