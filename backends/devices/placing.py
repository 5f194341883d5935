"""Which devices a replica gets, and who must go first where none is free. Pure; knows no driver, no clock, no worth."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backends.devices.view import Device, Held, Need


@dataclass(frozen=True, slots=True)
class Placement:
    """The devices for a replica, in ascending order, and why these."""

    devices: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True)
class NoPlace:
    """There is none now; `is_final`: nor will there be, whoever goes."""

    why: str
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Clearing:
    """Who is to go so that there is a place: what to wait for is all, where nobody is named."""

    replicas: tuple[str, ...]
    devices: tuple[int, ...]


def place(devices: Sequence[Device], held: Iterable[Held], need: Need) -> Placement | NoPlace:
    """Return the devices for a replica: those that it fits on with the least left over, so that large holes stay.

    `held` is by the books; what the devices say that is free counts as well, less what those that come have not taken.
    """
    if (never := _never(devices, need)) is not None:
        return never
    rooms = _rooms(devices, held)
    fitting = sorted((room, index) for index, room in rooms.items() if room >= need.bytes_each)
    if len(fitting) < need.devices:
        most = ", ".join(f"GPU {index} has {_mib(room)} left" for index, room in sorted(rooms.items()))
        return NoPlace(f"needs {_words(need)}; {most}")
    chosen = tuple(sorted(index for _, index in fitting[: need.devices]))
    left = ", ".join(f"{_mib(rooms[index])} left on GPU {index}" for index in chosen)
    return Placement(chosen, f"{_words(need)}: {left}")


def clear(devices: Sequence[Device], held: Sequence[Held], idle: Sequence[Held], need: Need) -> Clearing | NoPlace:
    """Return which of the idle replicas are to go, given in the order in which they give way; as few as will do.

    `idle` says what each would give back. What leaves already is waited for before anybody else goes.
    """
    if (never := _never(devices, need)) is not None:
        return never
    rooms = _rooms(devices, held)
    for each in held:
        if each.is_leaving:
            _free(rooms, each)
    left = list(idle)
    chosen: list[int] = []
    going: list[Held] = []
    for _ in range(need.devices):
        options = [
            (last, len(victims), index, victims)
            for index in rooms
            if index not in chosen
            for last, victims in [_victims(rooms[index], index, left, need.bytes_each)]
            if victims is not None
        ]
        if not options:
            return NoPlace(f"needs {_words(need)}, and nothing idle may be stopped for it")
        _, _, index, victims = min(options, key=lambda option: option[:3])
        chosen.append(index)
        for victim in victims or ():
            _free(rooms, victim)
            left.remove(victim)
            going.append(victim)
    return Clearing(tuple(each.replica for each in going), tuple(sorted(chosen)))


def _victims(room: int, index: int, left: Sequence[Held], bytes_each: int) -> tuple[int, list[Held] | None]:
    """Return who must leave this device for so many bytes, with the last one's place in the order; None: in vain."""
    victims: list[Held] = []
    last = -1
    for order, each in enumerate(left):
        if room >= bytes_each:
            break
        if index in each.devices:
            victims.append(each)
            room += each.bytes_each
            last = order
    if room < bytes_each:
        return last, None
    # Who was taken first may be too small to matter beside who came last.
    for each in victims[:-1]:
        if room - each.bytes_each >= bytes_each:
            victims.remove(each)
            room -= each.bytes_each
    return last, victims


def _rooms(devices: Sequence[Device], held: Iterable[Held]) -> dict[int, int]:
    """Return what each device has left: by the books within the budget, and never more than is really free."""
    books = {device.index: device.budget_bytes for device in devices}
    free = {device.index: device.free_bytes for device in devices}
    for each in held:
        for index in each.devices:
            if index in books:
                books[index] -= each.bytes_each
                free[index] -= each.bytes_each if each.is_coming else 0
    return {index: min(left, free[index]) for index, left in books.items()}


def _free(rooms: dict[int, int], held: Held) -> None:
    for index in held.devices:
        if index in rooms:
            rooms[index] += held.bytes_each


def _never(devices: Sequence[Device], need: Need) -> NoPlace | None:
    large = [device for device in devices if device.budget_bytes >= need.bytes_each]
    if len(large) >= need.devices:
        return None
    here = ", ".join(f"GPU {device.index} ({device.name}) with {_mib(device.budget_bytes)}" for device in devices)
    return NoPlace(f"needs {_words(need)}; there is {here or 'no GPU'}", is_final=True)


def _words(need: Need) -> str:
    each = " each" if need.devices > 1 else ""
    return f"{need.devices} GPU{'s' if need.devices > 1 else ''} with {_mib(need.bytes_each)}{each}"


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
