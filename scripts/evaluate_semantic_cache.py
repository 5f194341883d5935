#!/usr/bin/env python
"""Measures the semantic cache on a set of question pairs: paraphrases kept against near-misses served.

    .venv/bin/python scripts/evaluate_semantic_cache.py --pairs FILE [--half report] [--json FILE] [--png FILE]

It compares a plain cosine threshold, cosine behind the guards as they judge without a verifier, and what the gateway
ships: the sure guards' vetoes and the verifier's confidence, raised where the strict guards too pass a pair. Sets are
JSON lines with a, b and label, JSON lists, or a CSV of texts with categories. What is trained or tuned on is the half
`tune`; figures are told of the half `report`.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from cache.semantic import DEFAULT_THRESHOLD
from cache.semantic.guards import find_veto
from cache.semantic.judging import LEAST_SIMILARITY, weigh_with_guards
from cache.semantic.vectors import similarity
from gateway.trust.verifier import START_CONFIDENCE
from scripts.pairs.curves import ALLOWED, Floats, summary
from scripts.pairs.latency import measure
from scripts.pairs.models import Verifier
from scripts.pairs.sets import Pair, read_pairs
from scripts.running_gateway import ROOT


def scores_of(pairs: list[Pair], models: Path) -> dict[str, tuple[Floats, float | None]]:
    """Return each setting's scores, and the threshold that it starts with in a gateway."""
    verifier = Verifier(models)
    meanings = verifier.meanings(text for pair in pairs for text in (pair.a, pair.b))
    cosine = np.array([similarity(meanings[pair.a].vector, meanings[pair.b].vector) for pair in pairs])
    guarded = np.array([-math.inf if find_veto(p.a, p.b) else c for p, c in zip(pairs, cosine, strict=True)])
    shipped = np.full(len(pairs), -math.inf)
    for at, pair in enumerate(pairs):
        # As the gateway judges: what is far, or what a sure guard vetoes, the verifier is not asked about.
        if cosine[at] >= LEAST_SIMILARITY and find_veto(pair.a, pair.b, only_sure=True) is None:
            confidence = verifier.confidences(meanings[pair.a], [meanings[pair.b]])[0]
            shipped[at] = weigh_with_guards(confidence, pair.b, pair.a)
    return {
        "cosine": (cosine, None),
        "guards": (guarded, DEFAULT_THRESHOLD),
        "shipped": (shipped, START_CONFIDENCE),
    }


def evaluate(pairs: list[Pair], models: Path) -> dict[str, Any]:
    """Judge every pair by every setting."""
    same = np.array([pair.same for pair in pairs], dtype=bool)
    settings = {name: summary(scores, same, start) for name, (scores, start) in scores_of(pairs, models).items()}
    return {
        "pairs": len(pairs),
        "paraphrases": int(same.sum()),
        "near_misses": int((~same).sum()),
        "settings": settings,
    }


def show(told: dict[str, Any]) -> None:
    """Print what was found."""
    print(f"{told['file']}, half {told['half']}: {told['paraphrases']} paraphrases, {told['near_misses']} near-misses")
    if not told["paraphrases"] or not told["near_misses"]:
        lacking = "near-misses" if told["paraphrases"] else "paraphrases"
        print(f"    the set has no {lacking}: there is no curve, only what is served of the others")
    for name, setting in told["settings"].items():
        _show_setting(name, setting)
    for in_flight, steps in told.get("latency", {}).items():
        for step, taken in steps.items():
            figures = (
                f"p50 {taken['p50_ms']:.2f} ms, p99 {taken['p99_ms']:.2f} ms, {taken['per_second']:.0f} per second"
            )
            print(f"    {step} at {in_flight} in flight: {figures}")


def _show_setting(name: str, setting: dict[str, Any]) -> None:
    kept = setting["kept_at_2_percent_served"]
    threshold = setting["threshold_at_2_percent_served"]
    if kept is not None:
        low, high = setting["kept_limits"]
        at = "nothing" if threshold is None else f"threshold {threshold:.3f}"
        print(f"    {name:8} keeps {kept:6.1%} [{low:.1%}, {high:.1%}] where {ALLOWED:.0%} are served ({at})")
    start = setting.get("at_start")
    if start is not None:
        shares = ", ".join(f"{what} {_percent(start[what])}" for what in ("kept", "served"))
        print(f"             starts at {start['threshold']:.3f}: {shares}")
    for mix, wrong in (start or setting)["wrong_per_hit"].items():
        limits = f"[{_percent(wrong['low'])}, {_percent(wrong['high'])}]"
        print(f"             wrong per hit, mix {mix:>4}: {_percent(wrong['wrong_per_hit'])} {limits}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def main() -> None:
    """Read a set, judge it, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="the set: .jsonl, .json or .csv, also with .gz")
    parser.add_argument("--half", choices=["all", "tune", "report"], default="all", help="which half of the pairs")
    parser.add_argument("--sample", type=int, default=0, help="at most so many pairs, drawn by a fixed seed (0: all)")
    parser.add_argument("--models", type=Path, default=ROOT / "var" / "models", help="where the built models are")
    parser.add_argument("--json", type=Path, help="write what was found here")
    parser.add_argument("--png", type=Path, help="draw the curves here")
    parser.add_argument("--no-latency", action="store_true", help="do not time the decision on workers")
    options = parser.parse_args()
    pairs = read_pairs(options.pairs, sample=options.sample, half=options.half)
    told = {"file": options.pairs.name, "half": options.half, **evaluate(pairs, options.models)}
    if not options.no_latency:
        told["latency"] = measure(pairs, options.models)
    show(told)
    if options.png is not None:
        from scripts.pairs.drawing import draw  # noqa: PLC0415 - only --png needs the tools of development

        draw(f"{told['file']}, half {told['half']}", told["settings"], ALLOWED, options.png)
    if options.json is not None:
        options.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
