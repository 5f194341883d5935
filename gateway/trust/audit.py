"""Audits served answers: asks the model too, off the request's path, and tells trust whether it says the same.

Knows nothing of how trust decides. What cannot be told, since the model or the judge gave no answer, is no label.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from backends.contract import BackendError, Job
from cache.contract import Meaning
from cache.semantic.evidence import Evidence, Match, Miss
from cache.trust.contract import Label, Source
from gateway.answer import Answer, Head, UnreadableAnswerError, answer_of, unpack
from gateway.caching.meaning import Meanings
from gateway.caching.recall import Hit
from gateway.running import Item

_log = logging.getLogger(__name__)

_MOST_WAITING = 256
_AT_A_TIME = 4
_DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Question:
    """What two answers are compared for: the question asked, and the one that was answered before."""

    asked: str
    stored: str


class Comparison(Protocol):
    """Tells whether one answer serves in place of another."""

    async def same(self, question: Question, given: Answer, made: Answer) -> bool | None:
        """Return whether `given` says what `made` does; None where that cannot be told. Raises `BackendError`."""
        ...


class Runs(Protocol):
    """Who asks models."""

    def run(self, job: Job, deadline_s: float, models: Sequence[str]) -> AsyncGenerator[Item, None]:
        """Run a job on the first of these models that begins to answer: its head, then what it makes."""
        ...


class Learns(Protocol):
    """Who is told of labels, and of audits that came to none."""

    def learn(self, label: Label) -> None:
        """Take a label into account."""
        ...

    def unanswered(self, namespace: str) -> None:
        """Note that a served answer that was to be audited could not be."""
        ...


@dataclass(slots=True)
class AuditCounters:
    """What became of the audits and explorations since the start."""

    same: int = 0
    wrong: int = 0
    untold: int = 0
    failed: int = 0
    dropped: int = 0


class Auditor:
    """Owns the audits under way: a bounded number, each with a deadline."""

    def __init__(
        self,
        trust: Learns,
        runner: Runs,
        comparison: Comparison,
        counters: AuditCounters,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        deadline_s: float = _DEADLINE_S,
        most_waiting: int = _MOST_WAITING,
    ) -> None:
        self.counters = counters
        self._trust = trust
        self._runner = runner
        self._comparison = comparison
        self._clock = clock
        self._monotonic = monotonic
        self._deadline_s = deadline_s
        self._most_waiting = most_waiting
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(_AT_A_TIME)

    def looked(self, meanings: Meanings, job: Job, hit: Hit | None) -> None:
        """Note what a search came to: a hit that is to be audited is checked against the model itself; never waits."""
        match = meanings.sought
        if hit is None or not isinstance(match, Match) or not match.decision.audit:
            return
        model = hit.answer.head.model

        async def made() -> Answer:
            return await self._ask(replace(job, background=True), [model])

        self._begin(meanings, match.best, "audit", made)

    def answered(self, meanings: Mapping[str, Meaning], answer: Answer) -> None:
        """Compare an answer that a model made with one that was near and not served, where that is wanted; never waits.

        Only an answer of the same version of the same model is one to compare with.
        """
        if not isinstance(meanings, Meanings) or not isinstance(meanings.sought, Miss) or not meanings.sought.explore:
            return
        best, meaning = meanings.sought.best, meanings.get(answer.head.version)
        if best is None or best.entry.meaning is None or meaning is None:
            return
        if best.entry.meaning.partition != meaning.partition:
            return

        async def made() -> Answer:
            return answer

        self._begin(meanings, best, "exploration", made)

    async def close(self) -> None:
        """Cancel what is under way, and wait for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _begin(self, meanings: Meanings, best: Evidence, source: Source, made: Callable[[], Awaitable[Answer]]) -> None:
        if len(self._tasks) >= self._most_waiting:
            self.counters.dropped += 1
            self._give_up(meanings.namespace, source)
            return
        work = self._run(meanings.namespace, Question(meanings.text, best.text), best, source, made)
        task = asyncio.create_task(work, name=source)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(
        self, namespace: str, question: Question, best: Evidence, source: Source, made: Callable[[], Awaitable[Answer]]
    ) -> None:
        label = None
        try:
            async with asyncio.timeout(self._deadline_s), self._places:
                label = await self._label(namespace, question, best, source, made)
        except (BackendError, TimeoutError, UnreadableAnswerError) as error:
            self.counters.failed += 1
            _log.debug("an audit has no result: %s", type(error).__name__)
        except Exception:  # noqa: BLE001 - nobody waits for it; the log has it
            self.counters.failed += 1
            _log.exception("an audit failed")
        finally:
            if label is None:
                self._give_up(namespace, source)
            else:
                self._trust.learn(label)

    def _give_up(self, namespace: str, source: Source) -> None:
        if source == "audit":
            self._trust.unanswered(namespace)

    async def _label(
        self, namespace: str, question: Question, best: Evidence, source: Source, made: Callable[[], Awaitable[Answer]]
    ) -> Label | None:
        decision = best.decision
        assert decision is not None, "what trust asked for was decided on"
        answer = await made()
        same = await self._comparison.same(question, unpack(best.entry.value), answer)
        if same is None:
            self.counters.untold += 1
            return None
        if same:
            self.counters.same += 1
        else:
            self.counters.wrong += 1
        return Label(
            namespace, best.pair, decision.confidence, decision.serve, same, source, self._clock(), decision.share
        )

    async def _ask(self, job: Job, models: Sequence[str]) -> Answer:
        head: Head | None = None
        items: list[Item] = []
        async with aclosing(self._runner.run(job, self._monotonic() + self._deadline_s, models)) as running:
            async for item in running:
                if type(item) is Head:
                    head = item
                else:
                    items.append(item)
        assert head is not None, "an answer begins with its head"
        return answer_of(head, items)
