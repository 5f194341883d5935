"""How many replicas a load is worth, by what a wait costs beside an idle replica. Pure; knows no model and no clock."""

import math
from functools import lru_cache

# Above this load the normal distribution stands for Poisson's: they differ by less than a hundredth of a replica.
_MANY = 50.0
# Loads are told apart by so many parts of their logarithm: by 2 %, which no forecast is as fine as.
_PARTS = 50.0
# A replica that spares no more than itself is not worth it; sums of thousands of chances are this fine.
_WORTH_IT = 1.0 + 1e-9


def replicas_for(jobs: float, slots: int, wait_price: float, most: int) -> int:
    """Return how many replicas are worth having for so many jobs at a time on average: from one to `most`.

    Jobs that come at random are Poisson's number at a time, whatever each takes. One more replica is worth it while
    the waiting that it spares, `wait_price` a second of each job that finds no slot, costs more than itself, 1 a
    second: the newsvendor's quantile where a replica has one slot (Arrow, Harris and Marschak, Optimal inventory
    policy, 1951).
    """
    if most <= 1 or jobs <= 0.0:
        return 1
    return min(most, _worth(round(math.log(jobs) * _PARTS), slots, wait_price))


@lru_cache(maxsize=4096)
def _worth(load: int, slots: int, wait_price: float) -> int:
    jobs, count = math.exp(load / _PARTS), 1
    waiting = _beyond(jobs, slots)
    while True:
        with_one_more = _beyond(jobs, (count + 1) * slots)
        if wait_price * (waiting - with_one_more) < _WORTH_IT:
            return count
        count, waiting = count + 1, with_one_more


def _beyond(jobs: float, slots: int) -> float:
    """Return how many jobs find no slot on average, where there are so many at a time on average."""
    if jobs > _MANY:
        deviation = math.sqrt(jobs)
        z = (slots - jobs) / deviation
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return deviation * (density - z * math.erfc(z / math.sqrt(2)) / 2)
    chance, served = math.exp(-jobs), 0.0
    left = 1.0
    for count in range(slots):
        left -= chance  # the chance of more than `count` jobs
        served += max(0.0, left)
        chance *= jobs / (count + 1)
    return max(0.0, jobs - served)
