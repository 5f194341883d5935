"""Opens the caches that the settings ask for, and takes over from those in use whatever an edit leaves as it is."""

import dataclasses
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from backends.contract import Job, Task, Tensor, Tensors, Vectors
from backends.onnx import OnnxEngine
from backends.pool import Pool
from cache.disk.claim import Claim
from cache.disk.store import DiskStore
from cache.exact import ExactCache
from cache.memory import MemoryStore
from cache.purges import Purges
from cache.semantic.lookup import SemanticCache
from config.caching import CacheSettings
from gateway.building.trusting import Trusting, open_trust, trust_table
from gateway.caching.meaning import Embedded, Embedder
from gateway.caching.recall import Recall
from gateway.counting.telemetry import Telemetry
from gateway.front import Page
from gateway.pages.cache_pages import CachePages
from gateway.trust.recent import Recent
from gateway.trust.remembered import RememberedPairs
from gateway.trust.verifier import CONFIDENCE, PairVerifier

if TYPE_CHECKING:
    from cache.shared import SharedTier


# What fits into the window of every usual embedder.
_UNKNOWN_WINDOW_CHARS = 600


@dataclass(frozen=True, slots=True)
class Caches:
    """The tiers in use, and what each of them was opened for."""

    settings: CacheSettings
    disk: DiskStore | None
    shared: "SharedTier | None"
    exact: ExactCache
    semantic: SemanticCache | None
    embedder_version: str | None
    recent: Recent
    trusting: Trusting | None = None
    verifier_version: str | None = None
    claim: Claim | None = None

    @property
    def confidences(self) -> str:
        """What exactly tells how likely a hit is right: what is learned under one such says nothing of another."""
        by = "cosine" if self.verifier_version is None else self.verifier_version
        return f"{by} of {self.embedder_version}"

    async def close(self, successor: "Caches | None") -> None:
        """Close what the successor has not taken over."""
        if successor is None or successor.exact is not self.exact:
            await self.exact.close()
        if self.semantic is not None and (successor is None or successor.semantic is not self.semantic):
            await self.semantic.close()
        if self.trusting is not None and (successor is None or successor.trusting is not self.trusting):
            await self.trusting.close()
        if self.shared is not None and (successor is None or successor.shared is not self.shared):
            await self.shared.close()
        if self.disk is not None and (successor is None or successor.disk is not self.disk):
            await self.disk.close()
        if self.claim is not None and (successor is None or successor.claim is not self.claim):
            self.claim.release()


async def open_caches(
    settings: CacheSettings, embedder_version: str | None, former: Caches | None, verifier_version: str | None = None
) -> Caches:
    """Open what is not open yet. Sizes of what is taken over change with `adjust`.

    Raises `OSError` where another gateway has the directory.
    """
    claim = _claim(settings.directory, former)
    try:
        return await _open(settings, embedder_version, former, verifier_version, claim)
    except BaseException:
        if claim is not None and (former is None or claim is not former.claim):
            claim.release()
        raise


def _claim(directory: Path, former: Caches | None) -> Claim | None:
    if former is not None and former.settings.directory == directory:
        return former.claim
    try:
        return Claim(directory)
    except BlockingIOError as error:
        raise OSError(f"the cache in {directory} cannot be opened: another warmgate uses it") from error
    except OSError:
        return None  # a disk that fails is a warning of its store, and costs misses


async def _open(
    settings: CacheSettings,
    embedder_version: str | None,
    former: Caches | None,
    verifier_version: str | None,
    claim: Claim | None,
) -> Caches:
    same_disk = former is not None and _same_disk(settings, former.settings)
    if former is not None and same_disk:
        purges, disk, exact = former.exact.purges, former.disk, former.exact
    else:
        purges = _purges(former)
        disk = await _open_disk(settings, purges)
        exact = ExactCache(MemoryStore(settings.exact.memory_bytes), disk, purges)
    same_shared = former is not None and same_disk and _same_shared(settings, former.settings)
    shared = former.shared if former is not None and same_shared else await _open_shared(settings, purges)
    opened = Caches(
        settings,
        disk,
        shared,
        exact,
        None,
        embedder_version,
        Recent() if former is None else former.recent,
        verifier_version=verifier_version,
        claim=claim,
    )
    if settings.semantic is None:
        return opened
    try:
        return await _with_semantic(opened, former)
    except BaseException:
        await opened.close(former)
        raise


async def _with_semantic(opened: Caches, former: Caches | None) -> Caches:
    """Open the cache by meaning, and what tells how far it may be trusted."""
    settings, exact, embedder_version = opened.settings, opened.exact, opened.embedder_version
    assert settings.semantic is not None
    former_trust = None if former is None else former.trusting
    trusting = await open_trust(settings.directory, settings.semantic, opened.confidences, former_trust)
    opened = replace(opened, trusting=trusting)
    if former is not None and exact is former.exact and embedder_version == former.embedder_version:
        semantic = former.semantic
    else:
        semantic = None
    if semantic is None:
        semantic = SemanticCache(
            exact,
            trust=trusting.trust,
            max_bytes=settings.semantic.memory_bytes,
        )
        if opened.disk is not None:
            semantic.load(opened.disk)
    return replace(opened, semantic=semantic)


async def adjust(caches: Caches) -> None:
    """Bring the sizes and the threshold of what was taken over in line with the settings."""
    settings = caches.settings
    caches.recent.journal = None if caches.trusting is None else caches.trusting.trust.journal
    await caches.exact.resize(settings.exact.memory_bytes)
    caches.exact.shared = caches.shared
    caches.exact.learn = None if caches.semantic is None else caches.semantic.add
    caches.exact.sweeper.forget = None if caches.semantic is None else caches.semantic.remove
    if caches.disk is not None:
        await caches.disk.resize(settings.exact.disk_bytes)
    if caches.shared is not None and settings.shared is not None:
        caches.shared.adjust(deadline_s=settings.shared.timeout_s, single_flight=settings.shared.single_flight)
    if caches.semantic is not None and settings.semantic is not None:
        if caches.trusting is not None:
            caches.trusting.adopt(settings.semantic, caches.confidences)
            caches.semantic.trust = caches.trusting.trust
        await caches.semantic.resize(settings.semantic.memory_bytes)


def recall_of(caches: Caches, embedder: Pool | None, telemetry: Telemetry, verifier: Pool | None = None) -> Recall:
    """Make what the pipeline sees of the caches."""
    settings = caches.settings
    if caches.semantic is not None and settings.semantic is not None:
        budget_s = settings.semantic.budget_s
        caches.semantic.judge.verifier = None if verifier is None else _judge(verifier, budget_s)
    return Recall(
        caches.exact,
        caches.semantic,
        None if embedder is None else _embedder(embedder, token_vectors=verifier is not None),
        telemetry,
        clock=time.time,
        exact_ttl_s=settings.exact.ttl_s,
        semantic_ttl_s=settings.semantic.ttl_s if settings.semantic else settings.exact.ttl_s,
        budget_s=settings.semantic.budget_s if settings.semantic else 0.0,
        max_stale_s=settings.exact.max_stale_s,
        jitter=settings.exact.jitter,
        elsewhere=caches.shared,
        wait_s=settings.shared.wait_s if settings.shared else 0.0,
    )


def _semantic_stats(semantic: SemanticCache, budget: int, looked_up: Mapping[str, int]) -> dict[str, object]:
    asked, hits = sum(looked_up.values()), looked_up.get("hit", 0)
    return {
        "entries": semantic.entries,
        "bytes": semantic.used_bytes,
        "budget": budget,
        "hits": hits,
        "misses": asked - hits,
        "hit_ratio": round(hits / asked, 4) if asked else None,
        "reasons_of_misses": {reason: count for reason, count in looked_up.items() if reason != "hit"},
        **dataclasses.asdict(semantic.counters),
    }


def cache_table(caches: Caches | None, telemetry: Telemetry, models: Collection[str]) -> Mapping[tuple[str, str], Page]:
    """Return the operator's pages of the caches; where there are none they say so. `models`: those of the config."""

    def more() -> Mapping[str, object]:
        told: dict[str, object] = {}
        if caches is not None and caches.semantic is not None and caches.settings.semantic is not None:
            budget = caches.settings.semantic.memory_bytes
            told["semantic"] = _semantic_stats(caches.semantic, budget, telemetry.looked_up())
        return told if caches is None or caches.shared is None else {**told, "shared": caches.shared.stats()}

    if caches is None:
        return {
            **CachePages(None, more, models=models, clock=time.time).table(),
            **trust_table(None, None, _forget_nothing),
        }

    async def forget(key: bytes) -> bool:
        if caches.semantic is not None:
            caches.semantic.remove(key)
        return await caches.exact.purge_key(key)

    pages = CachePages(caches.exact, more, models=models, clock=time.time).table()
    return {**pages, **trust_table(caches.recent, caches.trusting, forget)}


async def _forget_nothing(key: bytes) -> bool:
    raise AssertionError(f"without caches nothing is served under {key.hex()}")


def _purges(former: Caches | None) -> Purges:
    """Return the purges to go on with: what was purged stays so, also where answers lie elsewhere from now on."""
    purges = Purges()
    if former is not None:
        purges.observe(former.exact.purges.stamp())
        purges.merge(former.exact.purges.marks())
    return purges


def _same_disk(new: CacheSettings, old: CacheSettings) -> bool:
    return new.directory == old.directory and bool(new.exact.disk_bytes) == bool(old.exact.disk_bytes)


def _same_shared(new: CacheSettings, old: CacheSettings) -> bool:
    return (new.shared and new.shared.url) == (old.shared and old.shared.url)


async def _open_shared(settings: CacheSettings, purges: Purges) -> "SharedTier | None":
    if settings.shared is None:
        return None
    # A tenth of a second of the start, for those alone who use it.
    from cache.shared import SharedTier  # noqa: PLC0415

    shared = SharedTier(
        settings.shared.url.get_secret_value(),
        purges,
        deadline_s=settings.shared.timeout_s,
        single_flight=settings.shared.single_flight,
    )
    await shared.open()
    return shared


async def _open_disk(settings: CacheSettings, purges: Purges) -> DiskStore | None:
    if not settings.exact.disk_bytes:
        return None
    disk = DiskStore(settings.directory, settings.exact.disk_bytes, purges=purges)
    await disk.open()
    return disk


def _judge(pool: Pool, deadline_s: float) -> RememberedPairs:
    async def infer(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        job = Job(Task.INFER, tensors=given, outputs=(CONFIDENCE,))
        answered = await pool.answer(job)
        return next((event.outputs for event in answered.events if type(event) is Tensors), ())

    return RememberedPairs(PairVerifier(pool.engine.version, infer, deadline_s=deadline_s))


def _embedder(pool: Pool, *, token_vectors: bool) -> Embedder:
    async def embed(text: str) -> Embedded:
        job = Job(Task.EMBED, inputs=(text,), token_vectors=token_vectors)
        answered = await pool.answer(job)
        vectors = next(event for event in answered.events if type(event) is Vectors)
        return Embedded(vectors.data, vectors.tokens[0] if vectors.tokens else b"")

    # Our own worker refuses a text beyond its model's window; of others nobody knows.
    max_chars = None if isinstance(pool.engine, OnnxEngine) else _UNKNOWN_WINDOW_CHARS
    return Embedder(pool.engine.version, embed, max_chars)
