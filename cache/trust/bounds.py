"""Bounds on a share of wrong answers that hold at every moment, however often one looks. Pure; knows no cache.

Let the i-th answer be wrong with probability p_i, given all that came before; nothing else is assumed of the p_i, which
may drift. For every λ > 0 the product of exp((1 - e^-λ) p_i - λ W_i) over the answers that were looked at is a
nonnegative supermartingale, since E[exp(-λ W)] = 1 - (1 - e^-λ) p <= exp(-(1 - e^-λ) p). So is a mixture of several λ,
and by Ville's inequality it never reaches 1/δ but with probability δ: what would take it there bounds the sum of the
p_i from above. λ = ∞ is the rule of three: without a wrong one, n looks bound the mean by about ln(1/δ)/n.

Sources: Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences" (2021);
Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2024).
"""

import math
from collections.abc import Sequence

# λ with its weight in the mixture. Most weight is where no wrong one was found, which is how trust begins.
MIXTURE = ((math.inf, 0.6), (3.0, 0.12), (2.0, 0.1), (1.2, 0.08), (0.7, 0.05), (0.35, 0.03), (0.15, 0.02))

_STEPS = 50
_MOST_EXPONENT = 700.0


def upper_sum(spent: Sequence[float], delta: float, most: float, scale: float = 1.0) -> float:
    """Return the least bound on the sum of the p_i that holds with probability 1 - `delta`; at most `most`.

    `spent` has for each λ of the mixture the sum of λ over the wrong ones. `scale` in (0, 1] is the coefficient of p_i
    where only a share of the answers was looked at.
    """
    low, high = 0.0, most
    if not _excludes(spent, delta, most, scale):
        return most
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _excludes(spent, delta, middle, scale):
            high = middle
        else:
            low = middle
    return high


def upper_mean(looked_at: int, wrong: int, delta: float) -> float:
    """Return the bound on the mean of the p_i of those looked at; 1 where there were none."""
    if looked_at == 0:
        return 1.0
    spent = [lam * wrong if wrong else 0.0 for lam, _ in MIXTURE]
    return upper_sum(spent, delta, float(looked_at)) / looked_at


def is_below(looked_at: int, wrong: int, delta: float, mean: float) -> bool:
    """Tell whether `upper_mean` is no more than `mean`."""
    spent = [lam * wrong if wrong else 0.0 for lam, _ in MIXTURE]
    return looked_at > 0 and _excludes(spent, delta, mean * looked_at, 1.0)


def lower_mean(looked_at: int, wrong: int, delta: float) -> float:
    """Return the bound from below, by the same argument with exp(λ W_i - (e^λ - 1) p_i)."""
    if wrong == 0:
        return 0.0
    bets = [(lam, weight) for lam, weight in MIXTURE if lam < math.inf]
    total = sum(weight for _, weight in bets)
    low, high = 0.0, float(looked_at)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        terms = [math.log(weight / total) + lam * wrong - math.expm1(lam) * middle for lam, weight in bets]
        if _log_sum(terms) >= -math.log(delta):
            low = middle
        else:
            high = middle
    return low / looked_at


def cost_of_wrong(scale: float, share: float) -> tuple[float, ...]:
    """Return what a wrong one adds to each sum of `upper_sum` that was looked at with probability `share`.

    With coefficients c = `scale` · (1 - e^-λ) <= `share` it is -ln(1 - c / share), so that again
    E[exp(-cost · looked · W)] = 1 - c p <= exp(-c p).
    """
    return tuple(_cost(scale * -math.expm1(-lam) / share) for lam, _ in MIXTURE)


def _cost(ratio: float) -> float:
    return -math.log1p(-ratio) if ratio < 1.0 else math.inf


def _excludes(spent: Sequence[float], delta: float, total: float, scale: float) -> bool:
    terms = [
        math.log(weight) + scale * -math.expm1(-lam) * total - cost
        for (lam, weight), cost in zip(MIXTURE, spent, strict=True)
    ]
    return _log_sum(terms) >= -math.log(delta)


def _log_sum(terms: Sequence[float]) -> float:
    top = max(terms)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(max(term - top, -_MOST_EXPONENT)) for term in terms))
