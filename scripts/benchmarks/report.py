"""Turns runs into medians and ratios, and those into a table and JSON. Pure, but for printing.

A ratio is the median of the ratios of each round: what slows the machine for a while slows both sides of a round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.benchmarks.cold_start import ColdStart
from scripts.benchmarks.contests import BARE, CACHE, GATEWAY, Contest
from scripts.benchmarks.meanings import EMBEDDING
from scripts.benchmarks.passing import PROXY, ROUTER, FirstBytes

AT_LEAST_OF = {EMBEDDING: 0.8, BARE: 0.85, CACHE: 1.5, PROXY: 0.6, ROUTER: 1.5}
AT_MOST_ADDED_MS = 0.3
AT_MOST_OF_SESSION = 2.0


@dataclass(frozen=True, slots=True)
class Bearer:
    """The medians of one who bore a load; the gateway's rate, and its answers per second of computing, as shares."""

    load: str
    name: str
    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    rate_ratio: float
    cpu_ratio: float


@dataclass(frozen=True, slots=True)
class Start:
    """The medians of the cold starts in seconds, and the answer's time as a multiple of both session builds."""

    answer_s: float
    start_s: float
    session_s: float
    again_s: float
    session_ratio: float
    again_ratio: float


def bearers(contest: Contest) -> list[Bearer]:
    """Sum up one load."""
    ours = contest.runs[GATEWAY]
    return [
        Bearer(
            load=contest.title,
            name=name,
            per_s=median(run.per_s for run in runs),
            p50_ms=median(run.p50_ms for run in runs),
            p99_ms=median(run.p99_ms for run in runs),
            cpu_us=median(run.cpu_us for run in runs),
            rate_ratio=median(our.per_s / run.per_s for our, run in zip(ours, runs, strict=True)),
            cpu_ratio=median(run.cpu_us / our.cpu_us for our, run in zip(ours, runs, strict=True)),
        )
        for name, runs in contest.runs.items()
    ]


def start_of(rounds: Sequence[ColdStart]) -> Start:
    """Sum up the cold starts."""
    return Start(
        answer_s=median(one.answer_s for one in rounds),
        start_s=median(one.start_s for one in rounds),
        session_s=median(one.session_s for one in rounds),
        again_s=median(one.again_s for one in rounds),
        session_ratio=median(one.answer_s / one.session_s for one in rounds),
        again_ratio=median(one.answer_s / one.again_s for one in rounds),
    )


def as_json(
    contests: Sequence[Contest],
    first: FirstBytes | None,
    rounds: Sequence[ColdStart],
    conditions: Mapping[str, object],
) -> dict[str, Any]:
    """Return medians, ratios and every single run."""
    return {
        "conditions": dict(conditions),
        "loads": [asdict(bearer) for contest in contests for bearer in bearers(contest)],
        "first_byte": asdict(first) | {"added_s": first.added_s} if first else None,
        "cold_start": asdict(start_of(rounds)) if rounds else None,
        "runs": {
            contest.title: {name: [asdict(run) for run in runs] for name, runs in contest.runs.items()}
            for contest in contests
        },
        "cold_starts": [asdict(one) for one in rounds],
    }


def show(console: Console, contests: Sequence[Contest], first: FirstBytes | None, rounds: Sequence[ColdStart]) -> None:
    """Print the tables."""
    if contests:
        console.print(_loads(contests))
    if first is not None:
        direct_ms, through_ms = median(first.direct_s) * 1000, median(first.through_s) * 1000
        console.print(
            f"First byte of a stream, 1 client: {direct_ms:.3f} ms directly, {through_ms:.3f} ms through the gateway,"
            f" {first.added_s * 1000:.3f} ms added (target ≤ {AT_MOST_ADDED_MS:g})"
        )
    if rounds:
        console.print(_starts(rounds))


def _loads(contests: Sequence[Contest]) -> Table:
    table = Table("", title="Under load: medians, and the gateway's share of the others' speed")
    for column in ("per s", "p50 ms", "p99 ms", "CPU µs", "by rate", "by CPU", "target"):
        table.add_column(column, justify="right", no_wrap=True)
    for contest in contests:
        table.add_row(f"[bold]{contest.title}")
        for row in bearers(contest):
            against = row.name != GATEWAY
            table.add_row(
                row.name,
                f"{row.per_s:,.0f}",
                f"{row.p50_ms:.2f}",
                f"{row.p99_ms:.2f}",
                f"{row.cpu_us:.0f}",
                f"{row.rate_ratio:.2f}" if against else "",
                f"{row.cpu_ratio:.2f}" if against else "",
                f"≥ {AT_LEAST_OF[row.name]}" if row.name in AT_LEAST_OF else "",
            )
        table.add_section()
    return table


def _starts(rounds: Sequence[ColdStart]) -> Table:
    start = start_of(rounds)
    table = Table("", title="Cold start of intents: medians, and the answer as a multiple of the others")
    for column in ("ms", "multiple", "target"):
        table.add_column(column, justify="right", no_wrap=True)
    rows = (
        ("from the request to its answer", start.answer_s, None, ""),
        ("of that, waiting for the replica", start.start_s, None, ""),
        ("session alone, first of its process", start.session_s, start.session_ratio, f"≤ {AT_MOST_OF_SESSION:g}"),
        ("session alone, process did it before", start.again_s, start.again_ratio, ""),
    )
    for what, seconds, multiple, target in rows:
        table.add_row(what, f"{seconds * 1000:.0f}", "" if multiple is None else f"{multiple:.2f}", target)
    return table
