"""Builds a model's inference session, alone, each time that a line comes in, and prints the seconds that it took.

The line `first` builds in a fresh fork, as a worker does: the runtime is imported, no session was ever built. The line
`again` builds in this process, whose memory and caches are warm from the builds before: no new process can be so fast.

Start it as `python -m scripts.benchmarks.session MODEL.onnx`.
"""

import os
import sys
import time

import onnxruntime as ort

from backends.worker.model import session_options

THREADS = 1
PROVIDERS = ("CPUExecutionProvider",)


def build_s(model: str) -> float:
    """Return the seconds that one session takes to build, with the options of a worker."""
    began = time.perf_counter()
    ort.InferenceSession(model, session_options(THREADS), providers=list(PROVIDERS))
    return time.perf_counter() - began


def first_build_s(model: str) -> float:
    """Return the seconds that the first session of a forked process takes to build."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, repr(build_s(model)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(theirs)
    with os.fdopen(ours) as told:
        return float(told.read())


def main() -> None:
    """Build for each line, until there are no more."""
    (model,) = sys.argv[1:]
    builds = {"first": first_build_s, "again": build_s}
    for line in sys.stdin:
        print(builds[line.strip()](model), flush=True)


if __name__ == "__main__":
    main()
