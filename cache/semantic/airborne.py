"""Questions whose answers are being looked for or made, by partition. Knows no answers and nothing of who makes them.

Whoever comes later may wait for one that came earlier and means the same, never the other way round: so no two wait
for each other. One that waits itself is waited for by nobody, as no answer will be stored for its words.
"""

import asyncio
from collections.abc import Iterator, Sequence

from cache.contract import Entry, Meaning
from cache.semantic.judging import Nominee
from cache.semantic.vectors import similarity

# More are not compared, and not kept: they are answered by themselves.
_MOST = 1024
_COMPARED = 128


class Question:
    """One request's question, under each partition that its answer may be stored in.

    `begun` comes to the key of the work that makes its answer, and to None where it was answered without.
    """

    __slots__ = ("begun", "follows", "meanings", "number")

    def __init__(self, number: int, meanings: Sequence[Meaning]) -> None:
        self.number = number
        self.meanings = tuple(meanings)
        self.follows = False
        self.begun: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    def begin(self, key: bytes | None) -> None:
        """Tell those who wait which work there is; the first word counts."""
        if not self.begun.done():
            self.begun.set_result(key)


class Airborne:
    """The questions in flight; a bounded number."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._next = 0
        self._questions: dict[int, Question] = {}
        self._places: dict[bytes, dict[int, Meaning]] = {}

    def __len__(self) -> int:
        return len(self._questions)

    def board(self, meanings: Sequence[Meaning]) -> Question | None:
        """Take a question up, until it `leave`s, or is the oldest of too many; None where it has no meaning."""
        if not meanings:
            return None
        if len(self._questions) >= self._most:
            self.leave(next(iter(self._questions.values())))
        question = self._questions[self._next] = Question(self._next, meanings)
        for meaning in meanings:
            self._places.setdefault(meaning.partition, {})[question.number] = meaning
        self._next += 1
        return question

    def leave(self, question: Question) -> None:
        """Let a question go, and those who wait for it; leaving twice is leaving once."""
        question.begin(None)
        if self._questions.pop(question.number, None) is None:
            return
        for meaning in question.meanings:
            place = self._places[meaning.partition]
            place.pop(question.number, None)
            if not place:
                self._places.pop(meaning.partition)

    def question(self, nominee: Nominee) -> Question | None:
        """Return the question that was nominated, if it is still in flight."""
        return self._questions.get(int.from_bytes(nominee.entry.key, "big"))

    def earlier(self, question: Question, asked: Meaning) -> list[Nominee]:
        """Return what came before a question, is in its partition and does not wait itself; the nearest first."""
        found = [_nominate(number, meaning, asked) for number, meaning in self._before(question, asked.partition)]
        return sorted(found, key=lambda nominee: -nominee.similarity)

    def _before(self, question: Question, partition: bytes) -> Iterator[tuple[int, Meaning]]:
        place = self._places.get(partition, {})
        if len(place) == 1:
            return
        earlier = [number for number in place if number < question.number and not self._questions[number].follows]
        for number in earlier[-_COMPARED:]:
            yield number, place[number]


def _nominate(number: int, meaning: Meaning, asked: Meaning) -> Nominee:
    entry = Entry(number.to_bytes(32, "big"), b"", 0.0, 0.0, meaning)
    return Nominee(entry, meaning, similarity(meaning.vector, asked.vector))
