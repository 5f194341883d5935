"""Learns what replicas hold of devices, as the driver tells of their processes; else by what was free before and after.

In a container the driver may name processes by numbers that mean nothing here; then what a start took of the free
memory counts, where nobody else came, went or moved on these devices meanwhile.
"""

from collections.abc import Iterable, Mapping, Sequence

from backends.devices.view import Device
from backends.pool import Pool
from backends.replica import Replica
from backends.sleeping import ProcessBackend
from backends.snapshot import ReplicaState

_AT_REST = (ReplicaState.READY, ReplicaState.ASLEEP)


class DeviceCosts:
    """What was free before each start under way."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[tuple[int, ...], int | None]] = {}
        """By the replica: its devices, and what was free on them; None where others come or go there as well."""

    def began(self, replica: Replica, seen: Iterable[Device]) -> None:
        """Note what is free where a start begins."""
        if replica.devices:
            alone = self._doubt(replica.devices)
            self._before[replica.name] = replica.devices, _free(replica.devices, seen) if alone else None

    def ended(self, replica: Replica) -> None:
        """Note that what it held comes back."""
        self._before.pop(replica.name, None)
        self._doubt(replica.devices)

    def _doubt(self, devices: tuple[int, ...]) -> bool:
        """Measure nobody by what is free who is under way on these devices; tell whether nobody was."""
        others = [name for name, (theirs, _) in self._before.items() if set(theirs) & set(devices)]
        for name in others:
            self._before[name] = self._before[name][0], None
        return not others

    def look(self, pools: Iterable[Pool], seen: Sequence[Device], held: Mapping[int, int], read_at: float) -> None:
        """Learn from a reading of the devices at `read_at`: what is free, and what each process holds."""
        for pool in pools if seen else ():
            for replica in pool.fleet.replicas:
                if replica.devices and replica.state in _AT_REST and replica.since < read_at:
                    self._learn(pool, replica, seen, held)

    def _learn(self, pool: Pool, replica: Replica, seen: Iterable[Device], held: Mapping[int, int]) -> None:
        size, backend = 0, replica.backend
        if isinstance(backend, ProcessBackend):
            size = sum(held.get(pid, 0) for pid in backend.pids())
        _, before = self._before.pop(replica.name, ((), None))
        if not size and before is not None and replica.state is ReplicaState.READY:
            size = before - _free(replica.devices, seen)
        if size > 0 and size != replica.device_bytes:
            replica.device_bytes = size
            pool.costs.learn_device_memory(replica.level, size)
            pool.price()


def _free(devices: tuple[int, ...], seen: Iterable[Device]) -> int:
    return sum(device.free_bytes for device in seen if device.index in devices)
