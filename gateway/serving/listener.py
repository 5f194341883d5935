"""The sockets that clients connect to, exchanged without a moment in which nobody listens. Knows no connection."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_BACKLOG = 1024
_HANDSHAKE_DEADLINE_S = 10.0
_GOODBYE_DEADLINE_S = 1.0


@dataclass(frozen=True, slots=True)
class Bound:
    """Sockets that accept at an address and have not taken over from others yet."""

    servers: list[asyncio.Server]
    addresses: set[tuple[str, int]]

    @property
    def address(self) -> tuple[str, int]:
        """The address, with the port that a 0 became."""
        name: tuple[str, int] = self.servers[0].sockets[0].getsockname()[:2]
        return name

    def close(self) -> None:
        """Accept nobody any more. Connections that were made live on."""
        for server in self.servers:
            server.close()


class Listener:
    """Listens at one address at a time; `connect` makes what serves a new connection."""

    def __init__(self, connect: Callable[[], asyncio.Protocol]) -> None:
        self._connect = connect
        self._now = Bound([], set())

    async def bind(self, host: str, port: int, tls: ssl.SSLContext | None) -> Bound:
        """Accept here as well, until one of the two is closed. Raises `OSError`, and leaves all as it was then.

        At the same address the same sockets are kept, so that with or without TLS no client is turned away.
        """
        loop = asyncio.get_running_loop()
        options = {"ssl": tls, "backlog": _BACKLOG, **_deadlines(tls)}
        if (host, port) not in self._now.addresses:
            shares = self._share(port)
            opened = await loop.create_server(self._connect, host, port, reuse_port=shares or None, **options)
            bound = Bound([opened], {(host, port)})
            bound.addresses.add(bound.address)
            return bound
        bound = Bound([], set(self._now.addresses))
        try:
            for server in self._now.servers:
                for each in server.sockets:
                    copy = socket.socket(fileno=os.dup(each.fileno()))
                    try:
                        bound.servers.append(await loop.create_server(self._connect, sock=copy, **options))
                    except BaseException:
                        copy.close()
                        raise
        except BaseException:
            bound.close()
            raise
        return bound

    def take(self, bound: Bound) -> tuple[str, int]:
        """Listen there alone from now on; return the address. Connections that were made elsewhere live on."""
        self._now.close()
        self._now = bound
        return bound.address

    def _share(self, port: int) -> bool:
        """Let the same port of another address be had: all addresses in place of one, or one of all."""
        sockets = [each for server in self._now.servers for each in server.sockets]
        if port not in {each.getsockname()[1] for each in sockets}:
            return False
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return True

    def close(self) -> None:
        """Accept nobody any more."""
        self._now.close()


def _deadlines(tls: ssl.SSLContext | None) -> dict[str, Any]:
    """Return the deadlines of TLS, which the loop refuses where there is none."""
    if tls is None:
        return {}
    return {"ssl_handshake_timeout": _HANDSHAKE_DEADLINE_S, "ssl_shutdown_timeout": _GOODBYE_DEADLINE_S}
