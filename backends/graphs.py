"""Optimised graphs on disk as the gateway sees them: which are used, and when one is made. Opens no graph itself.

A graph is made in a process of its own, at the lowest priority, some time after a worker started without one: nobody
waits for it, and one that cannot be made costs nothing but a line in the log.
"""

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from backends.contract import StartFailed
from backends.forkserver.client import ForkServer
from backends.forkserver.tether import tethered
from backends.frames import Decoder, FrameError
from backends.worker import graph_files
from backends.worker.spec import KeptGraphs, WorkerSpec

_log = logging.getLogger(__name__)

DELAY_S = 30.0
"""So long after a start the graph is made: who waits for answers just then is not held up."""

MAKING_DEADLINE_S = 600.0
_READ_BYTES = 1 << 16
_DRIVER = Path("/proc/driver/nvidia/version")

# What the making holds for each byte of the model at most, measured, and beside that.
_BYTES_EACH, _BYTES_BESIDE = 2.5, 96 * 2**20


class Graphs:
    """The graphs of one gateway's workers. `room` tells how many bytes of the host are free for the making of one."""

    def __init__(self, room: Callable[[], float], delay_s: float = DELAY_S) -> None:
        self.outcomes: Counter[str] = Counter()
        """What became of them at starts (`used`, `missing`, …) and of their making (`made`, `useless`, `failed`, …)."""
        self.held_bytes = 0
        self.making_bytes = 0
        """What the process holds of the host that makes one just now."""
        self._room = room
        self._delay_s = delay_s
        self._directory: Path | None = None
        self._limit_bytes = 0
        self._machine = ""
        self._fork_server: ForkServer | None = None
        self._tried: set[tuple[object, ...]] = set()
        self._making: set[asyncio.Task[None]] = set()
        self._one = asyncio.Lock()

    async def use(
        self, directory: Path | None, limit_bytes: int, fork_server: ForkServer, gpus: Iterable[str] = ()
    ) -> None:
        """Keep graphs there from now on, and no more than so many bytes; None or 0: none."""
        self._directory = directory if limit_bytes else None
        self._limit_bytes, self._fork_server = limit_bytes, fork_server
        self._machine = await asyncio.to_thread(machine, tuple(gpus))
        await self._trim()

    def kept(self, version: str) -> KeptGraphs | None:
        """Return where a worker of this version looks for its graph."""
        if self._directory is None:
            return None
        return KeptGraphs(self._directory, f"{version}\n{self._machine}", self._limit_bytes)

    def started(self, spec: WorkerSpec, outcome: str, session_s: float) -> None:
        """Note what became of the graph at a start; see to one where there was none and it might gain something."""
        if outcome == "off":
            return
        self.outcomes[outcome] += 1
        if outcome == "broken":
            _log.warning("%s: its optimised graph was broken and is made anew", spec.directory)
        key = spec.graphs, spec.devices, spec.threads
        if outcome == "used" or session_s < graph_files.LEAST_SESSION_S or key in self._tried:
            return
        if outcome in ("missing", "broken"):
            self._tried.add(key)
            task = asyncio.create_task(self._make_later(spec), name=f"graph of {spec.directory}")
            self._making.add(task)
            task.add_done_callback(self._making.discard)

    async def close(self) -> None:
        """End what is being made."""
        for task in self._making:
            task.cancel()
        if self._making:
            await asyncio.wait(self._making)

    async def _make_later(self, spec: WorkerSpec) -> None:
        await asyncio.sleep(self._delay_s)
        async with self._one:
            needed = await asyncio.to_thread(_needed_bytes, spec.directory)
            if needed > self._room():
                self._note(spec, "no memory", "")
                return
            self.making_bytes = needed
            try:
                async with asyncio.timeout(MAKING_DEADLINE_S):
                    outcome, why = await self._made(spec)
            except TimeoutError:
                outcome, why = "failed", f"not done after {MAKING_DEADLINE_S:g} s"
            except (StartFailed, OSError) as error:
                outcome, why = "failed", str(error)
            finally:
                self.making_bytes = 0
            self._note(spec, outcome, why)
            await self._trim()

    async def _made(self, spec: WorkerSpec) -> tuple[str, str]:
        """Run the process that makes a graph; return what it says. Raises StartFailed and OSError."""
        assert self._fork_server is not None, "`use` comes first"
        async with tethered() as (ours, theirs, output):
            child = await self._fork_server.spawn_worker(replace(spec, makes_graph=True), theirs, output.fd)
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            with contextlib.closing(writer):
                told = await reader.read(_READ_BYTES)
            await child.wait()
            await output.drain(1.0)
            frames = list(Decoder().feed(told))
            if not frames:
                return "failed", f"its process ended with {child.returncode}: {output.text()}"
            return str(frames[0].header["outcome"]), str(frames[0].header["why"])
        except FrameError as error:
            return "failed", str(error)
        finally:
            ours.close()
            if child.returncode is None:
                await child.kill()
            output.close()

    def _note(self, spec: WorkerSpec, outcome: str, why: str) -> None:
        self.outcomes[outcome] += 1
        level = logging.WARNING if outcome == "failed" else logging.INFO
        _log.log(level, "%s: its optimised graph: %s%s", spec.directory, outcome, f": {why}" if why else "")

    async def _trim(self) -> None:
        if self._directory is not None:
            self.held_bytes = await asyncio.to_thread(graph_files.trim, self._directory, self._limit_bytes)


def machine(gpus: tuple[str, ...]) -> str:
    """Return what a graph depends on of the machine: the processor's abilities, the GPUs and their driver. Blocks."""
    told = [*gpus, *os.uname()[:1], os.uname().machine]
    for file, wanted in ((Path("/proc/cpuinfo"), ("model name", "flags", "Features")), (_DRIVER, ("NVRM",))):
        with contextlib.suppress(OSError):
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            told += sorted({line for line in lines if line.startswith(wanted)})
    return "\n".join(told)


def _needed_bytes(directory: Path) -> int:
    return int(_BYTES_EACH * sum(file.stat().st_size for file in directory.glob("model.onnx*"))) + _BYTES_BESIDE
