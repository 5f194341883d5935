"""Draws the curves of a set. Knows no pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

COLORS = {"cosine": "tab:gray", "guards": "tab:blue", "shipped": "tab:green"}


def draw(title: str, settings: Mapping[str, Any], allowed: float, path: Path) -> None:
    """Draw paraphrases kept against near-misses served, of each setting, as a PNG."""
    mpl.use("Agg")
    figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for name, setting in settings.items():
        served = [0.0, *(point[0] for point in setting["curve"])]
        kept = [0.0, *(point[1] for point in setting["curve"])]
        axes.plot(served, kept, label=name, color=COLORS.get(name), drawstyle="steps-post")
    axes.axvline(allowed, color="tab:red", linewidth=0.8, linestyle="--", label=f"{allowed:.0%} served")
    axes.set(xlabel="near-misses served", ylabel="paraphrases kept", title=title, xlim=(-0.005, 0.3), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)
