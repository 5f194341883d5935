"""The gateway's handle on its fork server: asks it for children and learns of their end. Knows not what they run."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What an ONNX worker needs to start: its model's directory, threads for one operator, execution providers."""

    directory: Path
    threads: int = 1
    providers: tuple[str, ...] = ("CPUExecutionProvider",)


class Child:
    """A child process in a session and process group of its own; `pid` is also the group's id."""

    pid: int

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        raise NotImplementedError

    async def wait(self) -> int:
        """Return the exit code (minus the signal) once it has ended; -9 where the fork server died with it."""
        raise NotImplementedError

    async def terminate(self, grace_s: float) -> int:
        """SIGTERM to the whole group, SIGKILL to whatever is left after `grace_s`; return the exit code."""
        raise NotImplementedError

    async def kill(self) -> int:
        """SIGKILL to the whole group; return the exit code."""
        raise NotImplementedError


class ForkServer:
    """Owns the fork-server process: starts it on first use and again after it died."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment` is what the fork server and its workers see, less PYTHON*, plus what keeps them single-threaded."""
        raise NotImplementedError

    async def start(self) -> None:
        """Bring the process up, unless it is. Raises StartFailed."""

    async def spawn_worker(self, spec: WorkerSpec, connection: socket.socket, output_fd: int) -> Child:
        """Fork a worker that serves on `connection` and prints to `output_fd`; the caller closes its copies of both.

        Raises StartFailed.
        """
        raise NotImplementedError

    async def spawn_command(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, output_fd: int) -> Child:
        """Run `argv` (searched on env's PATH) with exactly `env`, stdin empty, stdout and stderr to `output_fd`.

        The caller closes its copy of `output_fd` (see backends.tail.OutputTail). Raises StartFailed, also where the
        program does not exist. Cancelling kills the child.
        """
        raise NotImplementedError

    async def close(self, deadline_s: float) -> None:
        """End every child and the fork server itself within about `deadline_s`; later spawns raise StartFailed."""
