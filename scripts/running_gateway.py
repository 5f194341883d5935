"""Runs the gateway as the program that it is, on a free port, for scripts and tests that ask it from outside.

Knows nothing of what they ask.
"""

import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
START_DEADLINE_S = 150.0
STOP_DEADLINE_S = 90.0

_R = TypeVar("_R")
_POLL_S = 0.01
_SERVES = re.compile(r"^warmgate serves on (https?://\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """A gateway's process, where its log goes and, once `find_url` has seen it there, what it listens on."""

    process: "subprocess.Popen[bytes]"
    log: Path
    url: str = ""

    def log_text(self) -> str:
        """Return what it has logged so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def quickstart_config(directory: Path) -> str:
    """Return config/quickstart.yaml with free ports, and its cache and batches in `directory`."""
    config = (ROOT / "config/quickstart.yaml").read_text(encoding="utf-8")
    places = {
        "127.0.0.1:8080": "127.0.0.1:0",
        "127.0.0.1:8081": "127.0.0.1:0",
        "var/cache": str(directory / "cache"),
        "var/batch": str(directory / "batch"),
    }
    for written, wanted in places.items():
        if written not in config:
            raise ValueError(f"config/quickstart.yaml does not say {written}")
        config = config.replace(written, wanted)
    return config


@contextmanager
def running(
    config: str,
    directory: Path,
    *,
    environ: Mapping[str, str] | None = None,
    wait_for: str = "/readyz",
    log_level: str = "info",
) -> Iterator[RunningGateway]:
    """Serve a config until the context ends; `directory` gets the config and the log.

    Raises `RuntimeError` with the log where the gateway ends before it is ready, and `TimeoutError`.
    """
    process, log = launch(config, directory, environ=environ, log_level=log_level)
    try:
        gateway = RunningGateway(process, log, find_url(process, log))
        _until(lambda: _answers(gateway.url + wait_for) or _fail_if_ended(process, log), f"{wait_for} answers 200")
        yield gateway
    finally:
        stop(process)


def launch(
    config: str, directory: Path, *, environ: Mapping[str, str] | None = None, log_level: str = "info"
) -> tuple["subprocess.Popen[bytes]", Path]:
    """Start a gateway and return its process and its log at once. `environ` None: this process's own."""
    file, log = directory / "config.yaml", directory / "gateway.log"
    file.write_text(config, encoding="utf-8")
    command = [sys.executable, "-m", "gateway.main", "serve", "--config", str(file), "--log-level", log_level]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=output)
    return process, log


def find_url(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Return the address that the gateway logs once it listens. Raises as `running` does."""

    def logged() -> str | None:
        found = _SERVES.search(log.read_text(encoding="utf-8", errors="replace"))
        return found[1] if found else _fail_if_ended(process, log)

    return _until(logged, "the gateway listens")


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask a gateway to end, and kill it where it does not."""
    process.terminate()
    try:
        process.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _fail_if_ended(process: "subprocess.Popen[bytes]", log: Path) -> None:
    if process.poll() is not None:
        text = log.read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"the gateway ended with {process.returncode}:\n{text}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=START_DEADLINE_S) as reply:  # noqa: S310 - our own http:// address
            return bool(reply.status == 200)
    except urllib.error.HTTPError:
        return False


def _until(look: Callable[[], _R | None], what: str) -> _R:
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(_POLL_S)
    raise TimeoutError(f"waited {START_DEADLINE_S:g} s until {what}")
