"""Many open streams at once: how much later a token comes through the gateway, and what an open stream holds.

`python -m scripts.benchmarks.streams [--streams N] [--seconds S]`. The upstream, the gateway and the clients share all
cores of the machine; the same clients read from the upstream itself before and after, for comparison.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from scripts.benchmarks import programs
from scripts.running_gateway import ROOT, running

_WARM_S = 3.0
_CONFIG = """\
server: {{listen: 127.0.0.1:0}}
models:
  ticking: {{task: chat, http: {{url: "{url}/v1", concurrency: 100000}}}}
"""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench_streams", description=__doc__)
    parser.add_argument("--streams", type=int, default=2000, metavar="N", help="open at a time (default 2000)")
    parser.add_argument("--seconds", type=int, default=20, metavar="S", help="how long they are read (default 20)")
    parser.add_argument("--every-ms", type=int, default=100, metavar="MS", help="time between tokens (default 100)")
    options = parser.parse_args()
    port = programs.free_port()
    ticking = [sys.executable, "-m", "scripts.benchmarks.ticking", str(port), str(options.every_ms)]
    with (
        tempfile.TemporaryDirectory() as directory,
        programs.listening(ticking, programs.two_cores()[1], port) as upstream,
        running(_CONFIG.format(url=upstream.url), Path(directory)) as gateway,
    ):
        process = psutil.Process(gateway.process.pid)
        before = _read(upstream.host, options)
        idle_bytes, began_s = process.memory_info().rss, time.monotonic()
        cpu_s = _cpu_s(process)
        held: list[int] = []
        through = _read(gateway.url.partition("://")[2], options, lambda: held.append(process.memory_info().rss))
        busy = (_cpu_s(process) - cpu_s) / (time.monotonic() - began_s)
        after = _read(upstream.host, options)
    direct = {name: max(before[name], after[name]) for name in before}
    added = {name: round(through[name] - direct[name], 3) for name in direct if name.endswith("_ms")}
    report = {
        "direct": direct,
        "through": through,
        "added": added,
        "gateway_cores_busy": round(busy, 2),
        "kib_per_open_stream": round((held[0] - idle_bytes) / options.streams / 1024, 1),
    }
    print(json.dumps(report, indent=2))


def _read(address: str, options: argparse.Namespace, on_open: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Let the clients read from an address; `on_open` is called once all their streams flow."""
    command = [sys.executable, "-m", "scripts.benchmarks.readers", address]
    command += [str(options.streams), str(_WARM_S), str(options.seconds)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as clients:
        assert clients.stdout is not None
        if clients.stdout.readline() != "open\n":
            raise RuntimeError("the streams could not all be opened")
        on_open()
        seen: dict[str, Any] = json.loads(clients.stdout.readline())
    if seen["lost"]:
        raise RuntimeError(f"{seen['lost']} streams broke off")
    return seen


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
