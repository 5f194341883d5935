"""Builds what decides on hits by meaning and what audits them, over what the generations share of both."""

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from backends.contract import Job, Task, Vectors
from backends.pool import Pool
from cache.semantic.lookup import DEFAULT_THRESHOLD
from cache.trust.journal import Journal
from cache.trust.live import Budget, LiveTrust
from cache.trust.state import Policy
from config.caching import AuditSettings, SemanticSettings
from gateway.counting.telemetry import Telemetry
from gateway.front import Page
from gateway.pages.trust_pages import TrustPages
from gateway.running import Runner
from gateway.trust.audit import AuditCounters, Auditor, Comparison
from gateway.trust.comparing import ByJudge, ByVectors, ByWords
from gateway.trust.recent import Recent
from gateway.trust.verifier import START_CONFIDENCE

_FILE = "trust.db"
# What a judge or the embedder may take for one comparison.
_STEP_S = 60.0


@dataclass(frozen=True, slots=True)
class Trusting:
    """What outlives a generation: what was learned of hits."""

    directory: Path
    trust: LiveTrust
    audits: AuditCounters

    def adopt(self, settings: SemanticSettings, version: str) -> None:
        """Go on under edited settings; what was learned stays."""
        self.trust.adopt(policy_of(settings), version, budget_of(settings.audit))

    async def close(self) -> None:
        """Write down what waits to be."""
        await self.trust.close()


async def open_trust(directory: Path, settings: SemanticSettings, version: str, former: Trusting | None) -> Trusting:
    """Open what is kept in the directory; what is open there already goes on, until `adopt` tells it of the edit."""
    if former is not None and former.directory == directory:
        return former
    journal = Journal(directory / _FILE)
    kept = await journal.open()
    trust = LiveTrust(policy_of(settings), version, journal, kept, budget=budget_of(settings.audit))
    return Trusting(directory, trust, AuditCounters())


def policy_of(settings: SemanticSettings) -> Policy:
    """Return what the settings promise."""
    return Policy(
        settings.max_wrong_hits,
        settings.threshold or (DEFAULT_THRESHOLD if settings.verifier is None else START_CONFIDENCE),
        share=settings.audit.share,
        start_share=settings.audit.start_share,
    )


def budget_of(audit: AuditSettings) -> Budget:
    """Return how many audits there may be; only asking a judge makes comparing what was not served cost one."""
    return Budget(audit.max_per_minute, exploration=1.0 if audit.compare == "judge" else 0.0)


def auditor_of(
    trusting: Trusting, settings: SemanticSettings, pools: Mapping[str, Pool], telemetry: Telemetry
) -> Auditor | None:
    """Make what audits under these settings; None where they promise nothing."""
    if settings.max_wrong_hits is None:
        return None
    runner = Runner(pools, telemetry, time.monotonic, time.time)
    return Auditor(trusting.trust, runner, _comparison(settings, pools, runner), trusting.audits)


def trust_table(
    recent: Recent | None, trusting: Trusting | None, forget: Callable[[bytes], Awaitable[bool]]
) -> Mapping[tuple[str, str], Page]:
    """Return the operator's pages of what was served and learned; where there are no caches they say so."""
    return TrustPages(recent, None if trusting is None else trusting.trust, forget).table()


def _comparison(settings: SemanticSettings, pools: Mapping[str, Pool], runner: Runner) -> Comparison:
    audit = settings.audit
    if audit.compare == "embedding":
        return ByVectors(_embed(pools[settings.embedder]), audit.similarity)
    if audit.compare == "judge":
        assert audit.judge is not None, "the settings are checked"
        return ByJudge(_ask(audit.judge, runner))
    return ByWords()


def _embed(pool: Pool) -> Callable[[str], Awaitable[bytes]]:
    async def embed(text: str) -> bytes:
        job = Job(Task.EMBED, inputs=(text,), background=True)
        async with aclosing(pool.stream(job, time.monotonic() + _STEP_S)) as events:
            vectors = [event.data async for event in events if type(event) is Vectors]
        return vectors[0]

    return embed


def _ask(judge: str, runner: Runner) -> Callable[[Job], Awaitable[str]]:
    async def ask(job: Job) -> str:
        answer, _ = await runner.whole(job, time.monotonic() + _STEP_S, [judge])
        return answer.text()

    return ask
