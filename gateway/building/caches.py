"""Opens the caches that the settings ask for, and takes over from those in use whatever an edit leaves as it is."""

import logging
import time
from contextlib import aclosing
from dataclasses import dataclass, replace

from backends.contract import Job, Task, Vectors
from backends.pool import Pool
from cache.disk.store import DiskStore
from cache.exact import ExactCache
from cache.memory import MemoryStore
from cache.semantic.lookup import DEFAULT_THRESHOLD, SemanticCache
from config.settings import CacheSettings
from gateway.recall import Embedder, Recall
from gateway.telemetry import Telemetry

_log = logging.getLogger(__name__)

# The semantic look-up may cost this much before a request goes on without it.
_EMBED_DEADLINE_S = 0.25


@dataclass(frozen=True, slots=True)
class Caches:
    """The tiers in use, and what each of them was opened for."""

    settings: CacheSettings
    disk: DiskStore | None
    exact: ExactCache
    semantic: SemanticCache | None
    embedder_version: str | None

    async def close(self, successor: "Caches | None") -> None:
        """Close what the successor has not taken over."""
        if self.semantic is not None and (successor is None or successor.semantic is not self.semantic):
            self.semantic.close()
        if self.disk is not None and (successor is None or successor.disk is not self.disk):
            await self.disk.close()


async def open_caches(settings: CacheSettings, embedder_version: str | None, former: Caches | None) -> Caches:
    """Open what is not open yet. Sizes of what is taken over change with `adjust`."""
    same_disk = former is not None and _same_disk(settings, former.settings)
    disk = former.disk if former is not None and same_disk else await _open_disk(settings)
    exact = (
        former.exact
        if former is not None and disk is former.disk
        else ExactCache(MemoryStore(settings.exact.memory_bytes), disk)
    )
    opened = Caches(settings, disk, exact, None, embedder_version)
    if settings.semantic is None:
        return opened
    if former is not None and exact is former.exact and embedder_version == former.embedder_version:
        semantic = former.semantic
    else:
        semantic = None
    if semantic is None:
        semantic = SemanticCache(exact, threshold=settings.semantic.threshold or DEFAULT_THRESHOLD)
        opened = replace(opened, semantic=semantic)
        try:
            if disk is not None:
                _log.info("%d answers can be found by meaning", await semantic.load(disk.meanings()))
        except BaseException:
            await opened.close(former)
            raise
    return replace(opened, semantic=semantic)


async def adjust(caches: Caches) -> None:
    """Bring the sizes and the threshold of what was taken over in line with the settings."""
    settings = caches.settings
    caches.exact.memory.resize(settings.exact.memory_bytes)
    if caches.disk is not None:
        await caches.disk.resize(settings.exact.disk_bytes)
    if caches.semantic is not None and settings.semantic is not None:
        caches.semantic.threshold = settings.semantic.threshold or DEFAULT_THRESHOLD


def recall_of(caches: Caches, embedder: Pool | None, telemetry: Telemetry) -> Recall:
    """Make what the pipeline sees of the caches."""
    settings = caches.settings
    return Recall(
        caches.exact,
        caches.semantic,
        None if embedder is None else _embedder(embedder),
        telemetry,
        clock=time.time,
        exact_ttl_s=settings.exact.ttl_s,
        semantic_ttl_s=settings.semantic.ttl_s if settings.semantic else settings.exact.ttl_s,
        embed_deadline_s=_EMBED_DEADLINE_S,
    )


def _same_disk(new: CacheSettings, old: CacheSettings) -> bool:
    return new.directory == old.directory and bool(new.exact.disk_bytes) == bool(old.exact.disk_bytes)


async def _open_disk(settings: CacheSettings) -> DiskStore | None:
    if not settings.exact.disk_bytes:
        return None
    disk = DiskStore(settings.directory, settings.exact.disk_bytes)
    await disk.open()
    return disk


def _embedder(pool: Pool) -> Embedder:
    async def embed(text: str) -> bytes:
        async with aclosing(pool.stream(Job(Task.EMBED, inputs=(text,)))) as events:
            vectors = [event.data async for event in events if type(event) is Vectors]
        return vectors[0]

    return Embedder(pool.engine.version, embed)
