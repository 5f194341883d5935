"""Makes traces of known kinds, each from a seed: what a policy should do well on, and what should trip it up."""

from collections.abc import Callable

import numpy as np

from scripts.tuning.traces import Array, Trace, trace_of

DAY_S = 86_400.0
HOUR_S = 3600.0
_MODELS = 40
_WORKDAYS, _OPENS_S, _WORKS_S = 5, 8 * HOUR_S, 10 * HOUR_S
_SHARE_OF_JOBS = 0.4

Maker = Callable[[np.random.Generator, float], Array]


def stationary(rng: np.random.Generator, span_s: float) -> Array:
    """Poisson arrivals of one rate."""
    return _poisson(rng, 10 ** rng.uniform(-5, -2), span_s)


def diurnal(rng: np.random.Generator, span_s: float) -> Array:
    """Poisson arrivals whose rate follows the sun."""
    at = _poisson(rng, 10 ** rng.uniform(-4, -2), span_s)
    wave = np.sin(2 * np.pi * (at / DAY_S + rng.random())).clip(0) ** 2
    return at[rng.random(len(at)) < wave]


def bursty(rng: np.random.Generator, span_s: float) -> Array:
    """Sessions that begin at random, of some requests each."""
    starts = _poisson(rng, 10 ** rng.uniform(-5, -3.5), span_s)
    think_s = 10 ** rng.uniform(0, 2)
    return np.concatenate([start + np.cumsum(rng.exponential(think_s, rng.integers(2, 60))) for start in starts])


def drifting(rng: np.random.Generator, span_s: float) -> Array:
    """Poisson arrivals whose rate is another each day."""
    days = np.arange(0.0, span_s, DAY_S)
    return np.concatenate([day + _poisson(rng, 10 ** rng.uniform(-4.5, -2), DAY_S) for day in days])


def periodic(rng: np.random.Generator, span_s: float) -> Array:
    """Return the times of a timer that is a little late or early."""
    period_s = 10 ** rng.uniform(2, 4.5)
    at = np.arange(0.0, span_s, period_s)
    return at + rng.normal(0, 0.02 * period_s, len(at))


def adversarial(
    rng: np.random.Generator, span_s: float, traps_s: tuple[float, ...] = (322.2, 4410.0, 44_100.0)
) -> Array:
    """Return requests that come just after whoever counts in break-evens has let go, with another trap at times."""
    at, now = [], 0.0
    trap_s = 0.0
    while now < span_s:
        if rng.random() < 0.05 or not at:
            trap_s = float(rng.choice(traps_s)) * 1.01
        now += trap_s + 1.0
        at.append(now)
    return np.array(at)


def weekly(rng: np.random.Generator, span_s: float) -> Array:
    """Return the requests of a house that works from 8 to 18 on weekdays: people, or a job at the same minute."""
    days = np.arange(0.0, span_s, DAY_S)
    is_workday = days // DAY_S % 7 < _WORKDAYS
    opens_s = _OPENS_S + 60.0 * rng.integers(0, 60)
    late_s = 10 ** rng.uniform(0, 2)
    starts = days[is_workday] + opens_s + rng.exponential(late_s, int(is_workday.sum()))
    if rng.random() < _SHARE_OF_JOBS:
        every_s = HOUR_S * rng.choice([1, 2, 4, 24])
        at = np.arange(0.0, _WORKS_S, every_s)
        return np.sort((starts[:, None] + at + rng.exponential(late_s, (len(starts), len(at)))).ravel())
    busy = _poisson(rng, 10 ** rng.uniform(-3.5, -2), span_s)
    at_s = busy % DAY_S
    is_open = is_workday[(busy // DAY_S).astype(int)] & (at_s >= opens_s) & (at_s < _OPENS_S + _WORKS_S)
    nights = _poisson(rng, 10 ** rng.uniform(-7, -5.5), span_s)
    return np.sort(np.concatenate([starts, busy[is_open], nights]))


KINDS: dict[str, Maker] = {
    maker.__name__: maker for maker in (stationary, diurnal, bursty, drifting, periodic, adversarial, weekly)
}


def make(kind: str, seed: int, days: int = 14, models: int = _MODELS) -> Trace:
    """Make a trace of this kind."""
    rng = np.random.default_rng([seed, *kind.encode()])
    return trace_of({f"{kind}-{number}": KINDS[kind](rng, days * DAY_S) for number in range(models)})


def _poisson(rng: np.random.Generator, per_s: float, span_s: float) -> Array:
    at: Array = np.sort(rng.random(rng.poisson(per_s * span_s) + 2)) * span_s
    return at
