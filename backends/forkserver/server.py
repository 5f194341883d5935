"""The fork server's process: imports the runtime once, then forks one child a request. Knows not what a job is.

Run as `python -P -m backends.forkserver.server FD`, where FD is its end of the control socket. Frames that come in:
`worker` and `command` (with file descriptors beside them) and `signal`. Frames that go out: `ready`, `spawned`,
`refused` and `exit`. It is single-threaded, so that a fork copies no half-held lock; the end of the control socket
means that the gateway is gone, and everything below this process is ended with it.
"""

import array
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from backends import frames
from backends.forkserver import children, family

END_DEADLINE_S = 10.0
_READ_BYTES = 1 << 16
_MAX_FDS = 16


class Server:
    """The select loop and the table of children."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._decoder = frames.Decoder()
        self._received_fds: list[int] = []
        self._markers: dict[int, str | None] = {}
        """The running children by pid; workers start nothing and have no marker."""
        self._executing: dict[int, tuple[int, int]] = {}
        """Commands that have not become their program yet: (pipe, order) by pid."""
        self._ending = False

    def run(self) -> None:
        """Serve until the gateway has gone (or this code fails), then end everything."""
        try:
            self._serve()
        finally:
            family.kill_descendants(time.monotonic, END_DEADLINE_S)

    def stop(self, number: int, frame: FrameType | None) -> None:
        """End the loop: the handler of SIGTERM."""
        del number, frame
        self._ending = True

    def _serve(self) -> None:
        wake, wake_write = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._send({"kind": "ready", "pid": os.getpid()})
        control = self._control.fileno()
        while not self._ending:
            pipes = {pipe: pid for pid, (pipe, _) in self._executing.items()}
            readable, _, _ = select.select([control, wake, *pipes], [], [])
            for pid in [pipes[each] for each in readable if each in pipes]:
                self._settle(pid)
            if wake in readable:
                os.read(wake, _READ_BYTES)
                self._reap()
            if control in readable:
                self._receive()

    def _receive(self) -> None:
        try:
            data, ancillary, _, _ = self._control.recvmsg(_READ_BYTES, socket.CMSG_SPACE(_MAX_FDS * 4))
        except ConnectionResetError:
            data, ancillary = b"", []
        if not data:
            self._ending = True
            return
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._received_fds += _descriptors(content)
        for frame in self._decoder.feed(data):
            self._obey(frame.header)

    def _obey(self, order: Mapping[str, Any]) -> None:
        if order["kind"] == "signal":
            if order["pid"] in self._markers:
                family.signal_child(order["pid"], order["number"])
            return
        fds = [self._received_fds.pop(0) for _ in range(order["fds"])]
        try:
            self._spawn(order, fds)
        except OSError as error:
            self._send({"kind": "refused", "id": order["id"], "reason": str(error)})
        finally:
            for fd in fds:
                os.close(fd)

    def _spawn(self, order: Mapping[str, Any], fds: list[int]) -> None:
        if order["kind"] == "worker":
            pid = children.fork_worker(order, fds[0], fds[1])
            self._markers[pid] = None
            self._send({"kind": "spawned", "id": order["id"], "pid": pid})
        else:
            pid, pipe = children.fork_command(order, fds[0])
            self._markers[pid] = order["env"][family.MARKER]
            self._executing[pid] = (pipe, order["id"])

    def _settle(self, pid: int) -> None:
        """Report whether a command has become its program; its pipe has ended or holds the reason."""
        pipe, number = self._executing.pop(pid)
        with os.fdopen(pipe, "rb") as failed:
            reason = failed.read(_READ_BYTES)
        if reason:
            self._send({"kind": "refused", "id": number, "reason": reason.decode("utf-8", "replace")})
            del self._markers[pid]
        else:
            self._send({"kind": "spawned", "id": number, "pid": pid})

    def _reap(self) -> None:
        """Report children that ended, and end what they left behind; the end of an orphan brings us here again."""
        ended = False
        while (exited := _next_exit()) is not None:
            ended = True
            pid, status = exited
            if pid in self._executing:
                self._settle(pid)
            if pid in self._markers:
                family.signal_group(pid, signal.SIGKILL)
                del self._markers[pid]
                self._send({"kind": "exit", "pid": pid, "status": os.waitstatus_to_exitcode(status)})
        if ended:
            living = {marker for marker in self._markers.values() if marker is not None}
            for pid in family.orphans(self._markers, living):
                os.kill(pid, signal.SIGKILL)

    def _send(self, header: Mapping[str, object]) -> None:
        try:
            self._control.sendall(frames.encode(header))
        except (BrokenPipeError, ConnectionResetError):
            self._ending = True


def _descriptors(content: bytes) -> list[int]:
    fds = array.array("i")
    fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds.tolist()


def _next_exit() -> tuple[int, int] | None:
    """Reap one child that has ended; return its pid and wait status."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


def _single_threaded() -> None:
    """Raise where a library has started a thread: a fork would leave its locks held for ever in the child."""
    if sys.platform == "linux" and (count := len([*Path("/proc/self/task").iterdir()])) != 1:
        raise RuntimeError(f"{count} threads after the imports; a fork server must have one")


def main() -> None:
    """Serve on the descriptor that the command line names."""
    family.adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _single_threaded()
    control_fd = int(sys.argv[1])
    os.set_inheritable(control_fd, False)  # a command that held it would hide our end from the gateway
    server = Server(socket.socket(fileno=control_fd))
    signal.signal(signal.SIGTERM, server.stop)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.collect()
    gc.freeze()
    server.run()


if __name__ == "__main__":
    main()
