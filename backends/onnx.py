"""The `onnx` engine: our own worker process over a Unix socket, behind the Backend contract. Knows no pool.

The gateway never creates an inference session (that would hold its interpreter's lock); it reads the model's files
only to name their version.
"""

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

from backends.contract import StartFailed, Task, TensorSpec
from backends.forkserver.client import Child, ForkServer
from backends.forkserver.tether import tethered
from backends.manifest import ManifestError, read_manifest
from backends.model_files import ModelFiles, examine, missing_file, stamps_of, tasks_served
from backends.onnx_sleep import AnsweringSleeper, SleepingOnnx
from backends.onnx_worker import AnsweringReplica, OnnxReplica
from backends.shapes import LearnedShapes
from backends.tail import OutputTail
from backends.warmers import Warmers
from backends.worker.spec import WorkerSpec

__all__ = ["SILENCE_S", "WORKER_BYTES", "OnnxEngine", "OnnxReplica", "missing_file", "tasks_served"]

# Longer than any step of a worker that works: between two steps it answers.
SILENCE_S = 30.0

WORKER_BYTES = 96 * 2**20
"""What a worker holds beside its graph, at most: 75 to 83 MiB were measured for a classifier with a graph of 65."""

_MADE_BY = "scripts/setup makes the models that come with this program"


class OnnxEngine:
    """How one model directory comes up as worker processes."""

    def __init__(
        self,
        spec: WorkerSpec,
        files: ModelFiles,
        fork_server: ForkServer,
        silence_s: float,
        *,
        warmers: Warmers | None = None,
    ) -> None:
        """Use `open`, which reads what is needed."""
        self._warmers = warmers
        self.shapes = LearnedShapes()
        """Of the jobs that its workers ran; who takes its place may go on with them."""
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
        warmers: Warmers | None = None,
    ) -> "OnnxEngine":
        """Read and digest the model's files in a thread. Raises StartFailed, naming a file that is missing or wrong.

        A worker that has work and sends nothing at all for `silence_s` is killed. `warmers`
        make its starts shorter.
        """
        try:
            manifest, files = await asyncio.to_thread(examine, path)
        except FileNotFoundError as error:
            raise StartFailed(f"{error.filename} does not exist; {_MADE_BY}") from error
        except OSError as error:
            raise StartFailed(f"{error.filename or path}: {error.strerror or error}") from error
        except ManifestError as error:
            raise StartFailed(str(error)) from error
        return cls(WorkerSpec(path, manifest, threads, providers), files, fork_server, silence_s, warmers=warmers)

    def on(self, devices: tuple[int, ...]) -> "OnnxEngine":
        """Return the engine whose workers see these GPUs and no others."""
        spec = replace(self._spec, devices=devices)
        engine = OnnxEngine(spec, self._files, self._fork_server, self._silence_s, warmers=self._warmers)
        engine.shapes = self.shapes
        return engine

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
            stamps = await asyncio.to_thread(stamps_of, path)
            return stamps == self._files.stamps and await asyncio.to_thread(read_manifest, path) == self._spec.manifest
        except (OSError, ManifestError):
            return False

    async def start(self) -> OnnxReplica | SleepingOnnx:
        """Fork a worker and wait until a real inference has run. Raises StartFailed. Cancelling ends the worker."""
        worker = await self._start_worker()
        if self._warmers is None:
            return worker
        sleeper = AnsweringSleeper if isinstance(worker, AnsweringReplica) else SleepingOnnx
        return sleeper(worker, self._start_worker)

    async def _start_worker(self) -> OnnxReplica:
        await self._check_unchanged()
        spec = replace(self._spec, shapes=self.shapes.worth())
        if self._warmers is not None:
            spec = replace(spec, graphs=self._warmers.graphs.kept(self.version))
        try:
            child, ours, output = await self._fork(spec)
        except OSError as error:
            raise StartFailed(f"no worker can be started: {error}") from error
        kind = OnnxReplica if self._spec.manifest.task is Task.CHAT else AnsweringReplica
        replica = kind(self._spec.manifest, child, output, self._silence_s, self.shapes)
        try:
            await replica.connect(ours)
        except BaseException:
            await replica.close()
            raise
        if self._warmers is not None:
            self._warmers.graphs.started(spec, replica.graph, replica.timings_s["session"])
            self._warmers.standby.learn(spec.devices, spec.providers, replica.timings_s["device"])
        return replica

    async def _fork(self, spec: WorkerSpec) -> tuple[Child, socket.socket, OutputTail]:
        """Return a new worker, our end of its socket, and what it prints; one that stands by, where there is one."""
        if self._warmers is not None and (standing := await self._warmers.standby.take(spec)) is not None:
            return standing.child, standing.connection, standing.output
        async with tethered() as (ours, theirs, output):
            child = await self._fork_server.spawn_worker(spec, theirs, output.fd)
        return child, ours, output

    async def _check_unchanged(self) -> None:
        """Raise StartFailed where the files are not those that the version names: answers are cached under it."""
        path = self._spec.directory
        try:
            stamps = await asyncio.to_thread(stamps_of, path)
        except OSError as error:
            raise StartFailed(f"{error.filename} cannot be read any more: {error.strerror}") from error
        if stamps != self._files.stamps:
            raise StartFailed(f"the files in {path} have changed since they were read; reload the configuration")
