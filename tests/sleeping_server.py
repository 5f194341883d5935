"""A tiny server that sleeps and wakes as vLLM's does, for the tests of `command` models.

`python tests/sleeping_server.py --port N [options]`. It answers every chat with `awake`; while it sleeps it refuses
with 500. `/health` is green from the beginning and all the time, as vLLM's is. GET /v1/models tells how often it was
asked, slept, woke up, and was asked while it slept.
"""

import argparse
import asyncio
import os
from collections import Counter

from aiohttp import web

MIB = 2**20


class Server:
    """The server's state: what its weights hold, whether it sleeps, and what it was asked."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.sleeping = False
        self.counts: Counter[str] = Counter()
        self.weights = self.load()

    def load(self) -> bytearray:
        """Hold the memory that the weights take."""
        return bytearray(os.urandom(4096)) * (self.options.hold_mib * MIB // 4096)

    async def health(self, _: web.Request) -> web.Response:
        """Be green, whatever is the case."""
        return web.Response()

    async def chat(self, request: web.Request) -> web.Response:
        """Answer, unless it sleeps or is not that far yet."""
        body = await request.json()
        if self.sleeping:
            self.counts["asked_asleep"] += 1
            return web.json_response({"error": {"message": "the engine sleeps"}}, status=500)
        if self.counts["asked_early"] < self.options.early:
            self.counts["asked_early"] += 1
            return web.json_response({"error": {"message": "Loading model"}}, status=503)
        if self.options.refuses and body.get("max_tokens") == 1:
            return web.json_response({"error": {"message": "max_tokens is too small"}}, status=400)
        self.counts["asked"] += 1
        message = {"role": "assistant", "content": "awake"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
        return web.json_response({**answer, "choices": [choice], "usage": usage})

    async def sleep(self, request: web.Request) -> web.Response:
        """Fall asleep: the answer comes before it does, as that of some versions."""
        if self.options.sleepless:
            return web.json_response({"error": "sleep mode is not enabled"}, status=500)
        level = request.query.get("level", "1")
        self.counts[f"slept_{level}"] += 1
        if self.options.dies_asleep:
            asyncio.get_running_loop().call_later(0.05, os._exit, 4)
        asyncio.get_running_loop().call_later(self.options.sleep_s, self._fall)
        return web.Response()

    def _fall(self) -> None:
        self.sleeping, self.weights = True, bytearray()

    async def wake_up(self, request: web.Request) -> web.Response:
        """Wake up, part by part where it is asked so."""
        if self.options.dies_waking:
            os._exit(5)
        await asyncio.sleep(self.options.wake_s)
        tags = request.query.getall("tags", [])
        self.counts[f"woke_{'_'.join(tags) or 'whole'}"] += 1
        if tags != ["weights"]:
            self.weights = self.load()
            self.sleeping = False
        return web.Response()

    async def rpc(self, request: web.Request) -> web.Response:
        """Note what was called."""
        self.counts[(await request.json())["method"]] += 1
        return web.json_response({"results": []})

    async def reset(self, _: web.Request) -> web.Response:
        """Note it."""
        self.counts["reset"] += 1
        return web.Response()

    async def is_sleeping(self, _: web.Request) -> web.Response:
        """Tell it."""
        return web.json_response({"is_sleeping": self.sleeping})

    async def models(self, _: web.Request) -> web.Response:
        """Tell what happened."""
        return web.json_response({"object": "list", "data": [], "counts": self.counts})


def application(options: argparse.Namespace) -> web.Application:
    """Build the server; `--plain` leaves the paths of sleep out, as vLLM without its development mode does."""
    server, app = Server(options), web.Application()
    app.add_routes([
        web.get("/health", server.health), web.get("/v1/models", server.models),
        web.post("/v1/chat/completions", server.chat),
    ])  # fmt: skip
    if not options.plain:
        app.add_routes([
            web.post("/sleep", server.sleep), web.post("/wake_up", server.wake_up),
            web.get("/is_sleeping", server.is_sleeping), web.post("/collective_rpc", server.rpc),
            web.post("/reset_prefix_cache", server.reset),
        ])  # fmt: skip
    return app


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    for name in ("--sleep-s", "--wake-s"):
        parser.add_argument(name, type=float, default=0.0)
    parser.add_argument("--early", type=int, default=0, help="chats that come too early, before any passes")
    parser.add_argument("--hold-mib", type=int, default=0)
    for name in ("--plain", "--sleepless", "--refuses", "--dies-asleep", "--dies-waking"):
        parser.add_argument(name, action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    chosen = options_of()
    web.run_app(application(chosen), host="127.0.0.1", port=chosen.port, print=None)
