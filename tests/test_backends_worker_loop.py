"""The worker's loop: jobs in, frames out, and an end when the gateway's end is gone or stuck."""

import socket
import threading
from collections.abc import Iterator

import pytest

from backends import messages
from backends.contract import BadJob, Job, Task
from backends.frames import Decoder, FrameError
from backends.worker.loop import Inbox, limit_writes, serve


class FakeRunner:
    """Answers each job in the step after it came; refuses what holds "bad"."""

    def __init__(self, answer_bytes: int = 1) -> None:
        self.waiting: list[int] = []
        self.cancelled: list[int] = []
        self.batches: list[int] = []
        self._answer_bytes = answer_bytes

    @property
    def busy(self) -> bool:
        """Whether jobs wait."""
        return bool(self.waiting)

    def add(self, number, job) -> None:
        """Take a job."""
        if "bad" in job.inputs:
            raise BadJob("no", "input")
        self.waiting.append(number)

    def cancel(self, number) -> None:
        """Drop a job."""
        self.cancelled.append(number)
        self.waiting = [each for each in self.waiting if each != number]

    def step(self) -> list[bytes]:
        """Answer everything."""
        done, self.waiting = self.waiting, []
        self.batches.append(len(done))
        return [messages.text_frame(number, 0, "x" * self._answer_bytes) for number in done]


@pytest.fixture(name="pair")
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def job(number, text="w") -> bytes:
    """Encode an embed job."""
    return b"".join(messages.job_frame(number, Job(Task.EMBED, inputs=(text,)), {}))


def answers(ours, theirs, runner, *sent: bytes) -> list[dict[str, object]]:
    """Send bytes, close, serve until then, and return the headers that came back."""
    for each in sent:
        ours.sendall(each)
    ours.shutdown(socket.SHUT_WR)
    serve(theirs, runner)
    theirs.close()
    frames = []
    decoder = Decoder()
    while data := ours.recv(1 << 16):
        frames += decoder.feed(data)
    return [dict(frame.header) for frame in frames]


def test_what_waits_makes_one_batch(pair):
    """Jobs that have arrived together are taken in together, and answered in one step."""
    runner = FakeRunner()
    reading, writing = socket.socketpair()
    with reading, writing:
        writing.sendall(b"".join(job(number) for number in range(5)))
        frames = Inbox(reading).receive(wait=True)
    assert len(frames) == 5

    answers(*pair, runner, b"".join(job(number) for number in range(5)), job(5))
    assert sum(runner.batches) == 6
    assert runner.batches[0] >= 5


def test_a_refusal_is_an_answer(pair):
    """A job that the runner refuses is answered at once with its field, and the others are done."""
    first, second = answers(*pair, FakeRunner(), job(1, "bad") + job(2))

    assert (first["kind"], first["id"], first["param"]) == ("error", 1, "input")
    assert (second["kind"], second["id"]) == ("text", 2)


def test_a_cancellation_overtakes_the_step(pair):
    """A cancellation that has arrived with its job keeps it from being run."""
    runner = FakeRunner()

    assert answers(*pair, runner, job(1) + messages.cancel_frame(1)) == []
    assert (runner.cancelled, runner.batches) == ([1], [])


def test_a_ping_is_answered_before_the_step(pair):
    """A sign of life does not wait for the step of the jobs that came with it, and needs no job."""
    kinds = [header["kind"] for header in answers(*pair, FakeRunner(), job(1) + messages.ping_frame())]
    assert kinds == ["pong", "text"]


def test_an_idle_worker_answers_a_ping(pair):
    """It lives, though it has nothing to do."""
    assert answers(*pair, FakeRunner(), messages.ping_frame()) == [{"kind": "pong"}]


def test_garbage_ends_the_loop(pair):
    """Bytes that are no frame raise FrameError: a worker has nothing to say to whoever sent them."""
    with pytest.raises(FrameError):
        answers(*pair, FakeRunner(), b"\xff" * 64)


def test_a_gateway_that_reads_nothing_ends_the_loop(pair):
    """A write that nobody takes in ends the worker after the bound, rather than hold it for ever."""
    ours, theirs = pair
    limit_writes(theirs, deadline_s=0.02)
    ours.sendall(job(1))

    with pytest.raises(BlockingIOError):
        serve(theirs, FakeRunner(answer_bytes=4 << 20))


def test_an_idle_loop_waits(pair):
    """Without work the loop blocks in a read until a job comes, whatever the bound on writes."""
    ours, theirs = pair
    limit_writes(theirs, deadline_s=0.02)
    thread = threading.Thread(target=serve, args=(theirs, FakeRunner()))
    thread.start()
    ours.sendall(job(1))

    [frame] = Decoder().feed(ours.recv(1 << 16))
    ours.shutdown(socket.SHUT_WR)
    thread.join(90)

    assert frame.header["text"] == "x"
    assert not thread.is_alive()
