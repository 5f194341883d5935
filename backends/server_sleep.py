"""vLLM's sleep as its own server offers it over HTTP: asked for, put to sleep, woken.

The paths are those of vLLM's sleep mode (docs.vllm.ai, features/sleep_mode): a server has them that was started with
`--enable-sleep-mode` and VLLM_SERVER_DEV_MODE=1. At level 1 the weights go to host memory, at level 2 they are dropped.
"""

import asyncio
from typing import Self

import orjson

from backends.contract import StartFailed
from backends.http_client import HttpClient
from backends.http_reply import ExchangeFailed
from backends.sleeping import SleepFailed

_SILENCE_S = 600.0
_CONNECT_S = 5.0
_POLL_S = 0.02
_OK = 200
_SHOWN = 300
_JSON = {"Content-Type": "application/json"}
_NO_WEIGHTS = 2


class _Refused(Exception):
    """The server did not do as it was asked."""


class ServerSleep:
    """The sleep of one running server, at vLLM's `level` 1 or 2."""

    def __init__(self, client: HttpClient, level: int) -> None:
        """Use `offered`, which asks the server first."""
        self._client = client
        self._level = level

    @classmethod
    async def offered(cls, url: str, level: int) -> Self | None:
        """Return the server's sleep, or None where it has none."""
        client = HttpClient(url, {}, kept=1, connect_timeout_s=_CONNECT_S, silence_s=_SILENCE_S)
        await client.open()
        sleep = cls(client, level)
        try:
            if await sleep._is_sleeping():
                await sleep.wake()
        except (_Refused, StartFailed):
            sleep.close()
            return None
        except BaseException:
            sleep.close()
            raise
        return sleep

    async def sleep(self) -> None:
        """Return when the server sleeps. Raises `SleepFailed`."""
        try:
            await self._ask(f"/sleep?level={self._level}")
            await self._until(sleeping=True)
        except _Refused as error:
            raise SleepFailed(str(error)) from error

    async def wake(self) -> None:
        """Return when the server says that it is awake. Raises `StartFailed`."""
        try:
            if self._level == _NO_WEIGHTS:
                await self._ask("/wake_up?tags=weights")
                await self._ask("/collective_rpc", orjson.dumps({"method": "reload_weights"}))
                await self._ask("/wake_up?tags=kv_cache")
                await self._ask("/reset_prefix_cache")
            else:
                await self._ask("/wake_up")
            await self._until(sleeping=False)
        except _Refused as error:
            raise StartFailed(f"it does not wake up: {error}") from error

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    async def _until(self, *, sleeping: bool) -> None:
        """Wait until it is so: some versions answer before they are done."""
        while await self._is_sleeping() is not sleeping:  # noqa: ASYNC110 - another process raises no event
            await asyncio.sleep(_POLL_S)

    async def _is_sleeping(self) -> bool:
        try:
            reply = await self._client.get("/is_sleeping")
            try:
                status, body = reply.status, await reply.read()
            finally:
                reply.leave()
            said = orjson.loads(body) if status == _OK else None
        except (ExchangeFailed, orjson.JSONDecodeError) as error:
            raise _Refused(f"/is_sleeping: {error}") from error
        if not isinstance(said, dict) or not isinstance(sleeping := said.get("is_sleeping"), bool):
            raise _Refused(f"/is_sleeping answered with {status}: {body[:_SHOWN]!r}")
        return sleeping

    async def _ask(self, path: str, body: bytes = b"") -> None:
        try:
            reply = await self._client.post(path, _JSON if body else {}, body, whole=True)
            try:
                status, answer = reply.status, await reply.read()
            finally:
                reply.leave()
        except ExchangeFailed as error:
            raise _Refused(f"{path}: {error}") from error
        if status != _OK:
            raise _Refused(f"{path} answered with {status}: {answer[:_SHOWN]!r}")
