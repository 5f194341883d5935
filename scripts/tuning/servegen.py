"""Draws arrivals from ServeGen's windows of rates (Alibaba, Apache-2.0). Knows no policy.

Each row describes one client's requests in one window: their rate, and the family and shape of the times between them.
"""

import csv
import gzip
from collections import defaultdict
from pathlib import Path

import numpy as np

from scripts.tuning.traces import Array, Trace, trace_of

WINDOW_S = 600.0
# Requests closer together than a request takes leave the model no idle time: one of them stands for all.
_GRAIN_S = 1.0
# The windows tell of arrivals alone; an answer of a language model takes some seconds.
_SERVICE_S = 2.0
# Above this rate and below this variation a window of times between requests has none as long as the grain.
_DENSE_PER_S = 20.0
_EVEN = 2.0
_MOST_DRAWN = 400_000


def draw(path: Path, seed: int) -> Trace:
    """Draw the requests of all clients, each a model, with a fixed seed."""
    rng = np.random.default_rng(seed)
    times: dict[str, list[Array]] = defaultdict(list)
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            if float(row["rate_per_s"] or 0) > 0:
                times[f"client-{row['client']}"].append(float(row["window_start_s"]) + _window(row, rng))
    arrivals = {model: np.concatenate(windows) for model, windows in times.items()}
    return trace_of(arrivals, {model: np.full(len(at), _SERVICE_S) for model, at in arrivals.items()})


def _window(row: dict[str, str], rng: np.random.Generator) -> Array:
    """Return the times of one window's requests, one at most in each grain."""
    rate, shape = float(row["rate_per_s"]), float(row["param1"])
    if rate > _DENSE_PER_S and float(row["cv"]) < _EVEN:
        return np.arange(0.0, WINDOW_S, _GRAIN_S)
    count = min(_MOST_DRAWN, max(1, round(rate * WINDOW_S)))
    between = rng.gamma(shape, 1.0, count) if row["distribution"] == "Gamma" else rng.weibull(shape, count)
    total = between.sum()
    # The second parameter scales them; since as many as the rate tells fill the window, their sum does so too.
    at = np.cumsum(between * (WINDOW_S / total)) if total > 0 else np.zeros(1)
    at = np.clip(at - at[0] * rng.random(), 0.0, WINDOW_S - 1e-3)
    grain = np.floor(at / _GRAIN_S)
    first: Array = at[np.concatenate([[True], grain[1:] != grain[:-1]])]
    return first
