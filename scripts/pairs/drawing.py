"""Draws the curves of a set. Knows no pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

# The later ones are drawn over the earlier, so they are thinner: curves that coincide are all seen.
STYLES: Mapping[str, Mapping[str, Any]] = {
    "cosine": {"color": "tab:gray", "linewidth": 5.0, "alpha": 0.5},
    "guards": {"color": "tab:blue", "linewidth": 3.0, "alpha": 0.8},
    "shipped": {"color": "tab:green", "linewidth": 1.5},
}
# With fewer near-misses each is so large a share that only the whole axis shows what happens.
_MANY = 100
_FEW_POINTS = 60


def draw(title: str, told: Mapping[str, Any], allowed: float, path: Path) -> None:
    """Draw paraphrases kept against near-misses served, of each setting, as a PNG; a star is its start threshold."""
    mpl.use("Agg")
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    right = 0.3 if told["near_misses"] >= _MANY else 1.0
    axes.axvline(allowed, color="tab:red", linewidth=0.8, linestyle="--", label=f"{allowed:.0%} served")
    for name, setting in told["settings"].items():
        served = [0.0, *(point[0] for point in setting["curve"])]
        kept = [0.0, *(point[1] for point in setting["curve"])]
        marker = "o" if len(served) <= _FEW_POINTS else ""
        style = STYLES.get(name, {})
        axes.plot(served, kept, label=name, drawstyle="steps-post", marker=marker, markersize=3, **style)
        if (start := setting.get("at_start")) is not None:
            color = style.get("color")
            label = f"{name} at its start, {start['threshold']:g}"
            axes.plot(
                start["served"],
                start["kept"],
                "*",
                color=color,
                markersize=5 + 3 * style.get("linewidth", 2.0),
                clip_on=False,
                label=label,
            )
    axes.set(xlabel="near-misses served", ylabel="paraphrases kept", title=title)
    axes.set(xlim=(-right / 30, right * 1.03), ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)
