"""The HTTP server: listens, keeps account of its connections, and ends them well. Knows no surface."""

import asyncio
from collections.abc import Awaitable, Callable

from gateway.connection import Connection, Rules
from gateway.surfaces.wire import Call, Reply

_LOOK_S = 1.0
_END_DEADLINE_S = 1.0


class Server:
    """Gives every client a `Connection`, and looks after their deadlines."""

    def __init__(
        self,
        serve: Callable[[Call], Awaitable[Reply]],
        refuse: Callable[[Exception], Reply],
        *,
        max_body_bytes: int,
        admit: Callable[[Mapping[str, str], str | None], object],
    ) -> None:
        self._rules = Rules(serve, refuse, max_body_bytes, admit)
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._watch: asyncio.Task[None] | None = None

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Begin to accept; return the address, with the port that a 0 became. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._connect, host, port, backlog=1024)
        self._watch = asyncio.create_task(self._look_after(), name="deadlines of connections")
        address = self._listener.sockets[0].getsockname()
        return address[0], address[1]

    def exchange(
        self,
        serve: Callable[[Call], Awaitable[Reply]],
        refuse: Callable[[Exception], Reply],
        max_body_bytes: int,
    ) -> None:
        """Answer with these from the next call on; the calls in progress end as they began."""
        self._rules.serve, self._rules.refuse, self._rules.max_body_bytes = serve, refuse, max_body_bytes

    async def drain(self, deadline_s: float) -> None:
        """Take no new calls, let those in progress end within the deadline, then refuse or cut off what is left."""
        if self._listener is not None:
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

    async def _idle(self, deadline_s: float) -> None:
        """Wait for the calls in progress, until the deadline."""
        if calls := [connection.task for connection in self._connections if connection.task is not None]:
            await asyncio.wait(calls, timeout=deadline_s)

    def _connect(self) -> Connection:
        connection = Connection(self._rules, self._connections.discard)
        self._connections.add(connection)
        return connection

    async def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_S)
            now = loop.time()
            for connection in tuple(self._connections):
                connection.look_at(now)
