"""The worker's one loop: reads what has come, does one step, writes what came of it. Knows nothing of models.

There is no reader thread: between two steps everything that has arrived is read without waiting, so a job reaches
the model, and a cancellation takes effect, within one step, and nothing is handed from thread to thread.
"""

import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from backends import messages
from backends.contract import BackendError, Job
from backends.frames import Buffer, Decoder, Frame

LARGE_BYTES = 1 << 16
WRITE_DEADLINE_S = 30.0


class Runner(Protocol):
    """The jobs of one model, done a step at a time."""

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        ...

    def add(self, number: int, job: Job) -> None:
        """Take a job. Raises BadJob."""
        ...

    def cancel(self, number: int) -> None:
        """Drop a job; one that is over is no error."""
        ...

    def step(self) -> list[Buffer]:
        """Do the smallest useful piece of work and return the frames to send, in parts."""
        ...


class Inbox:
    """Frames from a blocking socket, waited for or not."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._decoder = Decoder()

    def receive(self, *, wait: bool) -> list[Frame] | None:
        """Return the frames that have come, after waiting for bytes if asked to; None at the end of the stream."""
        received: list[Frame] = []
        flags = 0 if wait else socket.MSG_DONTWAIT
        while True:
            room = self._decoder.room()
            try:
                count = self._connection.recv_into(room, 0, flags)
            except BlockingIOError:
                return received
            except ConnectionResetError:
                return None
            if not count:
                return None
            received += self._decoder.took(count)
            if count < len(room):
                return received
            flags = socket.MSG_DONTWAIT


def limit_writes(connection: socket.socket, deadline_s: float = WRITE_DEADLINE_S) -> None:
    """Make a write fail when the other side takes nothing in for `deadline_s`; reads still wait for ever."""
    seconds, rest = divmod(deadline_s, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(seconds), int(rest * 1e6)))


def serve(connection: socket.socket, runner: Runner, due: Callable[[], Sequence[Buffer]] = tuple) -> None:
    """Do jobs until the other side closes, and tell what is `due` beside them.

    Raises BlockingIOError when the other side stops reading for too long.
    """
    inbox = Inbox(connection)
    while (received := inbox.receive(wait=not runner.busy)) is not None:
        # What needs no step is said before it, since one may take long: a ping asks whether the worker lives now.
        _send(connection, [answer for frame in received if (answer := _obey(frame, runner)) is not None])
        if runner.busy:
            _send(connection, runner.step())
            if parts := due():
                _send(connection, parts)


def _send(connection: socket.socket, parts: Sequence[Buffer]) -> None:
    """Send parts one after the other: the small ones joined, a large one from where it lies."""
    start = 0
    for place, part in enumerate(parts):
        if len(part) >= LARGE_BYTES:
            _send(connection, parts[start:place])
            connection.sendall(part)
            start = place + 1
    if start < len(parts):
        connection.sendall(b"".join(parts[start:]))


def _obey(frame: Frame, runner: Runner) -> bytes | None:
    header: Mapping[str, Any] = frame.header
    if header["kind"] == "ping":
        return messages.pong_frame()
    number = header["id"]
    if header["kind"] == "cancel":
        runner.cancel(number)
        return None
    try:
        runner.add(number, messages.read_job(frame))
    except BackendError as error:
        return messages.error_frame(number, error)
    return None
