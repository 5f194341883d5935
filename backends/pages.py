"""Files of models that sleep, kept in the host's memory: their next start reads no disk. Knows no replica.

The pages are the system's own copy of the files, shared with every worker that maps or reads them. They are locked
where the system lets us (RLIMIT_MEMLOCK); else they were read just now, and stay unless somebody else needs the memory.
"""

import asyncio
import ctypes
import logging
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 22


class HeldPages:
    """The pages of some files, until `release`."""

    def __init__(self, maps: list[mmap.mmap], *, locked: bool) -> None:
        """Use `hold`."""
        self.bytes = sum(map(len, maps))
        self.locked = locked
        self._maps = maps

    async def release(self) -> None:
        """Let the system have the pages back; safe to call twice."""
        maps, self._maps, self.bytes = self._maps, [], 0
        for each in maps:
            # What was locked is unlocked with its map, page by page.
            await asyncio.to_thread(each.close)


async def hold(files: Iterable[Path]) -> HeldPages:
    """Bring these files into memory and keep them there. Raises OSError where one cannot be read."""
    return await asyncio.to_thread(_hold, tuple(files))


def _hold(files: tuple[Path, ...]) -> HeldPages:
    maps: list[mmap.mmap] = []
    locked = True
    try:
        for path in files:
            with path.open("rb") as file:
                if not os.fstat(file.fileno()).st_size:
                    continue
                maps.append(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
                if not _lock(maps[-1]):
                    locked = False
                    _read(file.fileno())
    except BaseException:
        for each in maps:
            each.close()
        raise
    if not locked:
        _log.info("the weights of a model that sleeps are not locked in memory: RLIMIT_MEMLOCK is too low for them")
    return HeldPages(maps, locked=locked)


def _lock(pages: mmap.mmap) -> bool:
    """Lock pages in memory, which reads them first; tell whether that was allowed."""
    mlock = getattr(ctypes.CDLL(None, use_errno=True), "mlock", None)
    if mlock is None:
        return False
    address = int(np.frombuffer(pages, np.uint8).ctypes.data)
    return int(mlock(ctypes.c_void_p(address), ctypes.c_size_t(len(pages)))) == 0


def _read(descriptor: int) -> None:
    chunk, place = bytearray(_CHUNK_BYTES), 0
    while count := os.preadv(descriptor, [chunk], place):
        place += count
