"""The server of gRPC: listens, gives each call to its service, and ends well. Knows no pipeline and no message."""

import logging
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, cast

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.counting.model_statistics import ModelStatistics
from gateway.counting.telemetry import Telemetry
from gateway.errors import InvalidRequest
from gateway.surfaces.oip.calls import Context, code, read, told
from gateway.surfaces.oip.health import HealthService
from gateway.surfaces.oip.inference import Serving
from gateway.surfaces.oip.proto.classes import service
from gateway.surfaces.oip.service import InferenceService, guarded

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
_HEAD_BYTES = 64 * 2**10
_LIBRARY = "grpc._cython.cygrpc"


class GrpcServer:
    """Serves the Open Inference Protocol and gRPC's health service at one address.

    `serving` gives the parts that answer now. A message of more than `max_body_bytes` is refused.
    """

    def __init__(
        self,
        serving: Callable[[], Serving],
        statistics: ModelStatistics,
        telemetry: Telemetry,
        *,
        max_body_bytes: int,
    ) -> None:
        self._inference = InferenceService(serving, statistics, telemetry)
        self._health = HealthService(self._inference.ready, self._inference.draining)
        self._max_body_bytes = max_body_bytes
        self._server: grpc.aio.Server | None = None
        self._tls: tuple[bytes, bytes] | None = None
        self._tls_in_use: tuple[bytes, bytes] | None = None

    async def listen(self, host: str, port: int, tls: tuple[bytes, bytes] | None = None) -> tuple[str, int]:
        """Begin to accept; return the address, with the port that a 0 became. Raises `OSError`.

        `tls` is a certificate chain and its private key, as their PEM files say.
        """
        address = self.bind(host, port, tls)
        await self.start()
        return address

    def bind(
        self, host: str, port: int, tls: tuple[bytes, bytes] | None = None, *, shared: bool = False
    ) -> tuple[str, int]:
        """Take the address, and accept nobody before `start`; otherwise as `listen`.

        `shared`: another of our servers listens at this port, until it drains.
        """
        if not shared:
            _check_free(host, port)
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", self._max_body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", _HEAD_BYTES),
                ("grpc.so_reuseport", 1),  # so that one of our servers can follow another at the same address
            ]
        )
        logging.getLogger(_LIBRARY).addFilter(_is_news)
        server.add_generic_rpc_handlers((self._inference_handler(), self._health_handler()))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if tls is None:
                bound = server.add_insecure_port(address)
            else:
                self._tls = tls
                # "Nothing new" is None, which the stubs do not know.
                newer = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._newer_certificate)
                credentials = grpc.dynamic_ssl_server_credentials(self._certificate(), newer)
                bound = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen for gRPC at {address}: {error}") from error
        self._server = server
        return host, bound

    async def start(self) -> None:
        """Accept who comes to the address that was bound."""
        assert self._server is not None, "`bind` comes first"
        await self._server.start()

    def exchange_tls(self, tls: tuple[bytes, bytes]) -> None:
        """Answer new connections with this certificate chain and key."""
        self._tls = tls

    async def drain(self, deadline_s: float) -> None:
        """Take no new calls and let those in progress end within the deadline; what is left is cut off."""
        self._inference.draining.set()
        if self._server is not None:
            await self._server.stop(deadline_s)

    def _certificate(self) -> grpc.ServerCertificateConfiguration:
        assert self._tls is not None, "only a server with TLS asks"
        certificate, key = self._tls_in_use = self._tls
        return grpc.ssl_server_certificate_configuration([(key, certificate)])

    def _newer_certificate(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what came after the certificate in use; the library asks at each handshake, from its own thread."""
        return None if self._tls is self._tls_in_use else self._certificate()

    def _inference_handler(self) -> grpc.GenericRpcHandler:
        return _handler(INFERENCE, self._inference.calls())

    def _health_handler(self) -> grpc.GenericRpcHandler:
        return _handler(HEALTH, {"Check": guarded(self._health.check), "Watch": self._health.watch})


def _handler(name: str, calls: Mapping[str, Callable[..., Any]]) -> grpc.GenericRpcHandler:
    """Bind a service's calls to its methods, each of which says which messages it reads and writes, and how many."""
    handlers = {}
    for method in service(name).methods:
        reads, writes = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        handler, reading = _HANDLERS[method.client_streaming, method.server_streaming]
        answer = reading(calls[method.name], reads)
        handlers[method.name] = handler(answer, response_serializer=writes.SerializeToString)
    return grpc.method_handlers_generic_handler(name, handlers)


def _of_one(call: Callable[..., Any], kind: type[Message]) -> Callable[..., Any]:
    """Make the call that reads its message and answers once."""

    async def answer(data: bytes, context: Context) -> Message:
        reply: Message = await call(await _read(kind, data, context), context)
        return reply

    return answer


def _of_one_streamed(call: Callable[..., Any], kind: type[Message]) -> Callable[..., Any]:
    """Make the call that reads its message and answers as long as it likes."""

    async def answer(data: bytes, context: Context) -> AsyncGenerator[Message, None]:
        async with aclosing(call(await _read(kind, data, context), context)) as replies:
            async for reply in replies:
                yield reply

    return answer


def _of_many(call: Callable[..., Any], kind: type[Message]) -> Callable[..., Any]:
    """Return the call as it is: each message that it reads has an error of its own."""
    del kind
    return call


async def _read(kind: type[Message], data: bytes, context: Context) -> Message:
    try:
        return read(kind, data)
    except InvalidRequest as error:
        trouble = told(error)
        await context.abort(code(trouble), trouble.message)


_HANDLERS: Mapping[tuple[bool, bool], tuple[Callable[..., Any], Callable[..., Any]]] = {
    (False, False): (grpc.unary_unary_rpc_method_handler, _of_one),
    (False, True): (grpc.unary_stream_rpc_method_handler, _of_one_streamed),
    (True, True): (grpc.stream_stream_rpc_method_handler, _of_many),
}


def _is_news(record: logging.LogRecord) -> bool:
    """Tell whether the library has more to say than that it could not write to a client that had left."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not issubclass(kind, grpc.aio.BaseError)


def _check_free(host: str, port: int) -> None:
    """Raise `OSError` where somebody listens there: the library would share the port with who shares it."""
    if not port:
        return
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        raise OSError(f"cannot listen for gRPC at {host}:{port}: {error.strerror}") from error
