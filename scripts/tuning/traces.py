"""Reads traces: when which model was asked, and for how long it was busy. Knows no policy."""

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import orjson
from numpy.typing import NDArray

Array = NDArray[np.float64]

SERVICE_S = 1.0
"""How long a request keeps its model busy where the trace does not say."""


class TraceError(ValueError):
    """The file is no trace; the message names the line."""


@dataclass(frozen=True, slots=True)
class Idle:
    """A model's idle times: how long each was, and when the request came that ended it (seconds since the start)."""

    lengths_s: Array
    ends_s: Array


@dataclass(frozen=True, slots=True)
class Trace:
    """What a trace says of each model: its idle times, and when it was asked (seconds since the start, in order).

    `start_s` is when it starts by the clock of its own times: Unix time, in a log of ours.
    """

    idle: Mapping[str, Idle]
    asked_s: Mapping[str, Array]
    span_s: float
    start_s: float = 0.0


def read_trace(path: Path) -> Trace:
    """Read `timestamp_s,model[,service_s]`, in any order, gzipped or not. Raises `TraceError`."""
    times: dict[str, list[float]] = defaultdict(list)
    services: dict[str, list[float]] = defaultdict(list)
    with _opened(path) as file:
        rows = csv.DictReader(file)
        missing = {"timestamp_s", "model"} - set(rows.fieldnames or ())
        if missing:
            raise TraceError(f"{path}: columns are {rows.fieldnames}, {', '.join(sorted(missing))} is missing")
        for row in rows:
            try:
                times[row["model"]].append(float(row["timestamp_s"]))
                services[row["model"]].append(float(row.get("service_s") or SERVICE_S))
            except ValueError as error:
                raise TraceError(f"{path}, line {rows.line_num}: {error}") from error
    if not times:
        raise TraceError(f"{path} has no requests")
    return trace_of({model: np.array(at) for model, at in times.items()}, {m: np.array(s) for m, s in services.items()})


# What the access log calls a request that no model had to answer: it is no demand for one.
_FROM_A_MODEL = ("miss", "stale", "partial", "request", "bypass", "none")
_CLIENT_LEFT, _REFUSED, _FAILED = 499, 400, 500


def read_log(path: Path) -> Trace:
    """Read the gateway's own access log, gzipped or not: the requests that went on to a model. Raises `TraceError`."""
    times: dict[str, list[float]] = defaultdict(list)
    services: dict[str, list[float]] = defaultdict(list)
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            try:
                entry = orjson.loads(line)
                model, status = str(entry["model"]), int(entry["status"])
                at_s, service_s = float(entry["timestamp_s"]), float(entry["service_s"])
                is_demand = entry["cache"] in _FROM_A_MODEL
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                if not line.endswith("\n"):
                    break  # the last line is being written
                raise TraceError(f"{path}, line {number}: {error!r}") from error
            if is_demand and model and not (_REFUSED <= status < _FAILED and status != _CLIENT_LEFT):
                times[model].append(at_s)
                services[model].append(service_s)
    if not times:
        raise TraceError(f"{path} has no requests that a model answered")
    return trace_of({model: np.array(at) for model, at in times.items()}, {m: np.array(s) for m, s in services.items()})


def trace_of(times: Mapping[str, Array], services: Mapping[str, Array] | None = None) -> Trace:
    """Return the trace of these arrivals, with a service time each."""
    start = min(float(at.min()) for at in times.values())
    idle, asked, end = {}, {}, 0.0
    for model, at in times.items():
        order = np.argsort(at, kind="stable")
        arrivals = at[order] - start
        service = np.full(len(at), SERVICE_S) if services is None else services[model][order]
        # Requests overlap: a model is busy until the latest end of all that came before.
        busy_until = np.maximum.accumulate(arrivals + service)
        lengths = arrivals[1:] - busy_until[:-1]
        is_idle = lengths > 0
        idle[model] = Idle(lengths[is_idle], arrivals[1:][is_idle])
        asked[model] = arrivals
        end = max(end, float(arrivals[-1]))
    return Trace(idle, asked, end, start)


def in_order(trace: Trace) -> Iterator[tuple[str, float, float]]:
    """Yield model, length and end of all idle times, in the order in which they end."""
    models: Sequence[str] = list(trace.idle)
    which = np.concatenate([np.full(len(idle.ends_s), place) for place, idle in enumerate(trace.idle.values())])
    ends = np.concatenate([idle.ends_s for idle in trace.idle.values()])
    lengths = np.concatenate([idle.lengths_s for idle in trace.idle.values()])
    order = np.argsort(ends, kind="stable")
    for place, length, end in zip(which[order].tolist(), lengths[order].tolist(), ends[order].tolist(), strict=True):
        yield models[int(place)], length, end


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
        yield file
