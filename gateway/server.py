"""The HTTP server: from aiohttp's requests to `Call`s, from `Reply`s to bytes on the socket. Knows no surface.

It stands on aiohttp's low-level server, which has no router and no middleware to pay for.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

from aiohttp import web

from gateway.errors import BodyTooLarge, BodyTooSlow, Draining, InvalidRequest, RequestRefused
from gateway.surfaces.wire import Call, Reply

_BODY_DEADLINE_S = 60.0
_WRITE_DEADLINE_S = 60.0


class Server:
    """Listens, reads bodies within bounds, and writes replies. A client that leaves cancels its call."""

    def __init__(
        self,
        serve: Callable[[Call], Awaitable[Reply]],
        refuse: Callable[[Exception], Reply],
        *,
        max_body_bytes: int,
    ) -> None:
        self._serve = serve
        self._refuse = refuse
        self._max_body_bytes = max_body_bytes
        self._calls: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._out_of_time = False
        self._server = web.Server(
            self._handle, request_factory=self._make_request, handler_cancellation=True, access_log=None
        )
        self._listener: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Begin to accept; return the address, with the port that a 0 became. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._server, host, port, backlog=1024)
        address = self._listener.sockets[0].getsockname()
        return address[0], address[1]

    async def drain(self, deadline_s: float) -> None:
        """Take no new calls, let those in progress end within the deadline, then refuse or cut off what is left."""
        self._draining = True
        if self._listener is not None:
            self._listener.close()
        self._server.pre_shutdown()
        try:
            async with asyncio.timeout(deadline_s):
                await self._idle.wait()
        except TimeoutError:
            self._out_of_time = True
            for call in tuple(self._calls):
                call.cancel()
        await self._server.shutdown(timeout=1.0)

    def _make_request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=self._max_body_bytes)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._calls.add(task)
        self._idle.clear()
        try:
            return await self._answer(request)
        finally:
            self._calls.discard(task)
            if not self._calls:
                self._idle.set()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            body = await self._read(request)
        except RequestRefused as error:
            reply = self._refuse(error)
            refusal = web.Response(status=reply.status, headers=reply.headers, body=cast("bytes", reply.body))
            refusal.force_close()  # the rest of the body, which nobody will read, is not the next request
            return refusal
        reply = await self._reply(Call(request.method, request.path, request.headers, body, request.remote))
        if isinstance(reply.body, bytes):
            return web.Response(status=reply.status, headers=reply.headers, body=reply.body)
        return await self._stream(request, reply, reply.body)

    async def _reply(self, call: Call) -> Reply:
        try:
            return await self._serve(call)
        except asyncio.CancelledError:
            if not self._out_of_time:
                raise
            cast("asyncio.Task[Any]", asyncio.current_task()).uncancel()  # it lives on for one refusal
            return self._refuse(Draining("the gateway shut down before this was answered"))

    async def _read(self, request: web.BaseRequest) -> bytes:
        if self._draining:
            raise Draining("the gateway is shutting down")
        announced = request.content_length
        if announced is not None and announced > self._max_body_bytes:
            raise self._too_large(f"{announced} bytes")
        try:
            if request.content.is_eof():
                return await request.read()
            async with asyncio.timeout(_BODY_DEADLINE_S):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise self._too_large("more") from None
        except TimeoutError:
            raise BodyTooSlow(f"the body did not arrive within {_BODY_DEADLINE_S:g} s") from None
        except (web.RequestPayloadError, ValueError) as error:
            raise InvalidRequest(f"the body cannot be read: {error}") from error

    def _too_large(self, size: str) -> BodyTooLarge:
        return BodyTooLarge(f"the body has {size}; at most {self._max_body_bytes} bytes are read (server.max_body)")

    async def _stream(self, request: web.BaseRequest, reply: Reply, chunks: AsyncIterator[bytes]) -> web.StreamResponse:
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        async with aclosing(cast("Any", chunks)):
            # Nothing is awaited before the iterator has begun: one that never began would not clean up when closed.
            async for chunk in chunks:
                if not response.prepared:
                    await response.prepare(request)
                # A client that does not read holds its own share only, and not for ever.
                async with asyncio.timeout(_WRITE_DEADLINE_S):
                    await response.write(chunk)
            await response.write_eof()
        return response
