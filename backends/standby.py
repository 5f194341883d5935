"""Workers that stand by: forked, their device ready, without a model yet. One is handed to whoever starts next there.

They are worth it where making a device ready takes long, which is measured at starts: on a processor it takes nothing,
and nobody stands by. They are the first to go where memory is short.
"""

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from dataclasses import dataclass
from typing import Any

import psutil

from backends import messages
from backends.contract import StartFailed
from backends.forkserver.client import Child, ForkServer
from backends.forkserver.tether import tethered
from backends.frames import Decoder, FrameError
from backends.snapshot import backoff_s
from backends.tail import OutputTail
from backends.warmth.ladder import WAIT_VALUE
from backends.worker.spec import WorkerSpec

_log = logging.getLogger(__name__)

LEAST_DEVICE_S = 0.1
"""A device that is ready in less is not worth a process."""

HOLD_SHARE = 0.05
"""What one holds that stands by, as a share of what a replica holds that is worth a device."""

READY_DEADLINE_S = 120.0
_READ_BYTES = 1 << 16
_PAUSE_S = 60.0

Key = tuple[tuple[int, ...], tuple[str, ...]]


def patience_s(device_s: float) -> float:
    """Return how long one stands by after a start there: until it has cost what it spares; 0 where it spares little."""
    return WAIT_VALUE * device_s / HOLD_SHARE if device_s >= LEAST_DEVICE_S else 0.0


@dataclass(frozen=True, slots=True)
class Standing:
    """A worker that stands by: its process, our end of its socket, what it prints."""

    child: Child
    connection: socket.socket
    output: OutputTail
    left: asyncio.Future[str]
    """Why it stands by no more."""

    async def end(self) -> None:
        """End it."""
        self.connection.close()
        with contextlib.suppress(TimeoutError):
            await self.child.kill()
        self.output.close()


class Standby:
    """At most one standing worker for each device that starts happen on."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        """`taken` by a start, `died`, `sent_away` for want of memory, `expired`."""
        self._fork_server: ForkServer | None = None
        self._ready: dict[Key, Standing] = {}
        self._tending: dict[Key, asyncio.Task[None]] = {}
        self._until: dict[Key, float] = {}
        self._paused_until = 0.0

    async def use(self, fork_server: ForkServer) -> None:
        """Fork them there from now on; those of another fork server end."""
        if fork_server is not self._fork_server:
            await self._end_all()
            self._fork_server = fork_server

    def held_bytes(self) -> int:
        """Return what they hold of the host."""
        return sum(_resident(each.child.pid) for each in self._ready.values())

    def learn(self, devices: tuple[int, ...], providers: tuple[str, ...], device_s: float) -> None:
        """Learn how long a device took to be ready at a start; where that is long, see to it that one stands by."""
        if (patience := patience_s(device_s)) and devices:
            self._until[devices, providers] = _now() + patience
            self._tend((devices, providers))

    async def take(self, spec: WorkerSpec) -> Standing | None:
        """Hand the model to who stands by for its devices; None where nobody does."""
        standing = self._ready.pop((spec.devices, spec.providers), None)
        if standing is None or standing.child.returncode is not None:
            return None
        try:
            order = messages.order_frame(spec.to_order())
            await asyncio.get_running_loop().sock_sendall(standing.connection, order)
        except OSError:
            standing.left.set_result("died")
            return None
        standing.left.set_result("taken")
        return standing

    def give_way(self) -> None:
        """Send all away, and have none for a while: somebody waits for memory."""
        if self._ready:
            self._paused_until = _now() + _PAUSE_S
        for standing in self._ready.values():
            standing.left.set_result("sent_away")
        self._ready.clear()

    async def close(self) -> None:
        """End all."""
        await self._end_all()

    async def _end_all(self) -> None:
        tasks = list(self._tending.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._until.clear()

    def _tend(self, key: Key) -> None:
        if key not in self._tending:
            task = self._tending[key] = asyncio.create_task(self._keep_one(key), name=f"standby on {key[0]}")
            task.add_done_callback(lambda _: self._tending.pop(key, None))

    async def _keep_one(self, key: Key) -> None:
        """Have one standing until it is not worth it any more; what dies is replaced, after a pause that grows."""
        failures = 0
        while _now() < self._until.get(key, 0.0):
            await asyncio.sleep(max(backoff_s("standby", failures), self._paused_until - _now()))
            try:
                standing = self._ready[key] = await self._stand(key)
            except (StartFailed, OSError, TimeoutError, FrameError) as error:
                outcome = "died"
                _log.warning("no worker stands by on GPU %s: %s", key[0], error)
            else:
                outcome = await self._outcome(key, standing)
            self.outcomes[outcome] += 1
            failures = failures + 1 if outcome == "died" else 0

    async def _outcome(self, key: Key, standing: Standing) -> str:
        """Wait until it is taken, sent away, dead, or stood by for long enough; unless it was taken it ends."""
        ended = asyncio.ensure_future(standing.child.wait())
        waits: list[asyncio.Future[Any]] = [ended, standing.left]
        try:
            limit_s = max(0.0, self._until[key] - _now())
            await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if standing.left.done():
                return standing.left.result()
            return "died" if ended.done() else "expired"
        finally:
            ended.cancel()
            if self._ready.get(key) is standing:
                del self._ready[key]
            if not (standing.left.done() and standing.left.result() == "taken"):
                await standing.end()

    async def _stand(self, key: Key) -> Standing:
        assert self._fork_server is not None, "`use` comes first"
        devices, providers = key
        async with tethered() as (ours, theirs, output):
            child = await self._fork_server.spawn_standby(devices, providers, theirs, output.fd)
        standing = Standing(child, ours, output, asyncio.get_running_loop().create_future())
        try:
            await _told(ours, output)
        except BaseException:
            await standing.end()
            raise
        return standing


async def _told(ours: socket.socket, output: OutputTail) -> None:
    """Return when a worker says that it stands by. Raises StartFailed where it ends instead, TimeoutError."""
    async with asyncio.timeout(READY_DEADLINE_S):
        told = await asyncio.get_running_loop().sock_recv(ours, _READ_BYTES)
    if not list(Decoder().feed(told)):
        await output.drain(1.0)
        raise StartFailed(f"it ended: {output.text()}")


def _now() -> float:
    return asyncio.get_running_loop().time()


def _resident(pid: int) -> int:
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.NoSuchProcess:
        return 0
    return int(memory.rss - getattr(memory, "shared", 0))
