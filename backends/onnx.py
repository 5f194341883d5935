"""The `onnx` engine: our own worker process over a Unix socket, behind the Backend contract. Knows no pool.

The gateway never creates an inference session (that would hold its interpreter's lock); it reads the model's files
only to name their version.
"""

import asyncio
import contextlib
import hashlib
import itertools
import logging
import signal
import socket
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import psutil

from backends import messages
from backends.contract import BackendError, BadJob, Event, Job, StartFailed, Task, TensorSpec, WorkerDied
from backends.forkserver.client import Child, ForkServer
from backends.frames import Buffer, Decoder, Frame, FrameError
from backends.manifest import Manifest, ManifestError, read_manifest
from backends.pulse import Pulse
from backends.tail import OutputTail
from backends.tensors import check
from backends.wishes import honoured
from backends.worker.spec import WorkerSpec

DRAIN_DEADLINE_S = 0.5

# Longer than any step of a worker that works: between two steps it answers.
SILENCE_S = 30.0

WORKER_BYTES = 96 * 2**20
"""What a worker holds beside its graph, at most: 75 to 83 MiB were measured for a classifier with a graph of 65."""

_log = logging.getLogger(__name__)

_TOKENIZER = "tokenizer.json"
_FILES = ("model.yaml", _TOKENIZER, "model.onnx")
_MADE_BY = "scripts/setup makes the models that come with this program"


class OnnxEngine:
    """How one model directory comes up as worker processes."""

    def __init__(self, spec: WorkerSpec, files: "_Files", fork_server: ForkServer, silence_s: float) -> None:
        """Use `open`, which reads what is needed."""
        self._spec = spec
        self._files = files
        self._fork_server = fork_server
        self._silence_s = silence_s

    @classmethod
    async def open(
        cls,
        path: Path,
        fork_server: ForkServer,
        *,
        threads: int,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
        silence_s: float = SILENCE_S,
    ) -> "OnnxEngine":
        """Read and digest the model's files in a thread. Raises StartFailed, naming a file that is missing or wrong.

        A worker that has work and sends nothing at all for `silence_s` is killed.
        """
        try:
            manifest, files = await asyncio.to_thread(_examine, path)
        except FileNotFoundError as error:
            raise StartFailed(f"{error.filename} does not exist; {_MADE_BY}") from error
        except (OSError, ManifestError) as error:
            raise StartFailed(str(error)) from error
        return cls(WorkerSpec(path, manifest, threads, providers), files, fork_server, silence_s)

    def on(self, devices: tuple[int, ...]) -> "OnnxEngine":
        """Return the engine whose workers see these GPUs and no others."""
        return OnnxEngine(replace(self._spec, devices=devices), self._files, self._fork_server, self._silence_s)

    @property
    def version(self) -> str:
        """The first 16 hexadecimal digits of the digest over the model's files."""
        return self._files.version

    @property
    def concurrency(self) -> int:
        """As many jobs as one run of the graph takes."""
        return max(1, self._spec.manifest.max_batch)

    @property
    def max_batch(self) -> int:
        """Rows that one run takes; 0 for a model of tensors whose first dimension is no batch."""
        return self._spec.manifest.max_batch

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the model takes, as tensors."""
        return self._spec.manifest.takes

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the model gives, as tensors."""
        return self._spec.manifest.gives

    @property
    def max_tokens(self) -> int:
        """Tokens that the model reads of one text, or holds of one conversation; 0 where it reads no text."""
        return self._spec.manifest.max_tokens

    @property
    def tasks(self) -> frozenset[Task]:
        """The tasks of the jobs that a replica takes; a chat model completes prompts too."""
        return tasks_served(self._spec.manifest)

    async def is_current(self) -> bool:
        """Tell whether the files are still those that the version names."""
        path = self._spec.directory
        try:
            stamps = await asyncio.to_thread(_stamps, path)
            return stamps == self._files.stamps and await asyncio.to_thread(read_manifest, path) == self._spec.manifest
        except (OSError, ManifestError):
            return False

    async def start(self) -> "OnnxReplica":
        """Fork a worker and wait until a real inference has run. Raises StartFailed. Cancelling ends the worker."""
        await self._check_unchanged()
        try:
            child, ours, output = await self._fork()
        except OSError as error:
            raise StartFailed(f"no worker can be started: {error}") from error
        replica = OnnxReplica(self._spec.manifest, child, output, self._silence_s)
        try:
            await replica.connect(ours)
        except BaseException:
            await replica.close()
            raise
        return replica

    async def _fork(self) -> tuple[Child, socket.socket, OutputTail]:
        """Return a new worker, our end of its socket, and what it prints."""
        output = await OutputTail.open()
        ours, theirs = socket.socketpair()
        try:
            child = await self._fork_server.spawn_worker(self._spec, theirs, output.fd)
        except BaseException:
            output.close()
            ours.close()
            raise
        finally:
            theirs.close()
        output.release()
        return child, ours, output

    async def _check_unchanged(self) -> None:
        """Raise StartFailed where the files are not those that the version names: answers are cached under it."""
        path = self._spec.directory
        try:
            stamps = await asyncio.to_thread(_stamps, path)
        except OSError as error:
            raise StartFailed(f"{error.filename} cannot be read any more: {error.strerror}") from error
        if stamps != self._files.stamps:
            raise StartFailed(f"the files in {path} have changed since they were read; reload the configuration")


class OnnxReplica(asyncio.BufferedProtocol):
    """One worker process: many jobs over one socket, told apart by their numbers."""

    def __init__(self, manifest: Manifest, child: Child, output: OutputTail, silence_s: float) -> None:
        self.timings_s: Mapping[str, float] = {}
        self.providers: tuple[str, ...] = ()
        """The execution providers that the runtime could use of those asked for, best first."""
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
        if job.task not in self._tasks:
            able = ", ".join(sorted(self._tasks))
            raise BadJob(f"the model does not do {job.task}; it does {able}", "model")
        extra = honoured(job)
        if job.task is Task.INFER:
            check(job, self._manifest.takes, self._manifest.gives, self._manifest.max_batch)
        number = next(self._numbers)
        frames = self._submit(number, job, extra)
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
        """Return the worker's resident memory, less what it shares with the fork server's files."""
        try:
            memory = psutil.Process(self._child.pid).memory_info()
        except psutil.NoSuchProcess:
            return 0
        return int(memory.rss - getattr(memory, "shared", 0))

    def peak_bytes(self) -> int:
        """Return the most that `memory_bytes` has been, where the system tells: loading takes more than it leaves."""
        status = Path(f"/proc/{self._child.pid}/status")
        try:
            peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
            shared = getattr(psutil.Process(self._child.pid).memory_info(), "shared", 0)
        except (OSError, StopIteration, psutil.NoSuchProcess):
            return 0
        return max(0, int(peak.split()[1]) * 1024 - int(shared))

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
            if header["doubt"]:
                _log.warning("%r serves, though %s", self._child, header["doubt"])
            self._told.set()
        elif header["kind"] == "failed":
            self._refused = header["message"]
            self._told.set()
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


def tasks_served(manifest: Manifest) -> frozenset[Task]:
    """Return the tasks of the jobs that a model can do."""
    return frozenset({Task.CHAT, Task.COMPLETION} if manifest.task is Task.CHAT else {manifest.task})


def missing_file(path: Path, manifest: Manifest) -> Path | None:
    """Return the first file that a model directory lacks, or None. Blocks."""
    wanted = (path / name for name in _FILES if name != _TOKENIZER or manifest.task is not Task.INFER)
    return next((file for file in wanted if not file.is_file()), None)


@dataclass(frozen=True, slots=True)
class _Files:
    """The model's files as they were read: the version made from their content, and (size, mtime) of each."""

    version: str
    stamps: tuple[tuple[int, int], ...]


def _stamps(path: Path) -> tuple[tuple[int, int], ...]:
    """Return size and time of each file; a model of tensors has no tokenizer."""
    return tuple(_stamp(path / name) for name in _FILES if name != _TOKENIZER or (path / name).exists())


def _stamp(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _examine(path: Path) -> tuple[Manifest, _Files]:
    stamps = _stamps(path)
    manifest = read_manifest(path)
    digest = hashlib.sha256()
    for name in _FILES:
        if name == _TOKENIZER and manifest.task is Task.INFER:
            continue
        with (path / name).open("rb") as file:
            digest.update(f"{name} ".encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    digest.update("\n".join(manifest.labels).encode())
    return manifest, _Files(f"sha256:{digest.hexdigest()[:16]}", stamps)
