"""Where a new client comes in: it is given a place, or told that there is none. Knows no bytes of a request."""

import asyncio
import resource
import time
from collections.abc import Callable
from typing import cast

from gateway.errors import Crowded
from gateway.serving.reply_head import preamble
from gateway.serving.rules import Rules

_RETRY_S = 1.0
# As with any refusal: who is sending still would lose the reply to a reset. Of many that are turned away at a time,
# such as of a flood, not all are heard out.
_LINGER_S = 1.0
_MOST_HEARD_OUT = 64
# A client's request may need a connection of ours to an upstream; workers, caches and logs need files too.
_FILES_A_CLIENT = 2
_OWN_FILES = 512


class Entrance(asyncio.Protocol):
    """Stands for what will serve a connection until it is made, since only then it counts."""

    def __init__(self, choose: Callable[[], asyncio.Protocol]) -> None:
        self._choose = choose

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Leave the connection to what serves it."""
        chosen = self._choose()
        transport.set_protocol(chosen)
        chosen.connection_made(transport)


class TurnedAway(asyncio.Protocol):
    """Tells a client that there is no place for it, and closes."""

    def __init__(self, rules: Rules, among: set["TurnedAway"]) -> None:
        self._rules = rules
        self._among = among
        self._ending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse whatever is asked, and let the client read that."""
        self._transport = cast("asyncio.Transport", transport)
        if len(self._among) >= _MOST_HEARD_OUT:
            transport.abort()  # type: ignore[attr-defined]
            return
        self._among.add(self)
        self._transport.write(self._refusal())
        if not self._transport.can_write_eof():  # TLS has no half of an end
            self._transport.close()
            return
        self._transport.write_eof()
        self._ending = asyncio.get_running_loop().call_later(_LINGER_S, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        del exc
        self._among.discard(self)
        if self._ending is not None:
            self._ending.cancel()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _refusal(self) -> bytes:
        most = self._rules.max_connections
        reply = self._rules.refuse(Crowded(f"{most} clients are connected, and no more are served", _RETRY_S))
        body = cast("bytes", reply.body)
        lines = [preamble(reply.status, int(time.time())), *[f"{key}: {each}" for key, each in reply.headers.items()]]
        lines += [f"Content-Length: {len(body)}", "Connection: close"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def places(wanted: int) -> int:
    """Return how many clients may be connected, and let this process have as many files open as that needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most, files = places_within(wanted, _counted(soft), _counted(hard))
    if files > _counted(soft):
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return most


def places_within(wanted: int, soft: float, hard: float) -> tuple[int, int]:
    """Return how many clients may be connected, and how many files that needs, within the limits of a process."""
    reach = max(soft, hard)
    own = min(_OWN_FILES, reach / 2)  # where there are few, clients get half of them
    most = int(max(1, min(wanted, (reach - own) / _FILES_A_CLIENT)))
    return most, int(most * _FILES_A_CLIENT + own)


def _counted(limit: int) -> float:
    return float("inf") if limit == resource.RLIM_INFINITY else limit
