"""An upstream whose streams tick: each gets a token at a steady pace, and the token is the time at which it was sent.

Knows nothing of who asks. `python -m scripts.benchmarks.ticking PORT EVERY_MS`
"""

import asyncio
import gc
import sys
import time
from typing import cast

import uvloop

from scripts.benchmarks.programs import LOCALHOST

# Streams begin at any moment; on a wheel of so many steps they are spread evenly over the time between two tokens.
_STEPS = 50
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHUNK = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"%020d"}}]}\n\n'


class Ticking(asyncio.Protocol):
    """One connection: once something was asked it ticks until its client leaves."""

    wheel: tuple[set["Ticking"], ...] = tuple(set() for _ in range(_STEPS))
    begun = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self.slot: set[Ticking] | None = None

    def data_received(self, data: bytes) -> None:
        """Begin to tick, whatever was asked."""
        if self.slot is None and b"\r\n\r\n" in data:
            Ticking.begun += 1
            self.slot = self.wheel[Ticking.begun % _STEPS]
            self.slot.add(self)
            self.transport.write(_HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tick no more."""
        del exc
        if self.slot is not None:
            self.slot.discard(self)

    def tick(self) -> None:
        """Send a token."""
        chunk = _CHUNK % time.monotonic_ns()
        self.transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))


async def turn(every_s: float) -> None:
    """Turn the wheel."""
    begun, step = time.monotonic(), 0
    while True:
        step += 1
        await asyncio.sleep(max(0.0, begun + step * every_s / _STEPS - time.monotonic()))
        for ticking in tuple(Ticking.wheel[step % _STEPS]):
            ticking.tick()


async def main(port: int, every_ms: int) -> None:
    """Serve until the end of the process."""
    gc.disable()  # its pauses would count as the gateway's
    await asyncio.get_running_loop().create_server(Ticking, LOCALHOST, port, backlog=4096)
    await turn(every_ms / 1000)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
