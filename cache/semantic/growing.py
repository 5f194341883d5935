"""Makes the next generations of large partitions on a thread of its own. Knows an index, not what is in it."""

import asyncio
import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import faiss

from cache.semantic.generation import StoppedError
from cache.semantic.index import VectorIndex
from cache.semantic.loading import Keeper

_log = logging.getLogger(__name__)
_NICENESS = 10


class Grower:
    """One task that works off what is due in an index, and the thread that it uses. `look` after each addition."""

    def __init__(self, index: VectorIndex, keeper: Keeper) -> None:
        self._index = index
        self._keeper = keeper
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache-generations", initializer=yield_to_others)
        self._task: asyncio.Task[None] | None = None
        self._stop = threading.Event()

    def look(self) -> None:
        """Start to work where something is due; never waits."""
        if self._index.is_due and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._work(), name="generations of the semantic cache")

    async def idle(self) -> None:
        """Wait until nothing is due."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """End; what is being made is thrown away."""
        self._stop.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._thread.shutdown(wait=False)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while (due := self._index.due()) is not None:
            generation = None
            try:
                generation = await loop.run_in_executor(self._thread, due.growth.make, self._stop)
            except StoppedError:
                return
            except (RuntimeError, MemoryError):  # what faiss raises, and numpy: it is compared row by row as before
                _log.exception("the next generation of a partition could not be made")
                return
            finally:
                self._index.settle(due, generation)
        await self._keeper.keep(self._thread)


def yield_to_others() -> None:
    """Leave the cores to who answers requests; OpenMP, and Linux, hold both settings by thread."""
    faiss.omp_set_num_threads(1)
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
