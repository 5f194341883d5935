"""Brings the index back after a start, from what the disk remembers. Knows no search.

Whoever asks meanwhile finds what is there already.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from cache.contract import Entry
from cache.semantic.index import VectorIndex

_log = logging.getLogger(__name__)

# So long it adds before others have their turn: how many that is depends on the vectors' components.
_TURN_S = 0.002


class Readable(Protocol):
    """A store that remembers over a restart."""

    def meanings(self, skip: Callable[[bytes], bool]) -> AsyncIterator[list[Entry]]:
        """Yield the live entries that have a meaning, but those to skip, in batches; `skip` is asked on any thread."""
        ...


async def load(index: VectorIndex, disk: Readable, add: Callable[[Entry], None]) -> None:
    """Add what the disk remembers and the index does not know, a little at a time."""
    try:
        async for batch in disk.meanings(index.__contains__):
            until = time.perf_counter() + _TURN_S
            for entry in batch:
                # One that was made anew since the disk was read is there already.
                if entry.key not in index:
                    add(entry)
                if time.perf_counter() >= until:
                    await asyncio.sleep(0)
                    until = time.perf_counter() + _TURN_S
            await asyncio.sleep(0)
    except Exception:  # noqa: BLE001 - the store may have any trouble, and the log has it
        _log.exception("not all answers on disk can be found by meaning")
    _log.info("%d answers can be found by meaning", len(index))
