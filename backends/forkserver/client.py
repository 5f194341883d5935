"""The gateway's handle on its fork server: asks it for children. Knows not what they run."""

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from backends.contract import StartFailed
from backends.forkserver import family
from backends.forkserver.link import Child, Link
from backends.worker.spec import WorkerSpec

__all__ = ["Child", "ForkServer"]

SINGLE_THREADED = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # The runtime would otherwise start a thread that uploads usage data, at import.
    "ORT_DISABLE_TELEMETRY": "1",
}


class ForkServer:
    """Owns the fork-server process: starts it on first use, and again after it died."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment` is what the server and its workers see, less PYTHON* and with `SINGLE_THREADED` put on top."""
        kept = {name: value for name, value in environment.items() if not name.startswith("PYTHON")}
        self._environment = kept | SINGLE_THREADED
        self._opening: asyncio.Task[Link] | None = None
        """The start under way, or the one whose link is in use."""
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process's id, or None while there is none."""
        return self._opening.result().pid if self._opening is not None and _in_use(self._opening) else None

    async def start(self) -> None:
        """Bring the process up, unless it is. Raises StartFailed."""
        await self._linked()

    async def spawn_worker(self, spec: WorkerSpec, connection: socket.socket, output_fd: int) -> Child:
        """Fork a worker that serves on `connection` and prints to `output_fd`; the caller closes its copies of both.

        Raises StartFailed. Cancelling kills the child.
        """
        order = {"kind": "worker", **spec.to_order()}
        return await (await self._linked()).spawn(order, [connection.fileno(), output_fd], marker=None)

    async def spawn_standby(
        self, devices: tuple[int, ...], providers: tuple[str, ...], connection: socket.socket, output_fd: int
    ) -> Child:
        """Fork a worker that makes these devices ready and waits on `connection` for its model; else as for others."""
        order = {"kind": "worker", "standby": True, "devices": devices, "providers": providers}
        return await (await self._linked()).spawn(order, [connection.fileno(), output_fd], marker=None)

    async def spawn_command(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, output_fd: int) -> Child:
        """Run `argv` (searched on env's PATH) with `env`, stdin empty, stdout and stderr to `output_fd`.

        The caller closes its copy of `output_fd` (see backends.tail.OutputTail). To `env` one variable is added, by
        which all that the program starts is found again. Raises StartFailed, also where the program does not exist.
        Cancelling kills the child.
        """
        marker = secrets.token_hex(8)
        order = {
            "kind": "command",
            "argv": list(argv),
            "env": {**env, family.MARKER: marker},
            "cwd": os.fspath(cwd),
        }
        return await (await self._linked()).spawn(order, [output_fd], marker=marker)

    async def close(self, deadline_s: float) -> None:
        """End every child and the fork server itself within about `deadline_s`; later spawns raise StartFailed."""
        self._closed = True
        if self._opening is None:
            return
        self._opening.cancel()
        await asyncio.wait([self._opening])
        if not self._opening.cancelled() and self._opening.exception() is None:
            await self._opening.result().close(deadline_s)

    async def _linked(self) -> Link:
        if not self._closed and (self._opening is None or (self._opening.done() and not _in_use(self._opening))):
            self._opening = asyncio.create_task(Link.open(self._environment), name="fork server: start")
        opening = self._opening
        if opening is not None:
            await asyncio.wait([opening])
        if self._closed or opening is None:
            raise StartFailed("the fork server is shutting down; it starts no more children")
        return opening.result()


def _in_use(opening: asyncio.Task[Link]) -> bool:
    return opening.done() and not opening.cancelled() and opening.exception() is None and opening.result().alive
