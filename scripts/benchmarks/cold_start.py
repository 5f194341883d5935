"""Measures cold starts as a client sees them, against the time that the model's session alone takes to build."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks import serving

MODEL = "intents"
_QUESTION = "I have lost my card, what shall I do?"
_GONE_DEADLINE_S = 20.0
_POLL_S = 0.05
_START_MS = re.compile(r"\bstart;dur=([\d.]+)")


@dataclass(frozen=True, slots=True)
class ColdStart:
    """One round, in seconds.

    `answer_s`: from the request to its answer, with no replica at first. `start_s`: the part of it in which the pool
    waited for the replica. `session_s`: building the session alone as the first of its process, `again_s`: in a
    process that has built it before.
    """

    answer_s: float
    start_s: float
    session_s: float
    again_s: float


def measure(gateway: str, model_file: Path, rounds: int) -> list[ColdStart]:
    """Let the replica go away, build sessions alone, then ask: round after round, on whatever cores we may use."""
    with _builder(model_file) as build_s:
        build_s("again")
        return [_round(gateway, build_s) for _ in range(rounds)]


def _round(gateway: str, build_s: Callable[[str], float]) -> ColdStart:
    _await_absence(gateway)
    session_s, again_s = build_s("first"), build_s("again")
    answer = serving.ask(gateway, serving.predict(_QUESTION))
    told = _START_MS.search(answer.headers["server-timing"])
    if told is None:
        raise RuntimeError(f"the reply tells no start: {answer.headers['server-timing']}")
    return ColdStart(answer.seconds, float(told[1]) / 1000, session_s, again_s)


def _await_absence(gateway: str) -> None:
    """Wait until the keeper has stopped the last replica, as `keep_warm` in the configuration tells it to."""
    deadline = time.monotonic() + _GONE_DEADLINE_S
    while serving.replicas(gateway, MODEL):
        if time.monotonic() > deadline:
            raise TimeoutError(f"a replica of {MODEL} was still there after {_GONE_DEADLINE_S:g} s")
        time.sleep(_POLL_S)


@contextmanager
def _builder(model_file: Path) -> Iterator[Callable[[str], float]]:
    """Run the process that builds sessions alone, and give the call that lets it build one and returns the seconds."""
    command = [sys.executable, "-m", "scripts.benchmarks.session", str(model_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        asked, told = process.stdin, process.stdout
        assert asked is not None
        assert told is not None

        def build_s(which: str) -> float:
            asked.write(f"{which}\n")
            asked.flush()
            return float(told.readline())

        try:
            yield build_s
        finally:
            process.kill()
