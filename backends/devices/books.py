"""What the keeper knows of the devices: the last reading, and whose memory has not come back yet. Decides nothing."""

import asyncio
import logging
from collections.abc import Iterable

from backends.devices.gpus import Gpus
from backends.devices.view import Device, Held

_log = logging.getLogger(__name__)


class DeviceBooks:
    """Reads the GPUs where there are any; without them it says that there are none."""

    def __init__(self) -> None:
        self.seen: tuple[Device, ...] = ()
        self.held: dict[int, int] = {}
        """What each process holds of them."""
        self._gpus: Gpus | None = None
        self._returning: dict[str, Held] = {}

    @property
    def returning(self) -> Iterable[Held]:
        """What replicas held that are gone, and is not free yet."""
        return self._returning.values()

    @property
    def gpus(self) -> Gpus | None:
        """The GPUs that are looked after."""
        return self._gpus

    def use(self, gpus: Gpus | None) -> None:
        """Look after these GPUs from now on; None: there are none. Reads them once, which takes a moment."""
        self._gpus = gpus
        self.seen = () if gpus is None else gpus.read()

    async def refresh(self) -> None:
        """Read them again."""
        if (gpus := self._gpus) is not None:
            seen, held = await asyncio.to_thread(lambda: (gpus.read(), gpus.held()))
            if gpus is self._gpus:
                self.seen, self.held = seen, held

    async def until_returned(self, replica: str, devices: tuple[int, ...], bytes_each: int) -> None:
        """Count what a replica held that has just ended, until it is free; not for ever."""
        if self._gpus is None or not devices:
            return
        before = {device.index: device.free_bytes for device in self.seen}
        self._returning[replica] = Held(replica, devices, bytes_each, is_leaving=True)
        try:
            if not await self._gpus.until_returned(devices, bytes_each, before):
                _log.warning("the memory that %s held on GPU %s has not come back", replica, devices)
            await self.refresh()
        finally:
            del self._returning[replica]
