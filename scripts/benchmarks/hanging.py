"""An upstream that hangs where it is told to, and notes when its client leaves. Knows nothing of who asks, or why."""

import asyncio
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

BEGUN = b"begun"

# What an answer consists of, by the end of the path: the piece that begins it, the whole, and the end of a stream.
_CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
_TEXT = {"id": "t", "object": "text_completion", "created": 1, "model": "m"}
_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def _sse(*values: object) -> bytes:
    return b"".join([b"data: " + json.dumps(value).encode() + b"\n\n" for value in values])


def _named(*events: Mapping[str, Any]) -> bytes:
    return b"".join([f"event: {event['type']}\n".encode() + _sse(event) for event in events])


_MESSAGE = {
    "id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": None, "stop_sequence": None,
}  # fmt: skip
_STREAMS: Mapping[str, tuple[bytes, bytes]] = {
    "/chat/completions": (
        _sse({**_CHUNK, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "begun"}}]}),
        _sse({**_CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + b"data: [DONE]\n\n",
    ),
    "/completions": (
        _sse({**_TEXT, "choices": [{"index": 0, "text": "begun", "finish_reason": None}]}),
        _sse({**_TEXT, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}) + b"data: [DONE]\n\n",
    ),
    "/messages": (
        _named(
            {"type": "message_start", "message": _MESSAGE | {"content": [], "usage": {"input_tokens": 1, "output_tokens": 1}}},  # noqa: E501
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "begun"}},
        ),
        _named(
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 1}},  # noqa: E501
            {"type": "message_stop"},
        ),
    ),
    "/audio/speech": (BEGUN, b" and ended"),
}  # fmt: skip
_CHOICE = {"index": 0, "finish_reason": "stop"}
_WHOLES: Mapping[str, object] = {
    "/chat/completions": {
        **_CHUNK, "object": "chat.completion", "usage": _USAGE,
        "choices": [_CHOICE | {"message": {"role": "assistant", "content": "begun"}}],
    },
    "/completions": {**_TEXT, "choices": [_CHOICE | {"text": "begun"}], "usage": _USAGE},
    "/messages": _MESSAGE | {
        "content": [{"type": "text", "text": "begun"}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
    "/embeddings": {
        "object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.5]}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    },
    "/rerank": {"results": [{"index": 0, "relevance_score": 0.5}]},
}  # fmt: skip


@dataclass(slots=True)
class Exchange:
    """One request that the upstream got; `ended_s` is when its client left, or was answered (`answered`)."""

    body: bytes
    answered: bool = False
    ended_s: float | None = None
    go_on: threading.Event = field(default_factory=threading.Event)


class Upstream:
    """Speaks enough of OpenAI's and Anthropic's HTTP.

    A request that says `silent` gets no byte, one that says `partly` the beginning of an answer, until its exchange may
    `go_on`; any other is answered at once. Its clients are served on a thread of its own.
    """

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hanging upstream")

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and leave whoever is still there."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def about(self, text: str) -> list[Exchange]:
        """Return the requests that say this."""
        return [exchange for exchange in self.exchanges if text.encode() in exchange.body]

    def open(self) -> list[Exchange]:
        """Return the requests whose clients still wait."""
        return [exchange for exchange in self.exchanges if exchange.ended_s is None]

    async def _listen(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}/v1"

    async def _end(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; tell whether there may be another."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.splitlines()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        exchange = Exchange(body)
        self.exchanges.append(exchange)
        begins, ends = _reply(first.split()[1].removeprefix("/v1"), body)
        if b"silent" in body and not await _may_go_on(exchange, reader):
            return False
        writer.write(begins)
        if b"partly" in body and not await _may_go_on(exchange, reader):
            return False
        exchange.answered, exchange.ended_s = True, time.perf_counter()
        writer.write(ends)
        await writer.drain()
        return True


async def _may_go_on(exchange: Exchange, reader: asyncio.StreamReader) -> bool:
    """Wait until the client has left, noting when, or the exchange may go on."""
    leaves = asyncio.ensure_future(reader.read(1))
    try:
        while not leaves.done():
            if exchange.go_on.is_set():
                return True
            await asyncio.wait({leaves}, timeout=0.005)
        exchange.ended_s = time.perf_counter()
        return False
    finally:
        leaves.cancel()
        await asyncio.wait({leaves})
        if not leaves.cancelled():
            leaves.exception()


def _reply(path: str, body: bytes) -> tuple[bytes, bytes]:
    """Return a reply in two parts."""
    streamed = b'"stream":true' in body.replace(b" ", b"") or path == "/audio/speech"
    if streamed:
        begins, ends = _STREAMS[path]
        kind = "audio/mpeg" if path == "/audio/speech" else "text/event-stream"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        return head.encode() + _chunk(begins), _chunk(ends) + b"0\r\n\r\n"
    whole = json.dumps(_WHOLES[path]).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(whole)}\r\n\r\n"
    return head.encode() + whole[:5], whole[5:]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def models_of(upstream: Upstream) -> Mapping[str, str]:
    """Return the settings of the models that all wires ask, each of which takes two requests at a time."""
    http = f"url: {upstream.url}, concurrency: 2"
    return {
        "near": f"{{task: chat, http: {{{http}}}}}",
        "words": f"{{task: completion, http: {{{http}}}}}",
        "vectors": f"{{task: embed, http: {{{http}}}}}",
        "claude": f"{{task: chat, http: {{{http}, api: anthropic}}}}",
    }
