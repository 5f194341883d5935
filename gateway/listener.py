"""The sockets that clients connect to, exchanged without a moment in which nobody listens. Knows no connection."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

_BACKLOG = 1024
_HANDSHAKE_DEADLINE_S = 10.0
_GOODBYE_DEADLINE_S = 1.0


class Listener:
    """Listens at one address at a time; `connect` makes what serves a new connection."""

    def __init__(self, connect: Callable[[], asyncio.Protocol]) -> None:
        self._connect = connect
        self._addresses: set[tuple[str, int]] = set()
        self._servers: list[asyncio.Server] = []

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None) -> tuple[str, int]:
        """Listen here instead; return the address, with the port that a 0 became. Raises `OSError`.

        Connections that were made live on. At the same address the same sockets are kept, so that with or without TLS
        no client is turned away.
        """
        loop = asyncio.get_running_loop()
        former = self._servers
        if (host, port) in self._addresses:
            copies = [socket.socket(fileno=os.dup(each.fileno())) for server in former for each in server.sockets]
            self._servers = [
                await loop.create_server(self._connect, sock=copy, ssl=tls, backlog=_BACKLOG, **_deadlines(tls))
                for copy in copies
            ]
        else:
            opened = await loop.create_server(self._connect, host, port, ssl=tls, backlog=_BACKLOG, **_deadlines(tls))
            self._addresses, self._servers = {(host, port)}, [opened]
        for server in former:
            server.close()
        address: tuple[str, int] = self._servers[0].sockets[0].getsockname()[:2]
        self._addresses.add(address)
        return address

    def close(self) -> None:
        """Accept nobody any more."""
        for server in self._servers:
            server.close()


def _deadlines(tls: ssl.SSLContext | None) -> dict[str, Any]:
    """Return the deadlines of TLS, which the loop refuses where there is none."""
    if tls is None:
        return {}
    return {"ssl_handshake_timeout": _HANDSHAKE_DEADLINE_S, "ssl_shutdown_timeout": _GOODBYE_DEADLINE_S}
