#!/usr/bin/env python
"""Replays your own traffic and says for which models another `keep_warm` would have been cheaper.

    .venv/bin/python scripts/tune_warm_pool.py --config gateway.yaml --trace requests.csv [--write] [--json FILE]
    .venv/bin/python scripts/tune_warm_pool.py --config gateway.yaml --log var/access.jsonl [--png FILE]

The trace is a CSV (or .csv.gz) with the columns `timestamp_s,model` and, if you have it, `service_s`; the log is what
the gateway writes to `server.access_log`. Each setting is chosen by the days before and judged on the day after; a
change is proposed only where its gain is certain and not slight, and with `--write` it is made in the file, whose
comments and order stay. Beside that it shows what other policies would have cost. Costs are in hours of one warm, idle
replica, and a second that a request waits counts for a hundred. What a start takes is what the gateway has learned, or
`--start`.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from config.load import load
from config.problems import ConfigError
from config.settings import Settings
from scripts.tuning.choosing import PREDICT, TIMES_S, Daily, TooShortError, choose, costs_by_day, origin_day, written
from scripts.tuning.comparing import REPLAYS, Compared, compared
from scripts.tuning.drawing import draw
from scripts.tuning.known import Known, known_of
from scripts.tuning.policies import time_to_live
from scripts.tuning.proposal import Change, SharedError, diff, edited, told_of_slight, worth_it
from scripts.tuning.replay import DAY_S, replay
from scripts.tuning.showing import show, table_of
from scripts.tuning.traces import Trace, TraceError, read_log, read_trace


def main(arguments: Sequence[str] | None = None) -> int:
    """Weigh, print, and write where that was asked for."""
    options = _options(arguments)
    console = Console(stderr=True)
    try:
        settings = load(options.config, os.environ)
        trace = read_log(options.log) if options.trace is None else read_trace(options.trace)
        trace, left_out = _started_here(trace, settings)
        origin = origin_day(trace)
    except (TraceError, TooShortError, ConfigError, OSError) as error:
        file = error.filename if isinstance(error, OSError) else None
        console.print(f"[red]{error if file is None else f'{file}: {error.strerror}'}")
        return 1
    for model, requests in left_out.items():
        words = f"left out: {model} (requests: {requests}), {_why_left_out(model, settings)}"
        console.print(f"[yellow]{escape(words)}", soft_wrap=True)
    known = known_of(settings, options.start)
    keep_s = {model: settings.models[model].pool.keep_warm_s for model in trace.idle}
    current = {model: PREDICT if time is None else written(time) for model, time in keep_s.items()}
    times = sorted({*TIMES_S, *(time for time in keep_s.values() if time is not None)})
    with Progress(console=console, transient=True) as progress:
        total = (1 + REPLAYS) * sum(len(idle.ends_s) for idle in trace.idle.values())
        task = progress.add_task("replaying", total=total)
        daily = costs_by_day(trace, known.ladders, times, lambda: progress.advance(task))
        policies = compared(
            trace,
            known.ladders,
            keep_s,
            origin_s=origin * DAY_S,
            sizes=known.sizes,
            progress=lambda: progress.advance(task),
        )
    certain = [change for model in daily if (change := choose(model, daily[model], current[model], origin))]
    costs = {model: float(days.by_setting[current[model]][origin:].sum()) for model, days in daily.items()}
    changes, slight = worth_it(certain, costs)
    show(_table_of_policies(policies, known))
    show(_table(daily, current, origin, changes))
    try:
        text = edited(options.config, changes)
    except SharedError as error:
        console.print(f"[red]{options.config}: {error}")
        return 1
    print(
        diff(options.config, text)
        or "Nothing to change: no other setting would have been cheaper by enough, and for certain."
    )
    if slight:
        print(told_of_slight(slight))
    if options.json is not None:
        weighed = {"left_out": left_out, "policies": [each.figures() for each in policies]}
        options.json.write_text(json.dumps(_report(daily, current, origin, changes) | weighed, indent=2))
    if options.png is not None:
        _draw(options.png, trace, known, policies, origin * DAY_S)
    if options.write and changes:
        options.config.write_bytes(text.encode())  # with the line ends that it has
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--trace", type=Path, help="CSV file with timestamp_s,model[,service_s]")
    source.add_argument("--log", type=Path, help="the gateway's own access log")
    parser.add_argument("--start", type=float, help="seconds of a start (default: as learned, or 5)")
    parser.add_argument("--write", action="store_true", help="change the file")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--png", type=Path, help="draw what is held against what is waited; needs matplotlib")
    return parser.parse_args(arguments)


def _started_here(trace: Trace, settings: Settings) -> tuple[Trace, Mapping[str, int]]:
    """Return the trace of those models that are kept warm here, and how many requests it has of each other one.

    Raises `TraceError` where none is.
    """
    kept = [model for model in trace.idle if model in settings.models and settings.models[model].http is None]
    if not kept:
        ours = ", ".join(name for name, model in settings.models.items() if model.http is None)
        raise TraceError(
            f"the trace is of {', '.join(trace.idle)}; none of them is a model that is started here: {ours}"
        )
    idle = {model: trace.idle[model] for model in kept}
    left_out = {model: len(asked_s) for model, asked_s in trace.asked_s.items() if model not in idle}
    asked_s = {model: trace.asked_s[model] for model in kept}
    return Trace(idle, asked_s, trace.span_s, trace.start_s), left_out


def _why_left_out(model: str, settings: Settings) -> str:
    if model in settings.models:
        return "which is asked at its upstream and not started here"
    meant = "".join(f"; is {name} meant?" for name in get_close_matches(model, settings.models, 1))
    return f"which the config does not have{meant}"


def _table_of_policies(policies: Sequence[Compared], known: Known) -> Table:
    sizes = "; what was never measured counts as 1 GiB" if known.unknown_sizes else ""
    figures = ("cold\nstarts", "wait in s\np50, p95, p99", "cost", "against now\n(95 %)")
    columns = ("policy", *figures[:2], "idle GiB·h", *figures[2:])
    table = table_of(f"All models together, on the days that were judged{sizes}", columns, figures)
    for policy in policies:
        found, difference = policy.figures(), policy.difference
        idle = ", ".join(f"{level} {held / 3600:.3g}" for level, held in found["idle_gib_s"].items())
        waits_s = ", ".join(f"{wait_s:.3g}" for wait_s in found["added_wait_s"].values())
        against = f"{100 * difference.share:+.0f} % ({100 * difference.low:+.0f} to {100 * difference.high:+.0f})"
        cost = f"{found['cost_s'] / 3600:.2f}"
        table.add_row(policy.name, str(found["cold_starts"]), waits_s, idle or "none", cost, against)
    return table


def _table(daily: dict[str, Daily], current: dict[str, str], origin: int, changes: Sequence[Change]) -> Table:
    proposed = {change.model: change for change in changes}
    columns = ("model", "now", "cost", PREDICT, "best fixed time", "proposal")
    table = table_of("Cost of each model in warm idle hours, on the days that were judged", columns)
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


def _draw(file: Path, trace: Trace, known: Known, policies: Sequence[Compared], origin_s: float) -> None:
    fixed = [
        (written(keep_s), replay(trace, known.ladders, time_to_live(known.ladders, keep_s), origin_s))
        for keep_s in TIMES_S
    ]
    draw(file, [(each.name, each.accounts) for each in policies], fixed, known.ladders, list(trace.idle))


if __name__ == "__main__":
    sys.exit(main())
