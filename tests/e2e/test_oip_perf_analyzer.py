"""Triton's `perf_analyzer`, where it is installed, against the running program: it reads the statistics it needs."""

import re
import shutil
import subprocess

import pytest

from scripts.running_gateway import RunningGateway
from tests.e2e.test_oip_grpc import address as grpc_address
from tests.e2e.test_oip_http import address as http_address

PROGRAM = shutil.which("perf_analyzer") or ""


@pytest.mark.skipif(not PROGRAM, reason="no perf_analyzer on the PATH")
@pytest.mark.parametrize(
    ("transport", "options"),
    [("http", ["--shared-memory", "none"]), ("grpc", []), ("grpc", ["--streaming"])],
    ids=["http", "grpc", "stream"],
)
def test_perf_analyzer_reads_the_statistics(tensors: RunningGateway, transport: str, options: list[str]) -> None:
    """It measures to the end, and what the server says of its inferences adds up with what the client did."""
    where = http_address(tensors) if transport == "http" else grpc_address(tensors)
    measured = ["-b", "2", "--concurrency-range", "2", "--measurement-interval", "500", "-s", "1000"]
    uncached = ["-H", "cache-control: no-store"]
    command = [PROGRAM, "-m", "simple", "-i", transport, "-u", where, *measured, *uncached, *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    inferences, executions = (
        int(re.search(rf"{kind} count: (\d+)", result.stdout)[1])  # type: ignore[index]
        for kind in ("Inference", "Execution")
    )
    assert inferences == 2 * executions > 0
    assert "Cache hit count: 0" in result.stdout
