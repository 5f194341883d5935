"""Where clients reach the gateway: HTTP, and gRPC where it is on. Addresses change without a stream that breaks off."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from config.settings import ServerSettings
from gateway import tls
from gateway.building.generation import Generation, Lasting
from gateway.server import Server
from gateway.surfaces.oip.grpc_server import GrpcServer, read_tls
from gateway.surfaces.oip.service import Serving


class Listeners:
    """The servers that run. `serving` gives the generation that answers now."""

    def __init__(self, serving: Callable[[], Generation], lasting: Lasting) -> None:
        self._serving = serving
        self._lasting = lasting
        self._server: Server | None = None
        self._grpc: GrpcServer | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self.http_address = ("", 0)
        self.grpc_address: tuple[str, int] | None = None

    async def open(self, at: ServerSettings, former: ServerSettings | None, coming: Generation) -> None:
        """Listen where the settings say, and there alone. Raises `OSError`, and `TlsFilesError` for bad files."""
        context = None if at.tls is None else await asyncio.to_thread(tls.context, at.tls.certificate, at.tls.key)
        if former is None or _grpc_part(former) != _grpc_part(at):
            await self._open_grpc(at)
        server = self._server
        if server is None:
            server = Server(coming.front.serve, coming.front.refuse, max_body_bytes=at.max_body_bytes)
        if former is None or (former.listen, former.tls) != (at.listen, at.tls):
            self.http_address = await server.listen(at.listen.host, at.listen.port, context)
        self._server = server

    def exchange(self, coming: Generation) -> None:
        """Let a generation answer from the next request on."""
        assert self._server is not None, "`open` comes first"
        front, max_body_bytes = coming.front, coming.settings.server.max_body_bytes
        self._server.exchange(front.serve, front.refuse, max_body_bytes, coming.gatekeeper.identify)

    async def drain(self, deadline_s: float) -> None:
        """Take no new requests and let those in progress end within the deadline."""
        async with asyncio.TaskGroup() as drains:
            for server in (self._server, self._grpc):
                if server is not None:
                    drains.create_task(server.drain(deadline_s))

    async def close(self) -> None:
        """End everything at once."""
        await self.drain(0.0)
        for task in self._ending:
            task.cancel()
        if self._ending:
            await asyncio.wait(self._ending)

    async def _open_grpc(self, at: ServerSettings) -> None:
        leaving, self._grpc, self.grpc_address = self._grpc, None, None
        if leaving is not None:
            # It accepts nobody from now on, so that its address is free, and lets its calls end.
            self._in_background(leaving.drain(at.request_timeout_s))
            await asyncio.sleep(0)
        if at.grpc is None:
            return
        lasting, max_body_bytes = self._lasting, at.max_body_bytes
        server = GrpcServer(self._parts, lasting.statistics, lasting.telemetry, max_body_bytes=max_body_bytes)
        files = None if at.tls is None else await asyncio.to_thread(read_tls, at.tls.certificate, at.tls.key)
        self.grpc_address = await server.listen(at.grpc.host, at.grpc.port, files)
        self._grpc = server

    def _parts(self) -> Serving:
        now = self._serving()
        return Serving(now.pipeline, now.gatekeeper, now.catalog)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="end of a gRPC server")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _grpc_part(server: ServerSettings) -> tuple[object, ...]:
    return (server.grpc, server.tls, server.max_body_bytes) if server.grpc is not None else (None,)
