"""gRPC's own way to ask whether a server serves: `grpc.health.v1.Health`."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from google.protobuf.message import Message

from gateway.errors import UnknownPath
from gateway.surfaces.oip.calls import Context
from gateway.surfaces.oip.proto import health_pb2 as pb

_SERVICES = ("", "inference.GRPCInferenceService")
_LOOK_S = 0.5


class HealthService:
    """Says of all services what `ready` says; who watches is let go when it is `over`."""

    def __init__(self, ready: Callable[[], bool], over: asyncio.Event) -> None:
        self._ready = ready
        self._over = over

    async def check(self, request: pb.HealthCheckRequest, context: Context) -> Message:
        """Answer once."""
        del context
        if request.service not in _SERVICES:
            raise UnknownPath(f"there is no service '{request.service}' here")
        return pb.HealthCheckResponse(status=self._status(request.service))

    async def watch(
        self, request: pb.HealthCheckRequest, context: Context
    ) -> AsyncGenerator[pb.HealthCheckResponse, None]:
        """Answer now, and again whenever the answer is another one, for as long as the client listens."""
        del context
        told = None
        while True:
            if (status := self._status(request.service)) != told:
                told = status
                yield pb.HealthCheckResponse(status=status)
            if self._over.is_set():
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._over.wait()

    def _status(self, service: str) -> pb.HealthCheckResponse.ServingStatus:
        statuses = pb.HealthCheckResponse
        if service not in _SERVICES:
            return statuses.SERVICE_UNKNOWN
        return statuses.SERVING if self._ready() else statuses.NOT_SERVING
