"""A tiny OpenAI-compatible server with deterministic answers, for the tests of `command` and `http` models.

`python tests/openai_server.py --port N [--start-s S] [--fail]`. Answers a chat with `echo: ` and the last message.
Words in that message change its ways: `slow` (20 ms a word), `stall` (never ends), `die` (the process ends after
one chunk), `cut` (the connection ends after one chunk), `garbage` (no JSON after one chunk), `break` (an error in
the stream), `status-N` (refuses with that status), `tool` (calls a tool).
"""

import argparse
import asyncio
import base64
import os
import re
import struct
import sys
from collections.abc import Iterator
from typing import Any

import orjson
from aiohttp import web


def words_of(text: str) -> Iterator[str]:
    """Cut an answer into pieces as a tokenizer would."""
    return iter(re.findall(r"\s*\S+", f"echo: {text}"))


def usage_of(prompt: str, completion: int) -> dict[str, int]:
    """Count words as tokens."""
    return {"prompt_tokens": len(prompt.split()), "completion_tokens": completion}


def prompt_of(body: dict[str, Any]) -> str:
    """Return what was asked, of a chat or of a completion."""
    return str(body["messages"][-1]["content"] if "messages" in body else body["prompt"])


def piece(body: dict[str, Any], text: str | None, finish: str | None, *, whole: bool) -> dict[str, Any]:
    """Make the choice of an answer or of a chunk."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
    if "messages" not in body:
        return choice | {"text": text or ""}
    message = {"role": "assistant", "content": text or ""}
    if "tool" in prompt_of(body).split():
        message = {"role": "assistant", "tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}
    return choice | {"message" if whole else "delta": message}


def answer(body: dict[str, Any], choices: list[dict[str, Any]], **more: object) -> dict[str, Any]:
    """Wrap choices as OpenAI does."""
    kind = "chat.completion" if "messages" in body else "text_completion"
    return {"id": "cmpl-1", "object": kind, "created": 1, "model": body["model"], "choices": choices, **more}


async def complete(request: web.Request) -> web.StreamResponse:
    """Answer a chat or a completion, whole or as a stream."""
    body = orjson.loads(await request.read())
    prompt = prompt_of(body)
    if refused := re.search(r"status-(\d+)", prompt):
        error = {"message": f"told to refuse with {refused[1]}", "type": "t", "param": "messages", "code": None}
        return web.json_response({"error": error}, status=int(refused[1]), headers={"Retry-After": "7"})
    pieces = list(words_of(prompt))[: body.get("max_tokens") or None]
    if not body.get("stream"):
        if "stall" in prompt.split():
            await asyncio.Event().wait()
        choice = piece(body, "".join(pieces), "stop", whole=True)
        return web.json_response(answer(body, [choice], usage=usage_of(prompt, len(pieces))))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await stream(body, pieces, response)
    return response


async def stream(body: dict[str, Any], pieces: list[str], response: web.StreamResponse) -> None:
    """Send an answer word by word, in the way that the prompt's words ask for."""
    ways = set(prompt_of(body).split())

    async def send(data: bytes) -> None:
        await response.write(b"data: " + data + b"\n\n")

    for number, text in enumerate(pieces):
        await send(orjson.dumps(answer(body, [piece(body, text, None, whole=False)])))
        if "slow" in ways:
            await asyncio.sleep(0.02)
        if number == 0 and "die" in ways:
            os.write(2, b"told to die\n")
            os._exit(3)
        if number == 0 and "cut" in ways:
            return
        if number == 0 and "garbage" in ways:
            await send(b"this is no JSON")
        if number == 0 and "break" in ways:
            await send(orjson.dumps({"error": {"message": "told to break", "type": "t", "code": 500}}))
        if "stall" in ways:
            await asyncio.Event().wait()
    await send(orjson.dumps(answer(body, [piece(body, None, "stop", whole=False)])))
    if (body.get("stream_options") or {}).get("include_usage"):
        await send(orjson.dumps(answer(body, [], usage=usage_of(prompt_of(body), len(pieces)))))
    await send(b"[DONE]")


async def embed(request: web.Request) -> web.Response:
    """Answer with the vector (length of the input, its position, 1), as base64 or as lists."""
    body = orjson.loads(await request.read())
    inputs = [body["input"]] if isinstance(body["input"], str) else body["input"]
    data: list[dict[str, Any]] = []
    for index, text in enumerate(inputs):
        vector: Any = [float(len(text)), float(index), 1.0]
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
    return web.json_response({"object": "list", "model": body["model"], "data": data[::-1], "usage": usage})


async def models(request: web.Request) -> web.Response:
    """List the one model; also the answer to whether it is up."""
    return web.json_response({"object": "list", "data": [{"id": "echo", "object": "model"}]})


def application() -> web.Application:
    """Build the server."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_post("/v1/completions", complete)
    app.router.add_post("/v1/embeddings", embed)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/health", models)
    return app


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--start-s", type=float, default=0.0, help="seconds before it listens")
    parser.add_argument("--fail", action="store_true", help="print three lines and exit with 1")
    arguments = parser.parse_args()
    if arguments.fail:
        sys.exit("loading\nno memory left\ngiving up")

    async def serve() -> web.Application:
        await asyncio.sleep(arguments.start_s)
        return application()

    web.run_app(serve(), host="127.0.0.1", port=arguments.port, print=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
