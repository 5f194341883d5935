"""Plays the live requests under each forecast, and tells the keeper which one to follow. Decides nothing else."""

from collections.abc import Iterable, Iterator, Mapping

from backends.demand import FORECASTS
from backends.pool import Pool
from backends.warmth.rivals import Contender, Rivals


class Contest:
    """What each forecast would have kept in the room that there is, were it the one that is followed."""

    def __init__(self) -> None:
        self.rivals = Rivals(len(FORECASTS))
        self._met: dict[str, int] = {}

    def play(self, now: float, pools: Mapping[str, Pool], heard: Iterable[Pool], room: int | None) -> int:
        """Take account of who was asked since the last time, of those `heard`; return the forecast that is best.

        Models of which a replica always runs have their room, and no part in it. Without a bound nobody gives way.
        """
        if room is None:
            return self.rivals.best
        contenders = None
        for pool in heard:
            met = pool.demand.met[0]
            if met == self._met.get(pool.model, 0):
                continue
            self._met[pool.model] = met
            if contenders is None:
                contenders = _Contenders(pools, now)
                room -= sum(pool.costs.memory_bytes for pool in pools.values() if pool.limits.min_replicas)
            if pool.model in contenders:
                self.rivals.asked(now, pool.model, contenders, room)
        return self.rivals.best


class _Contenders(Mapping[str, Contender]):
    """The models as they are now; what is not looked at is not worked out."""

    def __init__(self, pools: Mapping[str, Pool], now: float) -> None:
        self._pools = {model: pool for model, pool in pools.items() if not pool.limits.min_replicas}
        self._now = now
        self._known: dict[str, Contender] = {}

    def __getitem__(self, model: str) -> Contender:
        found = self._known.get(model)
        if found is None:
            pool = self._pools[model]
            costs = pool.costs
            found = Contender(costs.memory_bytes, costs.levels[0].reach_s, pool.demand.forecasts(self._now))
            self._known[model] = found
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)
