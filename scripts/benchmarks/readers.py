"""Many clients that each read a ticking stream, and note how late each token comes. Knows nothing of who serves.

`python -m scripts.benchmarks.readers HOST:PORT STREAMS WARM_S SECONDS` prints `open` once all streams flow, then JSON.
"""

import asyncio
import gc
import json
import re
import sys
import time
from array import array
from typing import cast

import uvloop

_STAMP = re.compile(rb'"content":"(\d{20})"')
_OPEN_DEADLINE_S = 60.0
_OPENING_AT_A_TIME = 50


class Reader(asyncio.Protocol):
    """One client."""

    late_ns = array("q")
    measuring = False
    lost = 0

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._rest = b""
        self.flowing = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note the tokens; a stamp that is cut in two by the network is read once it is whole."""
        data = self._rest + data
        end = 0
        for match in _STAMP.finditer(data):
            end = match.end()
            if Reader.measuring:
                Reader.late_ns.append(time.monotonic_ns() - int(match[1]))
        self._rest = data[max(end, len(data) - 64) :]
        if end and not self.flowing.done():
            self.flowing.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note a stream that broke off."""
        del exc
        Reader.lost += Reader.measuring


def _request(host: str, number: int) -> bytes:
    message = {"role": "user", "content": f"tick {number}"}
    body = json.dumps({"model": "ticking", "stream": True, "messages": [message]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def main(address: str, streams: int, warm_s: float, seconds: float) -> None:
    """Open the streams, read them for a while, and print what was seen."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    turn = asyncio.Semaphore(_OPENING_AT_A_TIME)

    async def open_one(number: int) -> Reader:
        async with turn:
            _, reader = await loop.create_connection(lambda: Reader(_request(address, number)), host, int(port))
            await reader.flowing
            return reader

    gc.disable()  # its pauses would count as the server's
    async with asyncio.timeout(_OPEN_DEADLINE_S):
        readers = await asyncio.gather(*[open_one(number) for number in range(streams)])
    print("open", flush=True)
    await asyncio.sleep(warm_s)
    Reader.measuring = True
    await asyncio.sleep(seconds)
    Reader.measuring = False
    late = sorted(Reader.late_ns)
    quantiles = {f"p{share * 100:g}_ms": late[int(share * (len(late) - 1))] / 1e6 for share in (0.5, 0.9, 0.99, 0.999)}
    per_s = len(late) / seconds
    print(json.dumps({"streams": len(readers), "lost": Reader.lost, "tokens_per_s": per_s, **quantiles}), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
