"""The tier as one: its store, its leases and its purges over one link, and the two tasks that keep them going."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TypeVar

from cache.contract import Entry
from cache.disk.row import ROW_VERSION
from cache.purges import Purges
from cache.shared.leases import LEASE_S, Leases
from cache.shared.link import Link, UnreachableError
from cache.shared.marks import SharedMarks
from cache.shared.store import SharedStore

T = TypeVar("T")

# How often the gateways tell each other of purges: the longest that one goes on serving is about twice this.
BEAT_S = 0.5
_BEAT_DEADLINE_S = 1.0


class SharedTier:
    """A `Store` that several gateways share, with leases on what is being made. `open` first.

    What lies under a row's version is not seen by releases with another one.
    """

    def __init__(
        self,
        url: str,
        purges: Purges,
        *,
        deadline_s: float,
        single_flight: bool = True,
        clock: Callable[[], float] = time.time,
        prefix: str = "warmgate",
    ) -> None:
        self._prefix = f"{prefix}:{ROW_VERSION}:".encode()
        self._link = Link(url, deadline_s=deadline_s)
        self.store = SharedStore(self._link, self._name, clock)
        self.leases = Leases(self._link, self.store.read, self._name)
        self._marks = SharedMarks(self._link, purges, self._name)
        self._single_flight = single_flight
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: list[asyncio.Task[None]] = []
        self.leases.on_ended = self._wake.set

    async def open(self) -> None:
        """Learn what was purged meanwhile, and start. A server that cannot be reached is a warning."""
        await self._beat()
        self.store.reader.open()
        self._tasks = [
            asyncio.create_task(self._write(), name="cache-shared-writer"),
            asyncio.create_task(self._keep_in_step(), name="cache-shared-beat"),
        ]

    async def close(self, deadline_s: float = 5.0) -> None:
        """Write what is queued, release the leases and close, within the deadline."""
        await self.flush(deadline_s if self._link.up else 0.0)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []
        await self.leases.close()
        await self.store.reader.close()
        self.store.drop_all()
        await self._link.close()

    def adjust(self, *, deadline_s: float, single_flight: bool) -> None:
        """Change what may change while it is open."""
        self._link.deadline_s = deadline_s
        self._single_flight = single_flight

    @property
    def leads(self) -> bool:
        """Whether to ask for a lease before an answer is made; where not, nothing is waited for."""
        return self._single_flight and self._link.up

    async def ask(
        self, key: bytes, keys: Sequence[bytes], fits: Callable[[Entry], bool], within_s: float
    ) -> Entry | None:
        """Return the answer that another gateway is making; see `Leases.ask`."""
        return await self.leases.ask(key, keys, fits, within_s)

    def lead(self, key: bytes, make: Callable[[], AsyncIterator[T]]) -> Callable[[], AsyncIterator[T]]:
        """Return the work so that others which wait for it learn of its end; see `Leases.lead`."""
        return self.leases.lead(key, make)

    async def get(self, key: bytes) -> Entry | None:
        """Return the live entry, or None; where the server is known to be down, without any wait."""
        return await self.store.get(key)

    def keep(self, entry: Entry) -> None:
        """Queue the entry for the server; never waits."""
        self.leases.note(entry.key, stored=self.store.keep(entry))
        if self.store.has_pending:
            self._idle.clear()
            self._wake.set()

    async def put(self, entry: Entry) -> None:
        """Queue the entry for the server; see `keep`."""
        self.keep(entry)

    async def remove(self, key: bytes) -> None:
        """Forget the entry, also on the server: at the latest when that can be reached again."""
        await self.store.remove(key)

    async def tell(self) -> bool:
        """Tell the others of purges at once; where the server does not take them now, they are told when it is back."""
        return await self._exchange()

    async def flush(self, deadline_s: float = 5.0) -> bool:
        """Wait until what was put is on the server or lost; return whether that came within the deadline."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def stats(self) -> Mapping[str, int]:
        """Return its counters by name; `up` is 1 where its server answers."""
        reader, marks, breaker = self.store.reader, self._marks, self._link.breaker
        return {
            "up": int(self._link.up),
            "openings": breaker.openings,
            **asdict(self.store.counters),
            "timeouts": reader.timeouts,
            "turned_away": reader.turned_away,
            "errors": self._link.errors,
            **asdict(self.leases.counters),
            "purges_sent": marks.sent,
            "purges_received": marks.received,
        }

    def _name(self, kind: str, key: bytes) -> bytes:
        return self._prefix + kind.encode() + b":" + key

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.store.has_pending:
                for key in await self.store.write_some():
                    self.leases.note(key, stored=False)
                await self.leases.settle(self.store.is_unwritten)
            await self.leases.settle(self.store.is_unwritten)
            self._idle.set()

    async def _keep_in_step(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            if self._link.probe_due():
                await self._beat()
            else:
                await self._exchange()

    async def _exchange(self) -> bool:
        """Exchange purges; tell whether that was done.

        While requests do without a server that fails now and then, purges go on: nobody's answer waits for them.
        """
        try:
            await self._marks.exchange(_BEAT_DEADLINE_S, quietly=not self._link.up)
        except UnreachableError:
            return False
        return True

    async def _beat(self) -> None:
        """Exchange purges, which also tells whether the server is back; then do what had to wait for it."""
        try:
            # Only who answers as quickly as requests need it is back.
            await self._marks.exchange(_BEAT_DEADLINE_S if self._link.up else self._link.deadline_s)
        except UnreachableError:
            return
        await self.store.write_removals()
        await self.leases.renew()


assert BEAT_S + _BEAT_DEADLINE_S < LEASE_S, "a lease is renewed before it ends"
