"""One worker of ours as the gateway holds it: jobs over its socket, its life and its memory. Knows no pool."""

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import psutil

from backends import messages
from backends.contract import BackendError, BadJob, Event, Job, StartFailed, Task, WorkerDied
from backends.forkserver.client import Child
from backends.frames import Buffer, Decoder, Frame, FrameError
from backends.manifest import Manifest
from backends.model_files import tasks_served
from backends.pulse import Pulse
from backends.shapes import LearnedShapes
from backends.tail import OutputTail
from backends.tensors import check
from backends.wishes import honoured

DRAIN_DEADLINE_S = 0.5

_log = logging.getLogger(__name__)


class OnnxReplica(asyncio.BufferedProtocol):
    """One worker process: many jobs over one socket, told apart by their numbers."""

    def __init__(
        self,
        manifest: Manifest,
        child: Child,
        output: OutputTail,
        silence_s: float,
        shapes: LearnedShapes | None = None,
    ) -> None:
        """`shapes` learns what the worker tells of those that it ran."""
        self._shapes = LearnedShapes() if shapes is None else shapes
        self.timings_s: Mapping[str, float] = {}
        self.providers: tuple[str, ...] = ()
        """The execution providers that the runtime could use of those asked for, best first."""
        self.graph = "off"
        """What became of its optimised graph; see `backends.worker.graphs.saved_session`."""
        self.files: tuple[str, ...] = ()
        """The files of the model that it read."""
        self._libraries_bytes: int | None = None
        """What was mapped when its session was built; None where all that it maps are libraries."""
        self._manifest = manifest
        self._tasks = tasks_served(manifest)
        self._child = child
        self._output = output
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._told: asyncio.Event = asyncio.Event()
        self._numbers = itertools.count(1)
        self._jobs: dict[int, asyncio.Queue[Frame | BackendError]] = {}
        self._refused: str | None = None
        self._gone: str | None = None
        self._fault = ""
        self._pulse = Pulse(
            silence_s,
            owed=lambda: bool(self._jobs),
            ask=lambda: self._write([messages.ping_frame()]),
            lost=lambda silence: self._condemn(f"the worker hung: {silence}"),
        )

    def __repr__(self) -> str:
        return f"<OnnxReplica {self._child!r}, {len(self._jobs)} jobs>"

    async def connect(self, ours: socket.socket) -> None:
        """Take the socket over and wait until the worker is ready. Raises StartFailed."""
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            raise
        await self._told.wait()
        if self._refused is not None:
            raise StartFailed(self._refused)
        if self._gone is not None:
            raise StartFailed(f"while it loaded the model, {await self.wait_exit()}")

    async def stream(self, job: Job) -> AsyncGenerator[Event]:
        """Run a job. A worker makes at most `limits.max_tokens` pieces for a choice, which bounds what waits here."""
        number, frames = self._begin(job)
        over = False
        try:
            while not over:
                frame = await frames.get()
                if isinstance(frame, BackendError):
                    raise frame
                over = frame.header["kind"] != "text"
                for event in messages.read_events(frame, self._manifest.labels):
                    yield event
        finally:
            if self._jobs.pop(number, None) is not None and not over:
                self._write([messages.cancel_frame(number)])

    def _begin(self, job: Job) -> "tuple[int, asyncio.Queue[Frame | BackendError]]":
        """Send a job; return its number, and where what comes of it is put. Raises `BadJob` and `WorkerDied`."""
        if job.task not in self._tasks:
            able = ", ".join(sorted(self._tasks))
            raise BadJob(f"the model does not do {job.task}; it does {able}", "model")
        extra = honoured(job)
        if job.task is Task.INFER:
            check(job, self._manifest.takes, self._manifest.gives, self._manifest.max_batch)
        number = next(self._numbers)
        return number, self._submit(number, job, extra)

    async def wait_exit(self) -> str:
        """Return when the worker has ended, with its status and last lines."""
        await self._child.wait()
        await self._output.drain(DRAIN_DEADLINE_S)
        return self._in_words()

    async def close(self) -> None:
        """Kill the worker, which holds nothing that must be saved."""
        self._lose("the worker was stopped")
        with contextlib.suppress(TimeoutError):
            await self._child.kill()
        self._output.close()

    def memory_bytes(self) -> int:
        """Return the worker's resident memory, less the libraries that all share; weights that it maps do count."""
        try:
            memory = psutil.Process(self._child.pid).memory_info()
        except psutil.NoSuchProcess:
            return 0
        return int(memory.rss - self._shared(memory))

    def pids(self) -> Sequence[int]:
        """Return the worker's."""
        return (self._child.pid,)

    def peak_bytes(self) -> int:
        """Return the most that `memory_bytes` has been, where the system tells: loading takes more than it leaves."""
        status = Path(f"/proc/{self._child.pid}/status")
        try:
            peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
            shared = self._shared(psutil.Process(self._child.pid).memory_info())
        except (OSError, StopIteration, psutil.NoSuchProcess):
            return 0
        return max(0, int(peak.split()[1]) * 1024 - shared)

    def _shared(self, memory: Any) -> int:
        shared = int(getattr(memory, "shared", 0))
        return shared if self._libraries_bytes is None else min(shared, self._libraries_bytes)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports are no subclass of asyncio's, so this cannot be asserted.
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes belong."""
        del sizehint
        return self._decoder.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Hand each frame to its job."""
        self._pulse.heard()
        try:
            for frame in self._decoder.took(nbytes):
                self._take(frame)
        except FrameError as error:
            self._condemn(f"the worker sent what is no frame: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whatever still waits for the worker."""
        self._lose(f"the connection to the worker was lost{f': {exc}' if exc else ''}")

    def _submit(self, number: int, job: Job, extra: Mapping[str, object]) -> "asyncio.Queue[Frame | BackendError]":
        if self._gone is not None:
            raise WorkerDied(self._gone)
        try:
            parts = messages.job_frame(number, job, extra)
        except FrameError as error:
            raise BadJob(f"the request is too large for a worker: {error}") from error
        frames: asyncio.Queue[Frame | BackendError] = asyncio.Queue()
        self._jobs[number] = frames
        self._write(parts)
        self._pulse.watch()
        return frames

    def _take(self, frame: Frame) -> None:
        header: Mapping[str, Any] = frame.header
        if header["kind"] == "ready":
            self.timings_s = header["timings_s"]
            self.providers = tuple(header["providers"])
            self.graph, self.files = header["graph"], tuple(header["files"])
            self._libraries_bytes = header["shared_bytes"] if self.graph == "used" else None
            if header["doubt"]:
                _log.warning("%r serves, though %s", self._child, header["doubt"])
            self._told.set()
        elif header["kind"] == "failed":
            self._refused = header["message"]
            self._told.set()
        elif header["kind"] == "shapes":
            self._shapes.heard(header["seen"])
        elif (frames := self._jobs.get(header.get("id", 0))) is not None:
            # What belongs to no job is a pong, or late for a job that was cancelled.
            frames.put_nowait(frame)

    def _condemn(self, fault: str) -> None:
        """Kill a worker that runs on and is of no use."""
        if self._gone is None:
            self._fault = f"{fault}; "
        self._lose(fault)

    def _lose(self, reason: str) -> None:
        """Note that no more work can be done here, the first time that is learned."""
        if self._gone is not None:
            return
        self._gone = reason
        for frames in self._jobs.values():
            frames.put_nowait(WorkerDied(reason))
        self._jobs.clear()
        self._pulse.stop()
        self._told.set()
        self._child.signal(signal.SIGKILL)
        if self._transport is not None:
            self._transport.abort()

    def _write(self, parts: list[Buffer]) -> None:
        if self._transport is not None and self._gone is None:
            self._transport.writelines(parts)

    def _in_words(self) -> str:
        said = self._output.text()
        return f"{self._fault}the worker ended with status {self._child.returncode}" + (
            f"\nits last output:\n{said}" if said else ""
        )


class AnsweringReplica(OnnxReplica):
    """A worker of a model that makes no text: whatever it is asked it answers in one frame."""

    async def answer(self, job: Job) -> Sequence[Event]:
        """Run a job and return its events."""
        number, frames = self._begin(job)
        over = False
        try:
            frame = await frames.get()
            over = True
        finally:
            if self._jobs.pop(number, None) is not None and not over:
                self._write([messages.cancel_frame(number)])
        if isinstance(frame, BackendError):
            raise frame
        return list(messages.read_events(frame, self._manifest.labels))
