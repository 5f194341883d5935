"""Requests that mean the same, in flight at once: the later waits for what the earlier gets. Knows no wire.

Whether an answer may be kept, and so serve another question, is known when it is whole. So one that waits holds a seat
in the work, which keeps it alive, and reads its answer from the cache afterwards: by the same checks as any other. If
it is not there, whatever the reason, the one that waited is answered by a model of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping

from backends.contract import BackendError
from cache.contract import Meaning
from cache.flight import FlightCancelledError, FlightLaggedError, SingleFlight
from cache.semantic.airborne import Question
from cache.semantic.lookup import SemanticCache
from gateway.caching.meaning import Meanings
from gateway.running import Item

# Of those it waited for none could serve: it has waited long enough.
_TRIES = 3
_FAILURES = (BackendError, FlightLaggedError, FlightCancelledError)


class Neighbours:
    """Lets questions in flight find each other; without a semantic cache none does."""

    def __init__(self, semantic: SemanticCache | None, flights: SingleFlight[Item]) -> None:
        self._semantic = semantic
        self._flights = flights

    def board(self, meanings: Meanings) -> None:
        """Take a request's question up: those that come later find it until it is `left`."""
        if self._semantic is not None:
            meanings.question = self._semantic.airborne.board(list(meanings.values()))

    def begun(self, meanings: Mapping[str, Meaning], key: bytes) -> None:
        """Tell those who wait which work makes the answer."""
        if isinstance(meanings, Meanings) and meanings.question is not None:
            meanings.question.begin(key)

    def left(self, meanings: Mapping[str, Meaning], *, landed: bool = False) -> None:
        """Let a question go: its answer has `landed`, or no work was begun for it. Else it is in flight still."""
        if not isinstance(meanings, Meanings) or meanings.question is None or self._semantic is None:
            return
        if landed or not meanings.question.begun.done():
            self._semantic.airborne.leave(meanings.question)

    async def waited(self, meanings: Meanings, own: bytes, within_s: float) -> bool:
        """Wait for an earlier question that means the same; tell whether one was answered, so that it is worth a look.

        What the look-up has left of its budget is for finding it, and `within_s` for its answer. One whose work has the
        request's `own` key is the same request: that work is joined, which needs no wait for its end.
        """
        question = meanings.question
        if self._semantic is None or question is None or not meanings.left_s:
            return False
        try:
            async with asyncio.timeout(within_s):
                for _ in range(_TRIES):
                    earlier = await self._semantic.earlier(meanings.namespace, question, meanings.left_s)
                    if earlier is None:
                        return False
                    question.follows = True
                    try:
                        key = await asyncio.shield(earlier.begun)
                        if key == own:
                            return False
                        # From a cache, perhaps, which is worth a look; it is found no more.
                        if key is None or await self._rode_along(earlier, key):
                            return True
                    finally:
                        question.follows = False
                    meanings.look_again()
        except TimeoutError:
            pass
        return False

    async def _rode_along(self, earlier: Question, key: bytes) -> bool:
        assert self._semantic is not None, "a question is in flight only where there is a semantic cache"
        if not self._flights.waiters(key):
            self._semantic.airborne.leave(earlier)
            return True
        try:
            async with self._flights.join(key, _nothing) as seat:
                async for _ in seat:
                    pass
        except _FAILURES:
            return False
        return True


async def _nothing() -> AsyncIterator[Item]:
    raise AssertionError("there is work under this key")
    yield
