#!/usr/bin/env python
"""Measures the semantic cache on a set of question pairs: paraphrases kept against near-misses served.

    .venv/bin/python scripts/evaluate_semantic_cache.py --pairs FILE [--half report] [--json FILE] [--png FILE]
        [--verdicts FILE]

It compares a plain cosine threshold (`cosine`), cosine behind the guards as they judge without a verifier (`guards`),
and what the gateway ships (`shipped`): the sure guards' vetoes and the verifier's confidence, raised where the strict
guards too pass a pair. What is trained or tuned on is the half `tune`; figures are told of the half `report`.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.semantic import DEFAULT_THRESHOLD
from cache.semantic.guards import find_vetoes
from cache.semantic.judging import LEAST_SIMILARITY, weigh_with_guards
from cache.semantic.vectors import similarity
from gateway.trust.verifier import START_CONFIDENCE
from scripts.pairs.curves import ALLOWED, Floats, summary
from scripts.pairs.latency import measure
from scripts.pairs.models import Verifier
from scripts.pairs.sets import SHAPES, BadSetError, Pair, read_pairs
from scripts.running_gateway import ROOT

_CANNOT_READ = 2
_LEGEND = f"""
cosine, guards, shipped  the settings: a cosine threshold; cosine behind the strict guards; what the gateway does
keeps K [L, H]           the share of the paraphrases that the cache answers, with its 95 % limits (Wilson)
where {ALLOWED:.0%} are served      at the threshold that serves at most {ALLOWED:.0%} of the near-misses: wrongly
starts at T              what is kept and served at T, the threshold that a gateway begins with
wrong per hit            which share of the hits is wrong: as this set is mixed (mix own), and where 5 %, 20 % or 50 %
                         of the candidates are near-misses; '-' where there was no hit. At T, or as above
in flight                decisions under way at a time; the embedding's part and the judging's are told apart
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of a pair. `confidence` is None where the verifier was not asked: far apart, or surely vetoed."""

    pair: Pair
    cosine: float
    sure: tuple[str, ...]
    strict: tuple[str, ...]
    confidence: float | None

    @property
    def served(self) -> bool:
        """Whether a gateway serves one's answer to the other at the threshold that it starts with."""
        return self.confidence is not None and self.confidence >= START_CONFIDENCE

    def told(self) -> dict[str, Any]:
        """Return it as `--verdicts` writes it."""
        return {
            "a": self.pair.a,
            "b": self.pair.b,
            "label": int(self.pair.same),
            "cosine": round(self.cosine, 4),
            "vetoes": {"sure": self.sure, "strict": self.strict},
            "confidence": None if self.confidence is None else round(self.confidence, 4),
            "served": self.served,
        }


def judge(pairs: Sequence[Pair], models: Path) -> list[Verdict]:
    """Judge every pair as the gateway does: what is far, or what a sure guard vetoes, the verifier is not asked."""
    verifier = Verifier(models)
    meanings = verifier.meanings(text for pair in pairs for text in (pair.a, pair.b))
    verdicts = []
    for pair in pairs:
        a, b = meanings[pair.a], meanings[pair.b]
        cosine, confidence = similarity(a.vector, b.vector), None
        strict = tuple(veto.guard for veto in find_vetoes(pair.a, pair.b))
        sure = tuple(veto.guard for veto in find_vetoes(pair.a, pair.b, only_sure=True))
        if cosine >= LEAST_SIMILARITY and not sure:
            confidence = weigh_with_guards(verifier.confidences(a, [b])[0], agreed=not strict)
        verdicts.append(Verdict(pair, float(cosine), sure, strict, confidence))
    return verdicts


def scores_of(verdicts: Sequence[Verdict]) -> dict[str, tuple[Floats, float | None]]:
    """Return each setting's scores, and the threshold that it starts with in a gateway."""
    guarded = [-math.inf if each.strict else each.cosine for each in verdicts]
    shipped = [-math.inf if each.confidence is None else each.confidence for each in verdicts]
    return {
        "cosine": (np.array([each.cosine for each in verdicts]), None),
        "guards": (np.array(guarded), DEFAULT_THRESHOLD),
        "shipped": (np.array(shipped), START_CONFIDENCE),
    }


def evaluate(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Tell of every setting what it keeps and what it serves."""
    same = np.array([each.pair.same for each in verdicts], dtype=bool)
    settings = {name: summary(scores, same, start) for name, (scores, start) in scores_of(verdicts).items()}
    return {
        "pairs": len(verdicts),
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
    print(_LEGEND, end="")


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
    """Read a set, judge it, tell; end with status 2 where the set or the models cannot be read."""
    options = _options()
    try:
        pairs = read_pairs(options.pairs, sample=options.sample, half=options.half)
    except BadSetError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_CANNOT_READ)
    if lacking := [name for name in ("minilm", "verifier") if not (options.models / name / "model.onnx").is_file()]:
        sys.stderr.write(f"{options.models} has no {' and no '.join(lacking)}: scripts/setup makes them\n")
        sys.exit(_CANNOT_READ)
    verdicts = judge(pairs, options.models)
    told = {"file": options.pairs.name, "half": options.half, **evaluate(verdicts)}
    if not options.no_latency:
        told["latency"] = measure(pairs, options.models)
    show(told)
    if options.png is not None:
        _draw(told, options.png)
    if options.json is not None:
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    if options.verdicts is not None:
        lines = (json.dumps(each.told(), ensure_ascii=False) for each in verdicts)
        options.verdicts.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _draw(told: dict[str, Any], path: Path) -> None:
    if not told["paraphrases"] or not told["near_misses"]:
        sys.stderr.write(f"{path} is not drawn: a curve needs paraphrases and near-misses\n")
        return
    from scripts.pairs.drawing import draw  # noqa: PLC0415 - only --png needs the tools of development

    counts = f"{told['paraphrases']} paraphrases, {told['near_misses']} near-misses"
    draw(f"{told['file']}, half {told['half']}: {counts}", told, ALLOWED, path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=SHAPES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=Path, required=True, help="the set; its shapes are told below")
    parser.add_argument("--half", choices=["all", "tune", "report"], default="all", help="which half of the pairs")
    parser.add_argument("--sample", type=int, default=0, help="at most so many pairs, drawn by a fixed seed (0: all)")
    parser.add_argument("--models", type=Path, default=ROOT / "var" / "models", help="where the built models are")
    parser.add_argument("--json", type=Path, help="write what was found here, without the pairs")
    parser.add_argument(
        "--verdicts",
        type=Path,
        help="write a JSON line for each pair: a, b, label, cosine, vetoes by the sure guards and by the strict ones, "
        "confidence (null where the verifier is not asked), and whether it is served at the start threshold",
    )
    parser.add_argument("--png", type=Path, help="draw the curves here")
    parser.add_argument("--no-latency", action="store_true", help="do not time the decision on workers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
