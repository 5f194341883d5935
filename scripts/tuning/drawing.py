"""Draws what policies hold against what they make wait. Knows no policy."""

from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path

from scripts.tuning.policies import Ladders
from scripts.tuning.replay import Accounts

_HOUR_S = 3600.0
# Hollow and of many shapes, so that policies that do the same show through each other; what it is about lies on top.
_SHAPES = "osv^<>ph8"
_ON_TOP = {"as set now": "X", "predict": "*"}

Point = tuple[str, Accounts]


def draw(
    file: Path, points: Iterable[Point], fixed_times: Sequence[Point], ladders: Ladders, models: Sequence[str]
) -> None:
    """Write a PNG: hours held by each policy and hours waited, with the line of the fixed times."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and only wanted here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(8, 6))
    price = {rung.level: rung.hold for model in models for rung in ladders(model).rungs}

    def place(accounts: Accounts) -> tuple[float, float]:
        held = sum(seconds * price.get(level, 0.0) for level, seconds in accounts.held_s.items())
        return held / _HOUR_S, float(accounts.waits_s.sum()) / _HOUR_S

    line = [place(accounts) for _, accounts in fixed_times]
    axes.plot([x for x, _ in line], [y for _, y in line], ".-", color="grey", label="fixed times")
    for (name, _), at in zip(fixed_times, line, strict=True):
        axes.annotate(name, at, fontsize=7, color="grey")
    for shape, (name, accounts) in zip(cycle(_SHAPES), points, strict=False):
        if name in _ON_TOP:
            axes.plot(*place(accounts), _ON_TOP[name], label=name, markersize=11, markeredgecolor="black", zorder=4)
        else:
            axes.plot(*place(accounts), shape, label=name, markersize=9, fillstyle="none", zorder=3)
    axes.set(xlabel="held while idle, in hours of a warm replica", ylabel="waited, hours")
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=120, bbox_inches="tight")
