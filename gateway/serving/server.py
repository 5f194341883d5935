"""The HTTP server: listens, keeps account of its connections, and ends them well. Knows no surface."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gateway.lane.door import Door
from gateway.lane.lane import Lane
from gateway.serving.connection import Connection
from gateway.serving.entrance import Entrance, TurnedAway
from gateway.serving.listener import Bound, Listener
from gateway.serving.rules import MOST_CONNECTIONS, Admit, Rules, anybody
from gateway.surfaces.wire import Call, Reply

_LOOK_S = 1.0
_END_DEADLINE_S = 1.0
# How often it is looked whether slow clients have got all at the end.
_UNSENT_LOOK_S = 0.02


class Server:
    """Gives every client a `Connection`, and looks after their deadlines."""

    def __init__(
        self,
        serve: Callable[[Call], Awaitable[Reply]],
        refuse: Callable[[Exception], Reply],
        *,
        max_body_bytes: int,
        admit: Admit = anybody,
    ) -> None:
        self._rules = Rules(serve, refuse, max_body_bytes, admit)
        self._connections: set[Connection] = set()
        self._turned_away: set[TurnedAway] = set()
        self.turned_away = 0
        """Clients that came when there was no place for them."""
        self._listener = Listener(lambda: Entrance(self._enter))
        self._watch: asyncio.Task[None] | None = None

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Accept here, and nowhere else any more; return the address, with the port that a 0 became.

        Connections that were made elsewhere live on. Raises `OSError`.
        """
        return self.take(await self.bind(host, port, tls))

    async def bind(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> Bound:
        """Accept here as well; `take` it or close it. Raises `OSError`."""
        return await self._listener.bind(host, port, tls)

    def take(self, bound: Bound) -> tuple[str, int]:
        """Accept there, and nowhere else any more; return the address."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._look_after(), name="deadlines of connections")
        return self._listener.take(bound)

    def exchange(
        self,
        serve: Callable[[Call], Awaitable[Reply]],
        refuse: Callable[[Exception], Reply],
        max_body_bytes: int,
        admit: Admit = anybody,
        *,
        lane: Lane | None = None,
        max_connections: int = MOST_CONNECTIONS,
    ) -> None:
        """Answer with these from the next call on; the calls in progress end as they began."""
        rules = self._rules
        rules.serve, rules.refuse, rules.max_body_bytes, rules.admit = serve, refuse, max_body_bytes, admit
        rules.lane, rules.max_connections = lane, max_connections

    @property
    def connected(self) -> int:
        """How many clients have a connection."""
        return len(self._connections)

    async def drain(self, deadline_s: float) -> None:
        """Take no new calls, let those in progress end within the deadline, then refuse or cut off what is left."""
        self._listener.close()
        if self._watch is not None:
            self._watch.cancel()
        for connection in tuple(self._connections):
            connection.finish()
        await self._idle(deadline_s)
        for connection in self._connections:
            connection.cut_off()
        await self._idle(_END_DEADLINE_S)
        for connection in tuple(self._connections):
            connection.abort()
        for client in tuple(self._turned_away):
            client.abort()

    async def _idle(self, deadline_s: float) -> None:
        """Wait for the calls in progress, and until what was written for them has gone out, until the deadline."""
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                # A stream that has ended may leave a task behind, which waits for its client to read.
                while calls := [call for each in self._connections if (call := each.under_way()) is not None]:
                    await asyncio.wait(calls)
                while any(each.has_unsent() for each in self._connections):  # noqa: ASYNC110 - nothing tells of that
                    await asyncio.sleep(_UNSENT_LOOK_S)

    def _enter(self) -> Door | TurnedAway:
        if len(self._connections) >= self._rules.max_connections:
            self.turned_away += 1
            return TurnedAway(self._rules, self._turned_away)
        return Door(self._rules, Connection(self._rules, self._connections))

    async def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_S)
            now = loop.time()
            for connection in tuple(self._connections):
                connection.look_at(now)
