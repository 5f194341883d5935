"""Other gateways that are measured beside ours, each installed by the benchmark into an environment of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.benchmarks import programs
from scripts.benchmarks.programs import LOCALHOST, Served
from scripts.running_gateway import ROOT

SGLANG_ROUTER = "sglang-router==0.3.2"

_HOME = ROOT / "var/benchmarks"
_INSTALL_DEADLINE_S = 300.0


@contextmanager
def sglang_router(core: int, upstream: Served) -> Iterator[Served]:
    """Run sglang's router, which is written in Rust, in front of an upstream, at its quickest: quiet and in turn."""
    port = programs.free_port()
    command = [
        *(str(_installed(SGLANG_ROUTER) / "sglang-router"), "launch"),
        *("--host", LOCALHOST, "--port", str(port)),
        *("--worker-urls", upstream.url),
        *("--policy", "round_robin", "--log-level", "error", "--disable-circuit-breaker"),
        *("--prometheus-host", LOCALHOST, "--prometheus-port", str(programs.free_port())),
    ]
    with programs.listening(command, core, port) as served:
        yield served


def _installed(requirement: str) -> Path:
    """Return the directory of a package's programs; it is installed where it is not yet."""
    home = _HOME / requirement
    done = home / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True, timeout=_INSTALL_DEADLINE_S)
        pip = [home / "bin/python", "-m", "pip", "install", "-qq", requirement]
        subprocess.run(pip, check=True, timeout=_INSTALL_DEADLINE_S)
        done.touch()
    return home / "bin"
