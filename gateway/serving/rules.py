"""What the connections of a server have in common: who answers, who refuses, within which bounds. Knows no bytes."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.lane.lane import Lane
from gateway.surfaces.wire import Call, Reply

Admit = Callable[[Mapping[str, str], str | None], object]

MOST_CONNECTIONS = 4096


def anybody(_headers: Mapping[str, str], _peer: str | None) -> None:
    """Let every client send as long a body as is read."""


class Errand(Protocol):
    """A call that is being answered without a task."""

    def told(self) -> None:
        """Go on with a streamed reply, after the client had to read."""
        ...

    def hand_over(self) -> None:
        """Do not give the reply: somebody is about to wait for the `rest`."""
        ...

    async def rest(self) -> Reply:
        """Wait for the reply."""
        ...

    def leave(self) -> None:
        """Cancel the call, where nobody waits for the `rest` yet."""
        ...


@dataclass(slots=True)
class Rules:
    """What all connections of a server have in common; its server may change it at any time."""

    serve: Callable[[Call], Awaitable[Reply]]
    refuse: Callable[[Exception], Reply]
    max_body_bytes: int
    admit: Admit = anybody
    """Looks at a request's headers and its client's address before a long body is read; raises what refuses it."""
    lane: Lane | None = None
    """Knows requests by their bytes."""
    max_connections: int = MOST_CONNECTIONS
