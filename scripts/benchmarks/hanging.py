"""An upstream that hangs where it is told to and notes when its client leaves, and clients of every wire that leave.

Knows nothing of what is measured or tested with them.
"""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPResponse
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import grpc

from gateway.surfaces.oip.proto import inference_pb2 as pb

DEADLINE_S = 90.0
BEGUN = b"begun"
_SERVICE = "/inference.GRPCInferenceService"
_JSON = {"Content-Type": "application/json"}

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


@dataclass(frozen=True, slots=True)
class Wire:
    """A way to ask over HTTP: `body` makes a request of a text. `model` is asked unless another is named."""

    path: str
    body: Callable[[str], Mapping[str, Any]]
    streamed: bool = False
    model: str = "near"


def _chat(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def _tensor(text: str) -> dict[str, Any]:
    return {"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1], "data": [text]}]}


_STREAM = {"stream": True}
WIRES: Mapping[str, Wire] = {
    "chat": Wire("/v1/chat/completions", _chat),
    "chat-stream": Wire("/v1/chat/completions", lambda text: _chat(text) | _STREAM, streamed=True),
    "completion": Wire("/v1/completions", lambda text: {"prompt": text}, model="words"),
    "completion-stream": Wire("/v1/completions", lambda text: {"prompt": text} | _STREAM, streamed=True, model="words"),
    "embeddings": Wire("/v1/embeddings", lambda text: {"input": text}, model="vectors"),
    "responses": Wire("/v1/responses", lambda text: {"input": text}),
    "responses-stream": Wire("/v1/responses", lambda text: {"input": text} | _STREAM, streamed=True),
    "messages": Wire("/v1/messages", lambda text: _chat(text) | {"max_tokens": 9}, model="claude"),
    "messages-stream": Wire(
        "/v1/messages", lambda text: _chat(text) | {"max_tokens": 9} | _STREAM, streamed=True, model="claude"
    ),
    "messages-translated": Wire("/v1/messages", lambda text: _chat(text) | {"max_tokens": 9} | _STREAM, streamed=True),
    "native": Wire("/api/v1/generate", lambda text: {"prompt": text, "stream": False}),
    "native-stream": Wire("/api/v1/generate", lambda text: {"prompt": text}, streamed=True),
    "oip-infer": Wire("/v2/models/{model}/infer", _tensor),
    "oip-generate": Wire("/v2/models/{model}/generate", lambda text: {"text_input": text}),
    "oip-stream": Wire("/v2/models/{model}/generate_stream", lambda text: {"text_input": text}, streamed=True),
    "relay": Wire("/v1/rerank", lambda text: {"query": text, "documents": ["d"]}),
    "relay-stream": Wire("/v1/audio/speech", lambda text: {"input": text, "voice": "v"}, streamed=True),
}


class Client(Protocol):
    """Somebody who asked and can leave."""

    def until_begun(self) -> None:
        """Read until the answer has begun."""
        ...

    def finish(self) -> bytes:
        """Read what is left of the answer. Raises `RuntimeError` where it is an error."""
        ...

    def leave(self) -> None:
        """Leave, wherever the answer is."""
        ...


class HttpClient:
    """Asks one thing over a connection of its own. `headers` may say more."""

    def __init__(
        self,
        url: str,
        wire: Wire,
        text: str,
        headers: Mapping[str, str] | None = None,
        model: str | None = None,
        *,
        version: str = "1.1",
    ) -> None:
        where = urlsplit(url)
        model = model or wire.model
        path = wire.path.format(model=model)
        named = {} if path != wire.path else {"model": model}
        body = json.dumps({**named, **wire.body(text)}).encode()
        lines = {"Host": where.netloc, "Content-Length": str(len(body)), **_JSON, **(headers or {})}
        head = "".join([f"{name}: {value}\r\n" for name, value in lines.items()])
        self.socket = socket.create_connection((where.hostname or "", where.port or 0), timeout=DEADLINE_S)
        self.socket.sendall(f"POST {path} HTTP/{version}\r\n{head}\r\n".encode() + body)
        self._response: HTTPResponse | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave."""
        self.leave()

    @property
    def response(self) -> HTTPResponse:
        """The response, once its head has come."""
        if self._response is None:
            self._response = HTTPResponse(self.socket)
            self._response.begin()
        return self._response

    def until_begun(self) -> None:
        """Read until the answer has begun."""
        seen = b""
        while BEGUN not in seen:
            data = self.response.read1()
            if not data:
                raise RuntimeError(f"the answer has ended: {seen!r}")
            seen += data

    def finish(self) -> bytes:
        """Read what is left of the answer. Raises `RuntimeError` where it is an error."""
        data = self.response.read()
        if self.response.status != HTTPStatus.OK or b'"error"' in data.replace(b'"error":null', b""):
            raise RuntimeError(f"{self.response.status}: {data!r}")
        return data

    def leave(self) -> None:
        """Close the connection."""
        if self._response is not None:
            self._response.close()
        self.socket.close()


class GrpcClient:
    """Asks one thing over gRPC, in the way of `method`: `ModelInfer` or `ModelStreamInfer`."""

    def __init__(
        self,
        channel: grpc.Channel,
        method: str,
        text: str,
        *,
        model: str = "near",
        metadata: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        request = pb.ModelInferRequest(model_name=model)
        tensor = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(text.encode())
        said = tuple((metadata or {}).items())
        self._hold = threading.Event()
        self._unary = method == "ModelInfer"
        make = pb.ModelInferRequest.SerializeToString
        if self._unary:
            unary = channel.unary_unary(f"{_SERVICE}/{method}", make, pb.ModelInferResponse.FromString)
            self.call: Any = unary.future(request, metadata=said, timeout=timeout_s)
        else:
            stream = channel.stream_stream(f"{_SERVICE}/{method}", make, pb.ModelStreamInferResponse.FromString)
            self.call = stream(self._requests(request), metadata=said, timeout=timeout_s)

    def _requests(self, request: pb.ModelInferRequest) -> Iterator[pb.ModelInferRequest]:
        yield request
        self._hold.wait(DEADLINE_S)  # a stream that stays open, as those of the official client do

    def until_begun(self) -> None:
        """Read until the answer has begun."""
        next(self.call)

    def finish(self) -> bytes:
        """Read what is left of the answer. Raises `RuntimeError` where it is an error."""
        self._hold.set()
        replies = [self.call.result()] if self._unary else list(self.call)
        if any(getattr(reply, "error_message", "") for reply in replies):
            raise RuntimeError(str(replies))
        return b"".join([reply.SerializeToString() for reply in replies])

    def leave(self) -> None:
        """Cancel the call."""
        self.call.cancel()
        self._hold.set()


def models_of(upstream: Upstream) -> Mapping[str, str]:
    """Return the settings of the models that `WIRES` ask, each of which takes two requests at a time."""
    http = f"url: {upstream.url}, concurrency: 2"
    return {
        "near": f"{{task: chat, http: {{{http}}}}}",
        "words": f"{{task: completion, http: {{{http}}}}}",
        "vectors": f"{{task: embed, http: {{{http}}}}}",
        "claude": f"{{task: chat, http: {{{http}, api: anthropic}}}}",
    }
