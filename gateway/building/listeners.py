"""Where clients reach the gateway: HTTP, and gRPC where it is on. Addresses change without a stream that breaks off."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from config.checks import cautions
from config.problems import dotted
from config.settings import ServerSettings
from gateway.building import certificates
from gateway.building.faults import blamed_on
from gateway.building.generation import Generation, Lasting
from gateway.building.tls import Loaded, Tls, load
from gateway.counting.telemetry import Reading
from gateway.serving.entrance import places
from gateway.serving.listener import Bound
from gateway.serving.server import Server
from gateway.surfaces.oip.grpc_server import GrpcServer
from gateway.surfaces.oip.inference import Serving

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Opened:
    """What was opened for new settings beside what listens; None where what listens stays as it is.

    `loaded` is the certificate of the new settings, and `seen` the digest of its files from before they were loaded.
    """

    settings: ServerSettings
    http: Bound | None = None
    grpc: GrpcServer | None = None
    grpc_address: tuple[str, int] | None = None
    tls: Tls | None = None
    loaded: Loaded | None = None
    seen: str | None = None


class Listeners:
    """The servers that run. `serving` gives the generation that answers now."""

    def __init__(self, serving: Callable[[], Generation], lasting: Lasting) -> None:
        self._serving = serving
        self._lasting = lasting
        self._settings: ServerSettings | None = None
        self._server: Server | None = None
        self._grpc: GrpcServer | None = None
        self._tls: Tls | None = None
        self._following: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        lasting.telemetry.read_from(self._readings)
        self.http_address = ("", 0)
        self.grpc_address: tuple[str, int] | None = None

    async def open(self, at: ServerSettings, coming: Generation) -> Opened:
        """Open what the settings ask for and what is not open yet. Raises `CannotServe`, and leaves nothing behind.

        gRPC accepts nobody before `start`; at a new address of HTTP the generation answers that answers now.
        """
        opened = Opened(at, tls=self._tls if at.tls is not None else None)
        try:
            await self._load(at, opened)
            if self._server is None:
                self._server = Server(coming.front.serve, coming.front.refuse, max_body_bytes=at.max_body_bytes)
            former = self._settings
            if former is None or (former.listen, former.tls is None) != (at.listen, at.tls is None):
                with blamed_on("server", "listen", trouble=f"cannot listen on {at.listen}"):
                    context = None if opened.tls is None else opened.tls.context
                    opened.http = await self._server.bind(at.listen.host, at.listen.port, context)
            if at.grpc is not None and _grpc_part(at) != _grpc_part(former):
                self._bind_grpc(at, opened)  # comes last: nothing that could fail follows
        except BaseException:
            if opened.http is not None:
                opened.http.close()
            raise
        return opened

    def exchange(self, opened: Opened, coming: Generation) -> None:
        """Let a generation answer from the next request on, where it wants to be reached and there alone."""
        assert self._server is not None, "`open` comes first"
        front, at, former = coming.front, opened.settings, self._settings
        admit, most = coming.gatekeeper.identify, self._places(at)
        self._server.exchange(
            front.serve, front.refuse, at.max_body_bytes, admit, lane=coming.lane, max_connections=most
        )
        if opened.http is not None:
            self.http_address = self._server.take(opened.http)
        self._settings, self._tls = at, opened.tls
        for key, caution in cautions(coming.settings):
            _log.warning("%s: %s", dotted(key), caution)
        if opened.loaded is not None:
            self._renewed(opened.loaded)
        if former is None or former.tls != at.tls:
            self._follow(at, opened.seen)
        if _grpc_part(former) == _grpc_part(at):
            return
        leaving, self._grpc, self.grpc_address = self._grpc, opened.grpc, opened.grpc_address
        self._in_background(self._follow_up(leaving, opened.grpc, at.request_timeout_s))

    def _places(self, at: ServerSettings) -> int:
        """Return how many clients may be connected, and tell where that is fewer than the operator wants."""
        most = places(at.max_connections)
        if most < at.max_connections and (self._settings is None or self._settings != at):
            _log.warning(
                "server.max_connections: %d clients may be connected and not %d, since this process may not have more"
                " files open (ulimit -Hn)", most, at.max_connections,
            )  # fmt: skip
        return most

    def _readings(self) -> Iterable[Reading]:
        connected, refused = (0, 0) if self._server is None else (self._server.connected, self._server.turned_away)
        yield Reading("warmgate_connections", "Clients that are connected over HTTP.", (), (), connected)
        yield Reading(
            "warmgate_connections_refused", "Clients that came when there was no place for them.", (), (), refused,
            counter=True,
        )  # fmt: skip

    async def drain(self, deadline_s: float) -> None:
        """Take no new requests and let those in progress end within the deadline."""
        async with asyncio.TaskGroup() as drains:
            for server in (self._server, self._grpc):
                if server is not None:
                    drains.create_task(server.drain(deadline_s))

    async def close(self) -> None:
        """End everything at once."""
        tasks = [*self._ending, *([self._following] if self._following is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.drain(0.0)

    async def _load(self, at: ServerSettings, opened: Opened) -> None:
        """Load the certificate, unless it is in use already."""
        if at.tls is None or (self._settings is not None and self._settings.tls == at.tls):
            return
        opened.seen = await certificates.seen(at.tls)
        with blamed_on("server", "tls"):
            opened.loaded = await asyncio.to_thread(load, at.tls.certificate, at.tls.key)
        opened.tls = opened.tls or Tls(opened.loaded)

    def _bind_grpc(self, at: ServerSettings, opened: Opened) -> None:
        assert at.grpc is not None, "somebody wants gRPC"
        lasting = self._lasting
        server = GrpcServer(self._parts, lasting.statistics, lasting.telemetry, max_body_bytes=at.max_body_bytes)
        loaded = None if opened.tls is None else opened.loaded or opened.tls.loaded
        pem = None if loaded is None else (loaded.certificate_pem, loaded.key_pem)
        port, now = at.grpc.port, self.grpc_address
        if now is not None and self._settings is not None and self._settings.grpc == at.grpc:
            port = now[1]  # a port 0 was any; the one that it became stays
        with blamed_on("server", "grpc"):
            shared = now is not None and now[1] == port
            opened.grpc_address = server.bind(at.grpc.host, port, pem, shared=shared)
        opened.grpc = server

    async def _follow_up(self, leaving: GrpcServer | None, coming: GrpcServer | None, deadline_s: float) -> None:
        """Let one gRPC server begin and the other end: it accepts nobody any more, and its calls have the deadline."""
        if coming is not None:
            await coming.start()
        if leaving is not None:
            await leaving.drain(deadline_s)

    def _follow(self, at: ServerSettings, seen: str | None) -> None:
        """Follow the certificate files of these settings, and those of the last no more."""
        if self._following is not None:
            self._following.cancel()
            self._following = None
        if at.tls is not None:
            work = certificates.follow(at.tls, seen, self._renewed)
            self._following = asyncio.create_task(work, name="certificate files")

    def _renewed(self, loaded: Loaded) -> None:
        if self._tls is not None:
            self._tls.exchange(loaded)
        if self._grpc is not None:
            self._grpc.exchange_tls((loaded.certificate_pem, loaded.key_pem))

    def _parts(self) -> Serving:
        now = self._serving()
        return Serving(now.pipeline, now.gatekeeper, now.catalog)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="end of a gRPC server")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _grpc_part(server: ServerSettings | None) -> tuple[object, ...]:
    """Return what a server of gRPC was started from; a certificate is exchanged while it runs."""
    if server is None or server.grpc is None:
        return (None,)
    return (server.grpc, server.tls is None, server.max_body_bytes)
