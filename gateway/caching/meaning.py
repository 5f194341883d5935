"""What requests mean: their texts become vectors, each once, within a budget of time. Knows no cache and no pool."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from backends.contract import BackendError
from cache.contract import Meaning
from cache.semantic.airborne import Question
from cache.semantic.evidence import Match, Miss
from cache.semantic.guards import read_ahead

_REMEMBERED = 4096
# Texts whose vectors are waited for by nobody any more count too.
_AT_ONCE = 256
# So long a text is embedded for the answer's sake, after the request has gone on.
_LIMIT_S = 10.0


class Embedded(NamedTuple):
    """A text's normalised vector, little-endian float32, and what a verifier compares beside it."""

    vector: bytes
    tokens: bytes = b""


@dataclass(frozen=True, slots=True)
class Embedder:
    """Turns a text into its vector. Raises `BackendError`, also where the text is longer than the model's window."""

    version: str
    embed: Callable[[str], Awaitable[Embedded]]
    max_chars: int | None = None
    """A longer text may be cut off without a word, and texts that begin alike look alike then. None: it refuses."""


class BusyError(Exception):
    """So many texts are being embedded that another one would only wait."""


class Embeddings:
    """Vectors by text: those of late are remembered, and one text is embedded once however many ask."""

    def __init__(self, embedder: Embedder, *, remembered: int = _REMEMBERED, at_once: int = _AT_ONCE) -> None:
        self.version = embedder.version
        self.max_chars = embedder.max_chars
        self._embedder = embedder
        self._remembered: OrderedDict[str, Embedded] = OrderedDict()
        self._most = remembered
        self._at_once = at_once
        self._coming: dict[str, asyncio.Task[Embedded]] = {}

    def recall(self, text: str) -> Embedded | None:
        """Return what is remembered of the text."""
        found = self._remembered.get(text)
        if found is not None:
            self._remembered.move_to_end(text)
        return found

    def ask(self, text: str) -> "asyncio.Task[Embedded]":
        """Have the text embedded, and go on with it whoever leaves; shield what is returned. Raises `BusyError`."""
        task = self._coming.get(text)
        if task is None:
            if len(self._coming) >= self._at_once:
                raise BusyError
            task = self._coming[text] = asyncio.create_task(self._embed(text), name="embedding")
        return task

    async def close(self) -> None:
        """Let what is being embedded go."""
        tasks = list(self._coming.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _embed(self, text: str) -> Embedded:
        try:
            async with asyncio.timeout(_LIMIT_S):
                embedded = await self._embedder.embed(text)
        finally:
            del self._coming[text]
        self._remembered[text] = embedded
        if len(self._remembered) > self._most:
            self._remembered.popitem(last=False)
        return embedded


class Meanings(Mapping[str, Meaning]):
    """A request's meaning for each model version: empty until its vector has come, which may be after its budget."""

    def __init__(self, namespace: str, text: str, partitions: Mapping[str, bytes], budget_s: float) -> None:
        self.namespace = namespace
        """Under which trust learns what may be served."""
        self.text = text
        self.budget_s = budget_s
        """How long it is looked for; then the request goes on without."""
        self.ttl_s = math.inf
        """How long after it was made an answer may be served for it."""
        self.question: Question | None = None
        """What others that mean the same wait for, while this request is in flight."""
        self._until = time.monotonic() + budget_s
        self.sought: Match | Miss | None = None
        """What the search by meaning came to, once there was one."""
        self._partitions = partitions
        self._embedded: Embedded | None = None
        self._coming: asyncio.Task[Embedded] | None = None

    @property
    def turned_down(self) -> bool:
        """Whether an answer was found that would have been served, were it not for the client's words."""
        return isinstance(self.sought, Miss) and self.sought.reason == "request"

    async def arrive(self, embeddings: Embeddings) -> None:
        """Wait for the vector as long as the budget allows. Raises `BackendError`, `BusyError` and `TimeoutError`."""
        self._embedded = embeddings.recall(self.text)
        if self._embedded is None:
            self._coming = embeddings.ask(self.text)
            self._coming.add_done_callback(self._arrived)
            asyncio.get_running_loop().call_soon(read_ahead, self.text)  # the embedder is at work by then
            async with asyncio.timeout(self.left_s):
                await asyncio.shield(self._coming)

    @property
    def left_s(self) -> float:
        """What is left of the budget."""
        return max(0.0, self._until - time.monotonic())

    def look_again(self) -> None:
        """Begin another budget."""
        self._until = time.monotonic() + self.budget_s

    @property
    def is_coming(self) -> bool:
        """Whether the vector may still come."""
        return self._coming is not None and not self._coming.done()

    def when_arrived(self, call: Callable[[], None]) -> None:
        """Call this once the vector has come; never where it cannot be had."""
        if self._coming is not None:
            self._coming.add_done_callback(lambda _: call() if self._embedded is not None else None)

    def _arrived(self, task: "asyncio.Task[Embedded]") -> None:
        # Asking for the error also says that it was noticed, where the request has gone on.
        if not task.cancelled() and task.exception() is None:
            self._embedded = task.result()

    def __getitem__(self, version: str) -> Meaning:
        if self._embedded is None:
            raise KeyError(version)
        return Meaning(self._partitions[version], self.text, *self._embedded)

    def __iter__(self) -> Iterator[str]:
        return iter(self._partitions if self._embedded is not None else ())

    def __len__(self) -> int:
        return len(self._partitions) if self._embedded is not None else 0


NO_MEANINGS = Meanings("", "", {}, 0.0)

EMBEDDING_TROUBLES = (BackendError, BusyError)
"""Why a request has no meaning, but for a vector that is late: each is a miss, and counted by its name."""
