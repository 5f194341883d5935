"""What the devices look like at one moment: frozen values to decide on. Knows neither driver nor models."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as it was read: `free_bytes` is what really is free, whoever holds the rest.

    `budget_bytes` is what all replicas together may hold of it.
    """

    index: int
    name: str
    budget_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Held:
    """What a replica holds on each of its devices; `is_coming`: it may not have taken all of it yet.

    `is_leaving`: it will be free soon, though it is not yet.
    """

    replica: str
    devices: tuple[int, ...]
    bytes_each: int
    is_coming: bool = False
    is_leaving: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """What a replica wants: so many devices, with so many bytes on each."""

    devices: int
    bytes_each: int
