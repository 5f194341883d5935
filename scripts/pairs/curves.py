"""Curves of paraphrases kept against near-misses served, and how wrong a hit is. Numbers in, numbers out.

A score says how sure a setting is of a pair; what scores at least the threshold is served. A pair that is vetoed
scores minus infinity. Intervals are Wilson's (1927) for a proportion, at 95 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
# Where the wrong share of a mixture is bounded, both proportions stand at their own limits at once.
Z_BOTH = 2.236477
MIXES = (0.05, 0.2, 0.5)
ALLOWED = 0.02

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Point:
    """A threshold, the share of near-misses that is served at it, and the share of paraphrases that is kept."""

    threshold: float
    served: float
    kept: float


def wilson(hits: int, of: int, z: float = Z95) -> tuple[float, float]:
    """Return the limits of a proportion; everything is possible where nothing was tried."""
    if of == 0:
        return 0.0, 1.0
    share, square = hits / of, z * z
    middle = (share + square / (2 * of)) / (1 + square / of)
    width = z / (1 + square / of) * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return max(0.0, middle - width), min(1.0, middle + width)


def curve(scores: Floats, same: NDArray[np.bool_]) -> list[Point]:
    """Return a point for every threshold that serves something, the strictest first."""
    thresholds = np.unique(scores[np.isfinite(scores)])[::-1]
    good, bad = np.sort(scores[same]), np.sort(scores[~same])
    kept = 1 - np.searchsorted(good, thresholds) / max(1, good.size)
    served = 1 - np.searchsorted(bad, thresholds) / max(1, bad.size)
    return [
        Point(float(t), float(s) if bad.size else 0.0, float(k) if good.size else 0.0)
        for t, s, k in zip(thresholds, served, kept, strict=True)
    ]


def best_within(points: Sequence[Point], allowed: float = ALLOWED) -> Point | None:
    """Return the point that keeps most where no more than the allowed share of near-misses is served."""
    return max((p for p in points if p.served <= allowed), key=lambda p: (p.kept, p.threshold), default=None)


def wrong_per_hit(scores: Floats, same: NDArray[np.bool_], threshold: float) -> dict[str, Any]:
    """Return the share of hits that is wrong, with limits: as the set is mixed, and at other shares of near-misses."""
    kept, served = int((scores[same] >= threshold).sum()), int((scores[~same] >= threshold).sum())
    of_same, of_other = int(same.sum()), int((~same).sum())
    told: dict[str, Any] = {"own": _shown(_ratio(served, kept), wilson(served, served + kept))}
    if of_same and of_other:
        for mix in MIXES:
            told[f"{mix:.0%}"] = _mixed(mix, (kept, of_same), (served, of_other))
    return told


def _mixed(mix: float, kept: tuple[int, int], served: tuple[int, int]) -> dict[str, Any]:
    """Return wrong per hit where `mix` of the candidates are near-misses; the limits hold jointly, so they are wide."""
    (keep_low, keep_high), (serve_low, serve_high) = wilson(*kept, Z_BOTH), wilson(*served, Z_BOTH)
    found = _ratio(mix * served[0] / served[1], (1 - mix) * kept[0] / kept[1])
    low = _ratio(mix * serve_low, (1 - mix) * keep_high)
    high = _ratio(mix * serve_high, (1 - mix) * keep_low)
    return _shown(found, (low or 0.0, 1.0 if high is None else high))


def _ratio(wrong: float, right: float) -> float | None:
    return wrong / (wrong + right) if wrong + right > 0 else None


def _shown(found: float | None, limits: tuple[float, float]) -> dict[str, Any]:
    return {"wrong_per_hit": found, "low": limits[0], "high": limits[1]}


def summary(scores: Floats, same: NDArray[np.bool_], start: float | None) -> dict[str, Any]:
    """Return all that is told of one setting on one set; `start` is the threshold that it begins with in a gateway."""
    points = curve(scores, same)
    best = best_within(points)
    told: dict[str, Any] = {
        "kept_at_2_percent_served": None if not same.any() else best.kept if best else 0.0,
        "threshold_at_2_percent_served": best.threshold if best else None,
        "kept_limits": wilson(round(best.kept * same.sum()) if best else 0, int(same.sum())),
        "wrong_per_hit": wrong_per_hit(scores, same, best.threshold if best else math.inf),
        "curve": [(p.served, p.kept, p.threshold) for p in _thinned(points)],
    }
    if start is not None:
        told["at_start"] = {
            "threshold": start,
            "kept": float((scores[same] >= start).mean()) if same.any() else None,
            "served": float((scores[~same] >= start).mean()) if (~same).any() else None,
            "wrong_per_hit": wrong_per_hit(scores, same, start),
        }
    return told


def _thinned(points: list[Point], most: int = 400) -> list[Point]:
    return points if len(points) <= most else [points[i] for i in np.linspace(0, len(points) - 1, most).astype(int)]
