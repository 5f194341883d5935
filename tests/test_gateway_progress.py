"""What a client of a stream is told while it waits: comments, the answer after them, and what went wrong."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from backends.contract import Job, StartFailed, Task
from backends.sse import SseParser
from gateway.progress import Pace, Waiting, comment, may_be_told
from gateway.query import Outcome
from gateway.router import Coming, Spread, Way
from gateway.surfaces.wire import Outlet, Reply
from tests.fakes import run_virtual

OUTCOME = cast("Outcome", object())
PACE = Pace(patience_s=2.0, every_s=5.0)


class Stream:
    """A stream that waits for `answering`; it notes outcomes that were given up."""

    def __init__(self, answering: Any) -> None:
        self.left: list[Outcome] = []
        self.clock = asyncio.get_running_loop().time
        self.began = self.clock()
        self.waiting = Waiting(answering, self.coming, self.leave, PACE)
        self.closed = False

    def coming(self) -> Coming:
        """Twelve seconds remain at the beginning."""
        left_s = 12.0 - (self.clock() - self.began)
        return Coming("llama", Way.START, Spread(left_s, left_s))

    async def leave(self, outcome: Outcome) -> None:
        """Note an outcome that nobody reads."""
        self.left.append(outcome)

    async def go_on(self, outcome: Outcome) -> Reply:
        """Answer in two pieces, of which the outlet may take the second."""
        assert outcome is OUTCOME
        self.outlet = Outlet()
        return Reply(200, {}, self.body(), self.outlet)

    async def body(self) -> AsyncIterator[bytes]:
        """Make the stream of the answer."""
        try:
            yield b"data: 1\n\n"
            yield b"data: 2\n\n"
        finally:
            self.closed = True

    def told(self, outlet: Outlet | None = None) -> AsyncIterator[bytes]:
        """Return what its client gets."""
        return self.waiting.told(outlet or Outlet(), self.go_on, lambda error: f"data: {error}\n\n".encode())


async def after(seconds: float, error: Exception | None = None) -> Outcome:
    """Have an outcome after a time."""
    await asyncio.sleep(seconds)
    if error is not None:
        raise error
    return OUTCOME


def test_what_is_there_soon_needs_no_comments():
    """Within the patience the outcome comes by itself, and so does an error, each with a status of its own."""

    async def main() -> None:
        assert await Stream(after(1.5)).waiting.at_once() is OUTCOME
        with pytest.raises(StartFailed):
            await Stream(after(1.5, StartFailed("no"))).waiting.at_once()

    run_virtual(main())


def test_a_client_that_waits_is_told_what_for_and_how_long_still():
    """Comments come at once when the patience is over, and then regularly, before the events of the answer."""

    async def main() -> None:
        stream = Stream(after(11.0))
        assert await stream.waiting.at_once() is None
        outlet = Outlet()
        outlet.write = bool

        told = [chunk async for chunk in stream.told(outlet)]

        assert told == [
            b": starting llama, about 10 s left\n\n",
            b": starting llama, about 5 s left\n\n",
            b"data: 1\n\n",
            b"data: 2\n\n",
        ]
        assert stream.outlet.write is outlet.write
        parser = SseParser()
        assert [event for chunk in told for event in parser.feed(chunk)] == [b"1", b"2"]

    run_virtual(main())


def test_what_is_told_to_be_left_never_rises():
    """What a start takes is weighed anew all the time; the client sees it fall, or stay, whichever model it is of."""

    async def main() -> None:
        now = iter([3.2, 4.0, 7.5, None, 2.1, 0.0, 9.0])

        def coming() -> Coming | None:
            left_s = next(now, 1.0)
            return None if left_s is None else Coming("llama", Way.START, Spread(left_s, left_s))

        stream = Stream(after(40.0))
        stream.waiting._coming = coming
        assert await stream.waiting.at_once() is None
        chunks = stream.told()
        told = [(await anext(chunks)).decode() for _ in range(7)]
        await cast("Any", chunks).aclose()

        assert [words.strip().removeprefix(": starting llama, ") for words in told] == [
            "about 4 s left", "about 4 s left", "about 4 s left", ": at work", "about 3 s left", "any moment now",
            "any moment now",
        ]  # fmt: skip

    run_virtual(main())


def test_a_start_that_fails_is_told_in_the_stream():
    """Once the status is out, what went wrong is an event as the wire tells errors."""

    async def main() -> None:
        stream = Stream(after(4.0, StartFailed("exited with status 3")))
        assert await stream.waiting.at_once() is None

        assert [chunk async for chunk in stream.told()][-1] == b"data: exited with status 3\n\n"

    run_virtual(main())


@pytest.mark.parametrize("takes_s", [3.0, 60.0])
def test_a_client_that_leaves_ends_the_work(takes_s):
    """Its request is cancelled; an outcome that came all the same is given up."""

    async def main() -> None:
        stream = Stream(after(takes_s))
        assert await stream.waiting.at_once() is None
        told = stream.told()
        await anext(told)
        await asyncio.sleep(3.0)
        await cast("Any", told).aclose()

        assert stream.left == ([OUTCOME] if takes_s < 5 else [])
        assert stream.waiting._task.done()

    run_virtual(main())


def test_a_client_that_leaves_in_the_midst_closes_the_answer():
    """The body of the answer is closed with the stream around it."""

    async def main() -> None:
        stream = Stream(after(3.0))
        assert await stream.waiting.at_once() is None
        told = stream.told()
        assert await anext(told) == b": starting llama, about 10 s left\n\n"
        assert await anext(told) == b"data: 1\n\n"
        await cast("Any", told).aclose()

        assert stream.closed
        assert stream.left == []

    run_virtual(main())


@pytest.mark.parametrize(
    ("coming", "words"),
    [
        (None, b": at work\n\n"),
        (Coming("m", Way.WAKE, Spread(0.4, 1.0)), b": waking m, about 1 s left\n\n"),
        (Coming("m", Way.QUEUE, Spread(30.2, 40.0)), b": waiting for m, about 31 s left\n\n"),
        (Coming("a\nb", Way.STARTING, Spread(0.0, 0.0)), b": starting a b, any moment now\n\n"),
    ],
)
def test_a_comment_says_what_is_waited_for(coming, words):
    """A comment is one line, whatever the model is called."""
    assert comment(coming) == words


@pytest.mark.parametrize(
    ("job", "told"),
    [
        (Job(Task.CHAT, stream=True), True),
        (Job(Task.COMPLETION, stream=True), True),
        (Job(Task.CHAT), False),
        (Job(Task.RELAY, stream=True), False),
    ],
)
def test_only_who_reads_events_is_told(job, told):
    """A whole answer has no room for comments, and what is relayed may be no events at all."""
    assert may_be_told(job) is told
