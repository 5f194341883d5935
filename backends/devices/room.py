"""The devices' part of one plan: what replicas hold there, and what is left for who wants more. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from backends.devices.placing import Clearing, NoPlace, Placement, clear, place
from backends.devices.view import Device, Held, Need
from backends.lowering import Descent
from backends.snapshot import PoolSnapshot, ReplicaSnapshot, ReplicaState
from backends.warmth.ladder import Level

_LEAVING = (ReplicaState.DRAINING, ReplicaState.FAILED, ReplicaState.DOZING)


class DeviceRoom:
    """The books of one plan; what it gives out counts from then on. `held` are those whose memory comes back."""

    def __init__(
        self, devices: Sequence[Device], pools: Iterable[PoolSnapshot], leaving: set[str], held: Iterable[Held]
    ) -> None:
        self._devices = devices
        self._held = [_held(p, r, leaving) for p in pools for r in p.replicas if r.devices] + list(held)
        self._begun = 0

    @property
    def is_freeing(self) -> bool:
        """Whether memory of devices is about to come back."""
        return any(each.is_leaving for each in self._held)

    def place(self, pool: PoolSnapshot) -> Placement | NoPlace | None:
        """Return where one more replica goes; None where it needs no device."""
        need = self.need(pool)
        return None if need is None else place(self._devices, self._held, need)

    def place_awake(self, pool: PoolSnapshot, sleeper: ReplicaSnapshot) -> Placement | NoPlace | None:
        """Tell whether a sleeper may take its devices' memory again; None where it has none."""
        need = self.need_awake(pool, sleeper)
        return None if need is None else place(self._of(sleeper), self._held, need)

    def take(self, pool: PoolSnapshot, placement: Placement) -> None:
        """Count a replica that is begun now."""
        self._begun += 1
        each = _each(_warm_bytes(pool), len(placement.devices))
        self._held.append(Held(f"{pool.model} to come {self._begun}", placement.devices, each, is_coming=True))

    def clear(
        self, pool: PoolSnapshot, idle: Mapping[str, Sequence[Descent]], order: Sequence[str], sleeper: object = None
    ) -> list[Descent] | NoPlace:
        """Return who of the idle ones goes down so that there is a place, in the order in which they give way."""
        devices, need = self._devices, self.need(pool)
        if isinstance(sleeper, ReplicaSnapshot):
            devices, need = self._of(sleeper), self.need_awake(pool, sleeper)
        assert need is not None, "who needs no device has a place"
        ways = {name: way for name in order if (way := _first(idle[name])) is not None}
        given = [Held(n, w.replica.devices, w.frees_device_bytes // len(w.replica.devices)) for n, w in ways.items()]
        cleared = clear(devices, self._held, given, need)
        if isinstance(cleared, Clearing):
            return [ways[name] for name in cleared.replicas]
        return cleared

    def need(self, pool: PoolSnapshot) -> Need | None:
        """Return what a replica needs of devices; None where it needs none, or may do without where there is none."""
        count = min(1, len(self._devices)) if pool.gpus is None else pool.gpus
        return Need(count, _each(_warm_bytes(pool), count)) if count else None

    def need_awake(self, pool: PoolSnapshot, sleeper: ReplicaSnapshot) -> Need | None:
        """Return what a sleeper needs beyond what it holds."""
        count = len(sleeper.devices)
        more = max(0, _warm_bytes(pool) - device_bytes(pool, sleeper))
        return Need(count, _each(more, count)) if count else None

    def _of(self, replica: ReplicaSnapshot) -> list[Device]:
        return [device for device in self._devices if device.index in replica.devices]


def held_by(pools: Iterable[PoolSnapshot]) -> list[Held]:
    """Return what replicas hold that somebody else ends."""
    return [replace(_held(pool, r, set()), is_leaving=True) for pool in pools for r in pool.replicas if r.devices]


def _first(ways: Sequence[Descent]) -> Descent | None:
    """Return the shortest way down that gives back memory of devices."""
    return next((way for way in ways if way.frees_device_bytes > 0 and way.replica.devices), None)


def _held(pool: PoolSnapshot, replica: ReplicaSnapshot, leaving: set[str]) -> Held:
    return Held(
        replica.name,
        replica.devices,
        _each(device_bytes(pool, replica), len(replica.devices)),
        is_coming=replica.state is ReplicaState.STARTING,
        is_leaving=replica.state in _LEAVING or replica.name in leaving,
    )


def device_bytes(pool: PoolSnapshot, replica: ReplicaSnapshot) -> int:
    """Return what a replica holds of its devices, as measured or else as expected of its level."""
    level = Level.ASLEEP if replica.state is ReplicaState.ASLEEP else Level.WARM
    cost = pool.cost_at(level)
    return replica.device_bytes or (0 if cost is None else cost.device_bytes)


def _warm_bytes(pool: PoolSnapshot) -> int:
    cost = pool.cost_at(Level.WARM)
    return 0 if cost is None else cost.device_bytes


def _each(size: int, count: int) -> int:
    return -(-size // count)
