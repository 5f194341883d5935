"""Engines that start where they are told to. Knows no device but by its index."""

from typing import Protocol, runtime_checkable

from backends.contract import Engine


@runtime_checkable
class PlacedEngine(Engine, Protocol):
    """An engine whose replicas can be given GPUs of their own."""

    def on(self, devices: tuple[int, ...]) -> Engine:
        """Return the engine whose replicas see these GPUs and no others."""
        ...


def placed(engine: Engine, devices: tuple[int, ...]) -> Engine:
    """Return the engine that starts on these devices; the same where there are none."""
    return engine.on(devices) if devices and isinstance(engine, PlacedEngine) else engine
