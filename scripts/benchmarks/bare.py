"""A bare aiohttp application that reads the request and returns one fixed reply: the bound of what we can hope for.

python -m scripts.benchmarks.bare PORT REPLY.json` (REPLY: {"headers": {…}, "body": "…"}).
"""

import json
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from scripts.benchmarks.programs import LOCALHOST


def application(headers: dict[str, str], body: bytes) -> web.Application:
    """Make the application: one route, and nothing around it."""

    async def reply(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(headers=headers, body=body)

    bare = web.Application()
    bare.router.add_post("/v1/chat/completions", reply)
    return bare


def main() -> None:
    """Serve until a signal ends it."""
    port, file = sys.argv[1:]
    reply = json.loads(Path(file).read_text(encoding="utf-8"))
    served = application(reply["headers"], reply["body"].encode())
    web.run_app(served, host=LOCALHOST, port=int(port), access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
