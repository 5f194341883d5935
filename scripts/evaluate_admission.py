#!/usr/bin/env python
"""Shows what the memory tier's admission is worth: hit ratios against other policies, and what a hit costs.

`scripts/evaluate_admission.py [--requests N] [--seed N] [--json]`. Sizes of answers differ by a factor of a thousand;
the budget is a share of what all answers that are asked for twice would take.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from scripts.admission import POLICIES, Figures, replay, traces

SHARES = (0.01, 0.05, 0.2)
_TIMED_HITS = 200_000


def figures(requests: int, seed: int) -> Iterator[tuple[str, float, dict[str, Figures]]]:
    """Yield trace, share of the budget, and what each policy made of it."""
    for trace in traces(requests, seed):
        footprint = trace.footprint_bytes()
        for share in SHARES:
            found = {name: replay(policy(int(footprint * share)), trace) for name, policy in POLICIES.items()}
            yield trace.name, share, found


def hit_ns(name: str) -> float:
    """Return what one hit costs a policy in nanoseconds, what makes a key left out: the least of five tries."""
    look = POLICIES[name](1 << 26).looks(range(1000))
    tries = []
    for _ in range(5):
        started = time.perf_counter_ns()
        for _ in range(_TIMED_HITS // 5000):
            for each in look:
                each()
        tries.append((time.perf_counter_ns() - started) / (_TIMED_HITS // 5))
    return min(tries)


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if not options.json:
        sys.stdout.write(f"{'trace':<12} {'budget':>6}  " + "".join(f"{name:>22}" for name in POLICIES) + "\n")
    for trace, share, found in figures(options.requests, options.seed):
        rows.append(
            {"trace": trace, "budget": share, **{name: dataclasses.asdict(each) for name, each in found.items()}}
        )
        if not options.json:
            cells = [f"{each.hit_ratio:.2%} / {each.byte_hit_ratio:.2%}" for each in found.values()]
            sys.stdout.write(f"{trace:<12} {share:>6.0%}  " + "".join(f"{cell:>22}" for cell in cells) + "\n")
            sys.stdout.flush()
    costs = {name: round(hit_ns(name)) for name in POLICIES}
    if options.json:
        sys.stdout.write(json.dumps({"requests": options.requests, "rows": rows, "hit_ns": costs}, indent=2) + "\n")
    else:
        sys.stdout.write(f"{'ns per hit':<20} " + "".join(f"{cost:>22}" for cost in costs.values()) + "\n")


if __name__ == "__main__":
    main()
