"""Clients of every wire, each of which asks one thing and can leave. Knows not what for."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPResponse
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import grpc

from gateway.surfaces.oip.proto import inference_pb2 as pb
from scripts.benchmarks.hanging import BEGUN

DEADLINE_S = 90.0
_SERVICE = "/inference.GRPCInferenceService"
_JSON = {"Content-Type": "application/json"}


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
