"""One fork-server process as the gateway sees it: its socket, the orders under way, its children and their ends."""

import array
import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from backends import frames
from backends.contract import StartFailed
from backends.forkserver import family
from backends.forkserver.tether import tethered
from backends.tail import OutputTail

START_DEADLINE_S = 60.0
SPAWN_DEADLINE_S = 15.0
END_DEADLINE_S = 10.0
_DRAIN_DEADLINE_S = 0.5
_READ_BYTES = 1 << 16


class Child:
    """A child process in a session and process group of its own; `pid` is also the group's id."""

    def __init__(self, pid: int, marker: str | None, link: "Link") -> None:
        self.pid = pid
        self.marker = marker
        self._link = link
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<Child {self.pid} {'runs' if self.returncode is None else f'ended with {self.returncode}'}>"

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        """Return the exit code (minus the signal) once it has ended; -9 where the fork server died with it."""
        return await asyncio.shield(self._ended)

    def signal(self, number: int) -> None:
        """Signal the whole group; nothing happens where the child has ended."""
        if self.returncode is None:
            self._link.signal(self.pid, number)

    async def terminate(self, grace_s: float) -> int:
        """SIGTERM to the whole group, SIGKILL to whatever is left after `grace_s`; return the exit code."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                return await self.wait()
        return await self.kill()

    async def kill(self) -> int:
        """SIGKILL to the whole group; return the exit code. Raises TimeoutError where the kernel does not let it go."""
        self.signal(signal.SIGKILL)
        async with asyncio.timeout(END_DEADLINE_S):
            return await self.wait()

    def ended(self, returncode: int) -> None:
        """Note the end; called by the link alone."""
        if not self._ended.done():
            self._ended.set_result(returncode)


class Link:
    """One fork-server process: its control socket, the orders under way, its children.

    All of it happens in callbacks without an await, so that a child is known before its end can be reported.
    """

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket, output: OutputTail) -> None:
        self._loop = asyncio.get_running_loop()
        self.alive = True
        self.pid = process.pid
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._process = process
        self._control = control
        self._output = output
        self._decoder = frames.Decoder()
        self._ids = itertools.count(1)
        self._orders: dict[int, tuple[asyncio.Future[Child], str | None]] = {}
        self._children: dict[int, Child] = {}
        self._outgoing: deque[tuple[memoryview, list[int]]] = deque()
        self._farewell: asyncio.Task[None] | None = None
        self._loop.add_reader(control, self._receive)

    @classmethod
    async def open(cls, environment: Mapping[str, str]) -> "Link":
        """Start the process and wait until it has imported the runtime. Raises StartFailed."""
        try:
            link = await cls._launch(environment)
        except OSError as error:
            raise StartFailed(f"the fork server cannot be started: {error}") from error
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                await link.ready
        except BaseException as error:
            await link.close(0)
            if isinstance(error, TimeoutError):
                raise StartFailed(f"the fork server was not ready after {START_DEADLINE_S:g} s") from error
            raise
        return link

    @classmethod
    async def _launch(cls, environment: Mapping[str, str]) -> "Link":
        async with tethered() as (ours, theirs, output):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "backends.forkserver.server", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output.fd,
                stderr=output.fd,
                env=environment,
            )
        return cls(process, ours, output)

    async def spawn(self, order: Mapping[str, Any], fds: Sequence[int], *, marker: str | None) -> Child:
        """Send an order with its descriptors and wait for its child. Raises StartFailed and OSError."""
        if not self.alive:
            raise StartFailed("the fork server has just ended")
        number = next(self._ids)
        answer: asyncio.Future[Child] = self._loop.create_future()
        data = frames.encode({**order, "id": number, "fds": len(fds)})
        self._orders[number] = (answer, marker)
        try:
            self._send(data, fds)
            async with asyncio.timeout(SPAWN_DEADLINE_S):
                return await answer
        except TimeoutError as error:
            raise StartFailed(f"the fork server gave no child within {SPAWN_DEADLINE_S:g} s") from error
        except asyncio.CancelledError:
            # The child may have come in the very moment in which its caller was cancelled.
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                answer.result().signal(signal.SIGKILL)
            raise

    def signal(self, pid: int, number: int) -> None:
        """Pass a signal on to a child's group; where the fork server has gone, its children go with it."""
        self._send(frames.encode({"kind": "signal", "pid": pid, "number": number}))

    async def close(self, deadline_s: float) -> None:
        """Say that we have gone, so that the process ends all below it; end it ourselves at the deadline."""
        if self.alive:
            self._control.shutdown(socket.SHUT_WR)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline_s):
                    await self._process.wait()
            self._lost()
        if self._farewell is not None:
            await asyncio.shield(self._farewell)

    def _send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        if self.alive:
            self._outgoing.append((memoryview(data), [os.dup(fd) for fd in fds]))
            self._flush()

    def _flush(self) -> None:
        while self._outgoing:
            data, fds = self._outgoing.popleft()
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._control.sendmsg([data], ancillary)
            except BlockingIOError:
                self._outgoing.appendleft((data, fds))
                self._loop.add_writer(self._control, self._flush)
                return
            except OSError:
                _close_all(fds)
                self._lost()
                return
            _close_all(fds)
            if sent < len(data):
                self._outgoing.appendleft((data[sent:], []))
        self._loop.remove_writer(self._control)

    def _receive(self) -> None:
        try:
            data = self._control.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
        for frame in self._decoder.feed(data):
            self._note(frame.header)

    def _note(self, event: Mapping[str, Any]) -> None:
        match event["kind"]:
            case "ready":
                self.ready.set_result(None)
            case "spawned":
                self._note_child(event["pid"], *self._orders.pop(event["id"]))
            case "refused":
                answer, _ = self._orders.pop(event["id"])
                if not answer.done():
                    answer.set_exception(StartFailed(event["reason"]))
            case "exit":
                self._children.pop(event["pid"]).ended(event["status"])

    def _note_child(self, pid: int, answer: asyncio.Future[Child], marker: str | None) -> None:
        child = Child(pid, marker, self)
        self._children[pid] = child
        if answer.done():  # whoever asked has been cancelled, or waited too long
            child.signal(signal.SIGKILL)
        else:
            answer.set_result(child)

    def _lost(self) -> None:
        """Note that the process has ended, or must: fail what waits, and see to it that no child outlives it."""
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._control.close()
        for _, fds in self._outgoing:
            _close_all(fds)
        self._outgoing.clear()
        self._farewell = self._loop.create_task(self._bury(), name="fork server: bury")

    async def _bury(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            # Not `kill()`: it looks for the end first, and what it reaps there asyncio's watcher can no longer report.
            if self._process.returncode is None:
                os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_DEADLINE_S):
                await self._process.wait()
        markers = {child.marker for child in self._children.values() if child.marker is not None}
        if markers:
            await asyncio.to_thread(family.kill_marked, markers)
        await self._output.drain(_DRAIN_DEADLINE_S)
        self._fail(StartFailed(_in_words(self._process.returncode, self._output.text())))
        for child in self._children.values():
            child.ended(-signal.SIGKILL)
        self._output.close()

    def _fail(self, error: StartFailed) -> None:
        waiting: list[asyncio.Future[Any]] = [self.ready, *(answer for answer, _ in self._orders.values())]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # it may be that nobody asks any more


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _in_words(returncode: int | None, output: str) -> str:
    said = f"; its last output:\n{output}" if output else ""
    return f"the fork server ended with status {returncode}{said}"
