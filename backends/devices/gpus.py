"""Reads the GPUs of this machine by NVML, the driver's own library. Knows no replicas.

Where there is no GPU, no driver or no library, there are no devices, which is no error. NVML counts GPUs by their PCI
address; what is started is told to count likewise.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from backends.devices.view import Device

_log = logging.getLogger(__name__)

RETURN_POLL_S = 0.25
RETURN_DEADLINE_S = 5.0
RETURN_SHARE = 0.75
"""Memory counts as back once so much of what was expected is free: a driver keeps some for itself."""

_ORDER = "CUDA_DEVICE_ORDER"
_VISIBLE = "CUDA_VISIBLE_DEVICES"


class Nvml(Protocol):
    """What is used of `pynvml`; tests bring plain values instead."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...  # noqa: D102, N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: D102, N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: D102, N802
    def nvmlDeviceGetName(self, handle: Any) -> str: ...  # noqa: D102, N802
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: D102, N802
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]: ...  # noqa: D102, N802


def load_nvml() -> Nvml:
    """Import the binding, which only who has GPUs to ask about needs."""
    import pynvml  # noqa: PLC0415

    return pynvml  # type: ignore[no-any-return]


class Gpus:
    """The GPUs that may be used here. `close` is not needed: NVML is released with the process."""

    def __init__(self, nvml: Nvml, handles: Mapping[int, Any]) -> None:
        """Use `find`, which looks. `budget_of` says what of a GPU's memory replicas may hold together."""
        self.budget_of: Callable[[int], int] = int
        self._nvml = nvml
        self._handles = handles
        self._names = {index: str(nvml.nvmlDeviceGetName(handle)) for index, handle in handles.items()}

    @classmethod
    def find(
        cls, wanted: Iterable[int] | None, environ: Mapping[str, str], load: Callable[[], Nvml] = load_nvml
    ) -> "Gpus | None":
        """Return the GPUs with these indices (None: all that our environment lets us see); None for none. Blocks."""
        nvml = load()
        try:
            nvml.nvmlInit()
            here = range(nvml.nvmlDeviceGetCount())
            allowed = visible(environ, here) if wanted is None else [index for index in wanted if index in here]
            return cls(nvml, {i: nvml.nvmlDeviceGetHandleByIndex(i) for i in allowed}) if allowed else None
        except nvml.NVMLError as error:
            _log.info("no GPU is used: %s", error)
            return None

    def read(self) -> tuple[Device, ...]:
        """Return the devices as they are. One that cannot be read is left out: nothing starts there. Blocks shortly."""
        found = []
        for index, handle in self._handles.items():
            try:
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
            except self._nvml.NVMLError as error:
                _log.warning("GPU %d cannot be read: %s", index, error)
                continue
            found.append(Device(index, self._names[index], self.budget_of(int(memory.total)), int(memory.free)))
        return tuple(found)

    def held(self) -> dict[int, int]:
        """Return what each process holds of these GPUs together, as far as the driver tells. Blocks shortly."""
        found: dict[int, int] = {}
        for handle in self._handles.values():
            try:
                processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            except self._nvml.NVMLError:
                continue  # an old driver, or a GPU that `read` warns of
            for each in processes:
                found[each.pid] = found.get(each.pid, 0) + (each.usedGpuMemory or 0)
        return found

    async def until_returned(self, devices: Iterable[int], bytes_each: int, before: Mapping[int, int]) -> bool:
        """Wait until a process that ended has given its memory back; return whether it has within some seconds.

        `before` is what was free on each device while it ran. The driver takes up to about two seconds to free it.
        """
        wanted = {index: before.get(index, 0) + int(bytes_each * RETURN_SHARE) for index in devices}
        try:
            async with asyncio.timeout(RETURN_DEADLINE_S):
                while True:
                    free = {device.index: device.free_bytes for device in await asyncio.to_thread(self.read)}
                    if all(free.get(index, size) >= size for index, size in wanted.items()):
                        return True
                    await asyncio.sleep(RETURN_POLL_S)
        except TimeoutError:
            return False


def visible(environ: Mapping[str, str], here: Iterable[int]) -> list[int]:
    """Return the GPUs that `CUDA_VISIBLE_DEVICES` lets a process see; without it, all. Names of GPUs see all, too."""
    if (said := environ.get(_VISIBLE)) is None:
        return list(here)
    parts = [part.strip() for part in said.split(",") if part.strip()]
    if not all(part.isdigit() for part in parts):
        return list(here)
    return [index for index in here if str(index) in parts]


def environment_for(devices: Iterable[int]) -> dict[str, str]:
    """Return what a process must have in its environment to see these GPUs and no others."""
    return {_ORDER: "PCI_BUS_ID", _VISIBLE: ",".join(str(index) for index in devices)}
