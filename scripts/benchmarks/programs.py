"""Finds the programs and cores that benchmarks and tests need, and runs children that surely end. Knows no measure."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

LOCALHOST = "127.0.0.1"
PACKAGES = {"wrk": "wrk", "nginx": "nginx-light", "redis-server": "redis-server"}

_INSTALL_DEADLINE_S = 120.0
_START_DEADLINE_S = 20.0
_STOP_DEADLINE_S = 5.0
_POLL_S = 0.02
_PATH = os.environ.get("PATH", "") + ":/usr/sbin"  # where Debian puts nginx, and where users do not look


class MissingProgramError(RuntimeError):
    """A program is not here and could not be installed; the message says how to."""


def find(program: str) -> str:
    """Return the path of a program, installed from Debian's packages where it is missing and we are root."""
    if (path := shutil.which(program, path=_PATH)) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "--no-install-recommends", PACKAGES[program]]
        # A fresh machine may not know its packages yet.
        for command in (install, ["apt-get", "update"], install):
            if (path := shutil.which(program, path=_PATH)) is None:
                subprocess.run(command, check=False, stdout=subprocess.DEVNULL, timeout=_INSTALL_DEADLINE_S)
        path = shutil.which(program, path=_PATH)
    if path is None:
        raise MissingProgramError(f"{program} is missing: apt-get install {PACKAGES[program]}")
    return path


def two_cores() -> tuple[int, int]:
    """Return a core for what is measured and another for the load; the same twice where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


@contextmanager
def pinned_to(core: int) -> Iterator[None]:
    """Keep this process on one core for a while: its children inherit that, and theirs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """Return a port on which nobody listens now."""
    with socket.create_server((LOCALHOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs: its address and its process."""

    url: str
    pid: int

    @property
    def host(self) -> str:
        """The address without its scheme: host and port."""
        return self.url.partition("://")[2]

    def cpu_s(self) -> float:
        """Return the seconds that its process, without children, has computed so far."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def listening(command: Sequence[str], core: int, port: int) -> Iterator[Served]:
    """Run a server on a core from the moment that it accepts connections to the end of the context."""
    with pinned_to(core):
        process = subprocess.Popen(command)
    try:
        _await_port(process, port)
        yield Served(f"http://{LOCALHOST}:{port}", process.pid)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_port(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _START_DEADLINE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
        try:
            socket.create_connection((LOCALHOST, port), timeout=1.0).close()
        except OSError:
            time.sleep(_POLL_S)
        else:
            return
    raise TimeoutError(f"{process.args!r} did not listen on port {port} within {_START_DEADLINE_S:g} s")
