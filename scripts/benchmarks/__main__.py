"""The command line of scripts/bench: starts what is measured, measures, prints. Knows no measure's detail."""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from scripts.benchmarks import cold_start, contests, meanings, passing, programs, report, serving
from scripts.benchmarks.cold_start import ColdStart
from scripts.benchmarks.contests import Bench, Contest
from scripts.benchmarks.passing import FirstBytes
from scripts.benchmarks.programs import Served
from scripts.running_gateway import ROOT, running

_HITS = ("exact", "streamed")
_MEASURES = (*_HITS, "semantic", "pass", "first", "cold")
_TERMINATED = 128 + signal.SIGTERM


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))  # so that children are ended on the way out
    options = _parser().parse_args()
    for program in programs.PACKAGES:
        programs.find(program)
    conditions = _conditions(options)
    loads: list[Contest] = []
    first: FirstBytes | None = None
    starts: list[ColdStart] = []
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(*programs.two_cores(), options.seconds, options.rounds, Path(directory))
        if wanted := [measure for measure in options.only if measure in _HITS]:
            loads = _hits(bench, options.models, wanted)
        if "semantic" in options.only:
            loads += _hits_by_meaning(bench, options.models)
        if "pass" in options.only:
            with bench.nginx("upstream", bench.load_on, contests.instant) as upstream:
                loads += passing.contests(bench, upstream)
        if "first" in options.only:
            first = passing.first_bytes(bench)
        if "cold" in options.only:
            starts = _from_cold(bench, options.models)
    report.show(Console(), loads, first, starts)
    if options.json is not None:
        options.json.write_text(
            json.dumps(report.as_json(loads, first, starts, conditions), indent=2), encoding="utf-8"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure the gateway on one core, the load on the other, against aiohttp, nginx, a router and ORT.",
    )
    parser.add_argument("--seconds", type=int, default=3, metavar="N", help="length of one run of wrk (default 3)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="runs of each, in turns (default 5)")
    parser.add_argument("--only", nargs="+", choices=_MEASURES, default=_MEASURES, help="measure these alone")
    parser.add_argument(
        "--models", type=Path, default=ROOT / "var/models", metavar="DIR", help="what scripts/setup made"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run there as well")
    return parser


def _hits(bench: Bench, models: Path, wanted: Sequence[str]) -> list[Contest]:
    """Measure with the gateway, its workers and each rival on one core, the load on the other."""
    place = bench.directory / "gateway"
    place.mkdir()
    with programs.pinned_to(bench.served_on), running(serving.config(place, models), place) as runs:
        gateway = Served(runs.url, runs.process.pid)
        measures = {
            "exact": lambda: contests.exact_hits(bench, gateway),
            "streamed": lambda: [contests.streamed_hits(bench, gateway)],
        }
        return [contest for name in wanted for contest in measures[name]()]


def _hits_by_meaning(bench: Bench, models: Path) -> list[Contest]:
    """Measure with everything on all cores, as it is used: the embedder has one for itself, and the gateway another.

    Then with the gateway and its workers on one core, where all that a hit costs is taken from the embedder.
    """
    ran = []
    for where, held in (("all cores", nullcontext()), ("one core", programs.pinned_to(bench.served_on))):
        place = bench.directory / where
        place.mkdir()
        with held, running(serving.config(place, models), place) as runs:
            ran += meanings.contests(bench, Served(runs.url, runs.process.pid), where)
    return ran


def _from_cold(bench: Bench, models: Path) -> list[ColdStart]:
    """Measure with everything on all cores, as a cold start uses more than one."""
    place = bench.directory / "cold"
    place.mkdir()
    with running(serving.config(place, models), place) as gateway:
        return cold_start.measure(gateway.url, models / cold_start.MODEL / "model.onnx", bench.rounds)


def _conditions(options: argparse.Namespace) -> dict[str, object]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load_average_before": os.getloadavg(),
        "seconds": options.seconds,
        "rounds": options.rounds,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in ("aiohttp", "uvloop", "onnxruntime-gpu")},
    }


if __name__ == "__main__":
    main()
