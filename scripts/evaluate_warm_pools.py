#!/usr/bin/env python
"""Weighs how the gateway keeps models warm against other policies, on traces that it was not tuned on.

    .venv/bin/python scripts/evaluate_warm_pools.py [--servegen FILE] [--kinds KIND...] [--days N] [--json FILE]

Each trace is one of seeded synthetic kinds, or drawn from ServeGen's windows of rates. Models may sleep: 47 s from
nothing to an answer, 2.9 s from sleep (vLLM's figures for a 30B model on an A100). A waited second is worth `V` seconds
of a warm, idle replica, one asleep costs the share `r` of a warm one. The fixed time to live is the best in hindsight
of the whole trace; nothing of ours is tuned. The optimum knows each idle time in advance and only goes down the ladder.
What is known of the hours of the week is used from the third week on: `after two weeks` is what it changes then.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from backends.warmth.course import fixed
from backends.warmth.ladder import Ladder, Level, Rung
from scripts.tuning.choosing import by_day
from scripts.tuning.policies import HybridHistogram, Ladders, Ours, by_break_even
from scripts.tuning.replay import Accounts, least, replay
from scripts.tuning.servegen import draw
from scripts.tuning.showing import show, table_of
from scripts.tuning.slots import POLICIES, Requests
from scripts.tuning.synthetic import KINDS, make
from scripts.tuning.traces import Trace

COLD_S, WAKE_S = 47.0, 2.9
PRICES = ((30.0, 0.1), (100.0, 0.1), (300.0, 0.02))
SLOTS = (4, 8, 16)
_TTLS_S = (0, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 28_800, 86_400, 172_800, 1e9)
# Requests of one model within this time are one to those who only look who is there.
_GRAIN_S = 60.0
_LEARNING_DAYS = 14
_SHARES = ("of best TTL", "of hybrid", "of break-even", "of optimum", "after two weeks")
_COLUMNS = ("trace", "V", "r", *_SHARES, "cold", "wait p99")


@dataclass(frozen=True, slots=True)
class Row:
    """What the policies cost on one trace, in warm idle hours; waits are ours, in seconds over all requests.

    `by_hour` is our cost after two weeks as a share of what it would be if no hours of the week were known.
    """

    trace: str
    wait_value: float
    asleep_price: float
    best_ttl_s: float
    ttl: float
    hybrid: float
    break_even: float
    ours: float
    optimum: float
    by_hour: float | None
    cold_share: float
    wait_p99_s: float
    idle_hours: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Weigh, print, and draw where that was asked for."""
    options = _options(arguments)
    traces = {kind: make(kind, seed=options.seed, days=options.days) for kind in options.kinds}
    if options.servegen is not None:
        traces["servegen"] = draw(options.servegen, options.seed)
    work = [(name, trace, *price) for name, trace in traces.items() for price in PRICES]
    rows = [_row(*each) for each in track(work, "replaying", console=Console(stderr=True), transient=True)]
    slots = _slots(traces["servegen"]) if "servegen" in traces else {}
    _print(rows, slots)
    if options.json is not None:
        options.json.write_text(json.dumps({"rows": [asdict(row) for row in rows], "slots": slots}, indent=2))
    if options.png is not None:
        drawn = next((name for name in ("servegen", "diurnal") if name in traces), options.kinds[0])
        _draw(traces[drawn], options.png)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servegen", type=Path, help="ServeGen's windows (.csv.gz); each client stands for one model")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS], help="the synthetic kinds")
    parser.add_argument("--days", type=int, default=14, help="the length of synthetic traces")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path, help="draw cost of waiting against cost of holding")
    return parser.parse_args(arguments)


def _ladders(wait_value: float, asleep_price: float) -> Ladders:
    rungs = [Rung(Level.WARM, 1.0, 0.0), Rung(Level.ASLEEP, asleep_price, WAKE_S), Rung(Level.ABSENT, 0.0, COLD_S)]
    ladder = Ladder.of(rungs, wait_value)
    return lambda _: ladder


def _row(name: str, trace: Trace, wait_value: float, asleep_price: float) -> Row:
    ladders = _ladders(wait_value, asleep_price)
    ttl, best_ttl_s = min((_fixed(trace, ladders, ttl_s), ttl_s) for ttl_s in _TTLS_S)
    ours = replay(trace, ladders, Ours(ladders))
    return Row(
        name,
        wait_value,
        asleep_price,
        best_ttl_s,
        ttl / 3600,
        replay(trace, ladders, HybridHistogram(ladders)).cost / 3600,
        replay(trace, ladders, by_break_even(ladders)).cost / 3600,
        ours.cost / 3600,
        least(trace, ladders) / 3600,
        _by_hour(trace, ladders, ours),
        ours.cold_share,
        ours.wait_s(0.99),
        {level.name.lower(): held / 3600 for level, held in ours.held_s.items() if held},
    )


def _by_hour(trace: Trace, ladders: Ladders, ours: Accounts) -> float | None:
    if len(ours.cost_by_day) <= _LEARNING_DAYS:
        return None
    without = replay(trace, ladders, Ours(ladders, by_hour=False))
    return float(ours.cost_by_day[_LEARNING_DAYS:].sum() / without.cost_by_day[_LEARNING_DAYS:].sum())


def _fixed(trace: Trace, ladders: Ladders, ttl_s: float) -> float:
    return sum(
        float(by_day(idle, ladders(model), fixed(ladders(model), ttl_s), 1).sum()) for model, idle in trace.idle.items()
    )


def _slots(trace: Trace) -> dict[str, dict[str, float]]:
    """Return the share of requests that found their model absent, for each number of slots and policy."""
    requests = _requests(trace)
    return {
        str(slots): {name: missed(requests, slots) / len(requests) for name, missed in POLICIES.items()}
        for slots in SLOTS
    }


def _requests(trace: Trace) -> Requests:
    found: list[tuple[float, str]] = []
    for model, asked_s in trace.asked_s.items():
        grain = np.floor(asked_s / _GRAIN_S)
        found += [(at, model) for at in asked_s[np.concatenate([[True], grain[1:] != grain[:-1]])].tolist()]
    return sorted(found)


def _print(rows: Iterable[Row], slots: dict[str, dict[str, float]]) -> None:
    table = table_of("Cost as a share of another policy's", _COLUMNS)
    for row in rows:
        shares = [f"{row.ours / other:.2f}" for other in (row.ttl, row.hybrid, row.break_even, row.optimum)]
        shares.append("" if row.by_hour is None else f"{row.by_hour:.3f}")
        cells = [row.trace, f"{row.wait_value:g}", f"{row.asleep_price:g}", *shares]
        table.add_row(*cells, f"{100 * row.cold_share:.2g} %", f"{row.wait_p99_s:.1f} s")
    show(table)
    for count, missed in slots.items():
        closed = (missed["LRU"] - missed["ours"]) / (missed["LRU"] - missed["Belady"])
        figures = ", ".join(f"{name} {100 * share:.1f} %" for name, share in missed.items())
        print(f"{count} slots: absent {figures}; {100 * closed:.0f} % of the way from LRU to Belady")


def _draw(trace: Trace, file: Path) -> None:
    """Draw the frontier: hours held against hours waited, as the worth of a wait goes up."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and only wanted here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 5))
    for name, policy in (("break-even", by_break_even), ("ours", Ours), ("hybrid histogram", HybridHistogram)):
        accounts = [replay(trace, ladders, policy(ladders)) for ladders in _price_range()]
        axes.plot([_held_h(a) for a in accounts], [a.waits_s.sum() / 3600 for a in accounts], "o-", label=name)
    axes.set(xlabel="held while idle, in warm hours", ylabel="waited, hours", xscale="log", yscale="log")
    axes.legend()
    figure.savefig(file, dpi=120, bbox_inches="tight")


def _price_range() -> list[Ladders]:
    return [_ladders(wait_value, 0.1) for wait_value in (3.0, 10.0, 30.0, 100.0, 300.0)]


def _held_h(accounts: Accounts) -> float:
    return (accounts.held_s[Level.WARM] + 0.1 * accounts.held_s[Level.ASLEEP]) / 3600


if __name__ == "__main__":
    sys.exit(main())
