"""The semantic cache: finds a remembered answer to a question that means the same. Knows nothing of embedders.

The store is the truth. The index only proposes keys; whatever it proposes is read from the store, scored again with
the vector kept there, and judged by the text kept there. One whose entry is gone gives way to the next.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from cache.contract import Entry, Meaning, Store
from cache.semantic.airborne import Airborne, Question
from cache.semantic.contract import Objects, Verifier
from cache.semantic.counters import SemanticCounters
from cache.semantic.evidence import Match, Miss
from cache.semantic.fixed import FixedThreshold
from cache.semantic.index import VectorIndex
from cache.semantic.judging import Judge, Nominee, nominate
from cache.semantic.loading import Readable, load
from cache.semantic.vectors import read_vector, require_dims
from cache.trust.contract import Trust

_log = logging.getLogger(__name__)

# Chosen for minilm and the strict guards on the tune halves of the pair sets and the development replay:
# behind the guards nothing wrong was served from 0.70 up, so this leaves a margin; at 0.85 a third of the paraphrases
# that are served here would be lost.
DEFAULT_THRESHOLD = 0.75
_CANDIDATES = 4
# So many where guards veto all of these.
_FURTHER = 16
# A search of rows with more components takes longer than the way to another thread and back.
_COMPONENTS_AT_ONCE = 1 << 22
# How often it is looked again where some that were found are gone: a purge may have ended the nearest thousand.
_ROUNDS = 5
# Where the bound falls by more, others have their turn between: about two milliseconds.
_STEP_BYTES = 512 << 10


class SemanticCache:
    """Finds entries of `store` by meaning, within one partition.

    `trust` decides what may be served: a fixed threshold where none is given. The event loop's thread owns the index;
    large partitions are searched on another.
    """

    def __init__(
        self,
        store: Store,
        *,
        trust: Trust | None = None,
        verifier: Verifier | None = None,
        max_bytes: int = 256 << 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counters = SemanticCounters()
        self.judge = Judge(trust or FixedThreshold(DEFAULT_THRESHOLD), verifier, self.counters)
        self.airborne = Airborne()
        self._store = store
        self._clock = clock
        self._index = VectorIndex(max_bytes, clock)
        self._searches = ThreadPoolExecutor(1, thread_name_prefix="cache-semantic")
        self._loading: asyncio.Task[None] | None = None

    @property
    def entries(self) -> int:
        """How many entries can be found; one that is gone from the store counts until it is looked for."""
        return len(self._index)

    @property
    def trust(self) -> Trust:
        """What decides; it may be exchanged at any time."""
        return self.judge.trust

    @trust.setter
    def trust(self, trust: Trust) -> None:
        self.judge.trust = trust

    @property
    def used_bytes(self) -> int:
        """What the index costs."""
        return self._index.used_bytes

    async def resize(self, max_bytes: int) -> None:
        """Change the bound; a much smaller one is reached in steps, between which others are served."""
        while self.used_bytes > max_bytes + _STEP_BYTES:
            self.counters.evictions += self._index.resize(self.used_bytes - _STEP_BYTES)
            await asyncio.sleep(0)
        self.counters.evictions += self._index.resize(max_bytes)

    async def find(
        self,
        namespace: str,
        asked: Meaning,
        within_s: float = 1.0,
        *,
        objects: Objects | None = None,
        thoroughly: bool = False,
    ) -> Match | Miss:
        """Return the live entry of the meaning's partition that may be served, or why there is none in that time.

        What is returned to be served is counted as served: say by `objects` what would not be. `thoroughly` asks every
        guard about every candidate, for who wants to know it all.
        """
        try:
            async with asyncio.timeout(within_s):
                return await self._find(namespace, asked, objects, thoroughly=thoroughly)
        except TimeoutError:
            return Miss("deadline")
        except ValueError:
            self.counters.refused += 1
            return Miss("bad-vector")

    async def earlier(self, namespace: str, question: Question, within_s: float) -> Question | None:
        """Return a question in flight whose answer would serve this one, were it stored; None where there is none."""
        try:
            async with asyncio.timeout(within_s):
                for asked in question.meanings:
                    nominees = self.airborne.earlier(question, asked)
                    if nominees and (found := await self._earlier(namespace, asked, nominees[:_CANDIDATES])):
                        return found
        except (TimeoutError, ValueError):
            pass  # alone it is answered too, and the look-up before has counted the like
        return None

    def add(self, entry: Entry) -> None:
        """Make the entry findable by its meaning, in place of one of the same text; never waits.

        An entry without a meaning is not for this cache, and left alone.
        """
        if entry.meaning is None:
            return
        try:
            self.counters.evictions += self._index.add(entry)
        except ValueError as error:
            self.counters.refused += 1
            _log.debug("entry is not indexed: %s", error)
        else:
            self.counters.additions += 1

    def remove(self, key: bytes) -> None:
        """Stop finding the entry; never waits."""
        self._index.remove(key)

    def load(self, disk: Readable) -> None:
        """Index what the disk remembers while others ask and are answered; never waits."""
        work = load(self._index, disk, self.add)
        self._loading = asyncio.create_task(work, name="the index of the semantic cache")

    async def loaded(self) -> None:
        """Wait until what the disk remembers can be found."""
        if self._loading is not None:
            await asyncio.wait([self._loading])

    async def close(self) -> None:
        """End the loading and the thread; nothing may be asked afterwards."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        self._searches.shutdown(wait=False)

    async def _earlier(self, namespace: str, asked: Meaning, nominees: Sequence[Nominee]) -> Question | None:
        match = await self.judge.judge(namespace, asked, nominees, preview=True)
        if not isinstance(match, Match):
            return None
        return self.airborne.question(next(each for each in nominees if each.entry is match.entry))

    async def _find(self, namespace: str, asked: Meaning, objects: Objects | None, *, thoroughly: bool) -> Match | Miss:
        entries, dead = await self._living(asked, _CANDIDATES)
        if not entries:
            return Miss("gone" if dead else "empty")
        nominees = nominate(asked, entries)
        found = await self.judge.judge(
            namespace, asked, nominees, objects=objects, thoroughly=thoroughly, preview=thoroughly
        )
        if len(nominees) < _CANDIDATES or not isinstance(found, Miss) or found.reason != "vetoed":
            return found
        # Questions that differ in a number or a name stand close together: behind those may be the same one.
        seen = {nominee.entry.key for nominee in nominees}
        further = [entry for entry in (await self._living(asked, _FURTHER))[0] if entry.key not in seen]
        if not further:
            return found
        behind = await self.judge.judge(
            namespace, asked, nominate(asked, further), objects=objects, thoroughly=thoroughly, preview=thoroughly
        )
        is_decided = behind.best is not None and behind.best.decision is not None
        return replace(behind if is_decided else found, candidates=(*found.candidates, *behind.candidates))

    async def _living(self, asked: Meaning, count: int) -> tuple[list[Entry], int]:
        """Return the entries of the nearest vectors, and how many of those were gone."""
        dead = 0
        entries: list[Entry] = []
        for _ in range(_ROUNDS):
            keys = await self._nearest(asked, count)
            entries = [entry for key in keys if (entry := await self._alive(key, asked)) is not None]
            if len(entries) == len(keys):
                break
            # What was gone hid others that are as near: it is out of the index now.
            dead += len(keys) - len(entries)
            count *= 1 if entries else 4
        return entries, dead

    async def _nearest(self, asked: Meaning, count: int) -> list[bytes]:
        row = read_vector(asked.vector)
        view = self._index.view(asked.partition)
        if view is None:
            return []
        require_dims(row, view.dims)
        if view.rows * view.dims <= _COMPONENTS_AT_ONCE:
            found = view.nearest(row, count)
        else:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._searches, view.nearest, row, count)
        return [key for each in found if (key := self._index.key_of(each.number)) is not None]

    async def _alive(self, key: bytes, asked: Meaning) -> Entry | None:
        """Return the entry as the store has it, if it lives; one stored again for somebody else is gone from here."""
        entry = await self._store.get(key)
        if entry is not None and entry.fresh_until > self._clock():
            if entry.meaning is not None and entry.meaning.partition == asked.partition:
                return entry
            if entry.meaning is not None:
                return None
        self.counters.gone += 1
        self._index.remove(key)
        return None
