#!/usr/bin/env python
"""Replays your own traffic and says for which models another `keep_warm` would have been cheaper.

    .venv/bin/python scripts/tune_warm_pool.py --config gateway.yaml --trace requests.csv [--write] [--json FILE]

The trace is a CSV (or .csv.gz) with the columns `timestamp_s,model` and, if you have it, `service_s`. Each setting is
chosen by the days before and judged on the day after; a change is proposed only where its gain is certain, and with
`--write` it is made in the file, whose comments and order stay. Costs are in hours of one warm, idle replica, and a
second that a request waits counts for a hundred. How long a start takes is what the gateway has learned, or `--start`.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import orjson
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from backends.costs import ModelCosts
from backends.warmth.ladder import two_rungs
from config.load import load
from config.settings import Settings
from scripts.tuning.choosing import PREDICT, TIMES_S, Daily, TooShortError, choose, costs_by_day, origin_day, written
from scripts.tuning.policies import Ladders
from scripts.tuning.proposal import Change, diff, edited
from scripts.tuning.traces import Trace, TraceError, read_trace

_START_S = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Weigh, print, and write where that was asked for."""
    options = _options(arguments)
    console = Console(stderr=True)
    settings = load(options.config, os.environ)
    try:
        trace = _known(read_trace(options.trace), settings)
        origin = origin_day(trace)
    except (TraceError, TooShortError, OSError) as error:
        console.print(f"[red]{error}")
        return 1
    ladders = _ladders(settings, options.start)
    current = {model: _setting(settings, model) for model in trace.idle}
    times = sorted({*TIMES_S, *(keep_s for model in trace.idle if (keep_s := settings.models[model].pool.keep_warm_s))})
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("replaying", total=sum(len(idle.ends_s) for idle in trace.idle.values()))
        daily = costs_by_day(trace, ladders, times, lambda: progress.advance(task))
    changes = [change for model in daily if (change := choose(model, daily[model], current[model], origin))]
    Console().print(_table(daily, current, origin, changes))
    text = edited(options.config, changes)
    print(diff(options.config, text) or "Nothing to change: no other setting would have been cheaper for certain.")
    if options.json is not None:
        options.json.write_text(json.dumps(_report(daily, current, origin, changes), indent=2))
    if options.write and changes:
        options.config.write_text(text)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument(
        "--start", type=float, help=f"seconds of a start, where none was learned (default {_START_S:g})"
    )
    parser.add_argument("--write", action="store_true", help="change the file")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser.parse_args(arguments)


def _known(trace: Trace, settings: Settings) -> Trace:
    """Return the trace of those models that are kept warm here. Raises `TraceError` where none is."""
    kept = [model for model in trace.idle if model in settings.models and settings.models[model].http is None]
    if not kept:
        ours = ", ".join(name for name, model in settings.models.items() if model.http is None)
        raise TraceError(
            f"the trace is of {', '.join(trace.idle)}; none of them is a model that is started here: {ours}"
        )
    idle = {model: trace.idle[model] for model in kept}
    return Trace(idle, {model: trace.asked_s[model] for model in kept}, trace.span_s)


def _ladders(settings: Settings, start_s: float | None) -> Ladders:
    """Return each model's ladder, by the starts that the gateway has measured."""
    file = None if settings.cache is None else settings.cache.directory / "learned.json"
    known = orjson.loads(file.read_bytes()) if file is not None and file.exists() else {}
    starts: dict[str, float] = {}
    for model, record in known.items():
        costs = ModelCosts()
        costs.load(record["costs"])
        starts[model] = costs.start_s()
    ladders = {
        model: two_rungs(start_s if start_s is not None else starts.get(model, _START_S)) for model in settings.models
    }
    return ladders.__getitem__


def _setting(settings: Settings, model: str) -> str:
    keep_s = settings.models[model].pool.keep_warm_s
    return PREDICT if keep_s is None else written(keep_s)


def _table(daily: dict[str, Daily], current: dict[str, str], origin: int, changes: Sequence[Change]) -> Table:
    proposed = {change.model: change for change in changes}
    table = Table(title="Cost in warm idle hours, on the days that were judged")
    for column in ("model", "now", "cost", PREDICT, "best fixed time", "proposal"):
        table.add_column(column)
    for model, days in daily.items():
        cost = {setting: by_day[origin:].sum() / 3600 for setting, by_day in days.by_setting.items()}
        best = min((setting for setting in cost if setting != PREDICT), key=lambda setting: cost[setting])
        change = proposed.get(model)
        table.add_row(
            model,
            current[model],
            f"{cost[current[model]]:.2f}",
            f"{cost[PREDICT]:.2f}",
            f"{cost[best]:.2f} ({best})",
            "none" if change is None else f"{change.new}: {change.evidence()}",
        )
    return table


def _report(
    daily: dict[str, Daily], current: dict[str, str], origin: int, changes: Sequence[Change]
) -> dict[str, object]:
    return {
        "judged_from_day": origin,
        "models": {
            model: {
                "now": current[model],
                "cost_s": {setting: float(by_day[origin:].sum()) for setting, by_day in days.by_setting.items()},
            }
            for model, days in daily.items()
        },
        "changes": [asdict(change) for change in changes],
    }


if __name__ == "__main__":
    sys.exit(main())
