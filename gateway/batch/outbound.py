"""HTTP to addresses that a client named: a URL is read once, its name is looked up once, and every address is checked.

The check is made on the very address that is connected to, so a name that changes between two look-ups gains nothing.
Redirects are not followed, proxies and cookies not used. Knows nothing of batches.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from gateway.batch.addresses import trouble_of_address, trouble_of_port
from gateway.fields import cut

_CONNECT_S = 10.0
_READ_S = 30.0
_CHUNK_BYTES = 64 * 2**10
_MAX_URL_CHARS = 2048
_CONNECTIONS = 64
_OK = 200


class Unreachable(Exception):
    """The other side cannot be reached, or may not be, or does not answer as it should."""


class Outbound:
    """A client for one event loop; while `allow_private` says so it goes anywhere."""

    def __init__(self, allow_private: Callable[[], bool], tls: ssl.SSLContext | None = None) -> None:
        self._allow_private = allow_private
        self._tls = tls or ssl.create_default_context()
        self._resolver = _CheckedResolver(allow_private)
        self._session: aiohttp.ClientSession | None = None

    async def check(self, text: str, schemes: tuple[str, ...]) -> URL:
        """Read a URL, and look its name up. Raises `Unreachable` where it may not be reached, or has no address."""
        url = self._read(text, schemes)
        assert url.host is not None
        assert url.port is not None
        async with _told(_CONNECT_S, url):
            await self._resolver.resolve(url.host, url.port)
        return url

    async def post(self, text: str, body: bytes, headers: Mapping[str, str], limit_s: float) -> int:
        """Send a body and return the status of the reply, whose body is not read. Raises `Unreachable`."""
        url = self._read(text, ("http", "https"))
        async with _told(limit_s, url), self._client().post(url, data=body, headers=headers, **_PLAIN) as response:
            return response.status

    async def get(self, text: str, max_bytes: int, limit_s: float) -> AsyncGenerator[bytes, None]:
        """Yield the body that an `https` URL has, in pieces. Raises `Unreachable`, also where it is larger."""
        url = self._read(text, ("https",))
        headers = {"Accept-Encoding": "identity"}  # what unpacks itself has no size that one could trust
        left = max_bytes
        async with _told(limit_s, url), self._client().get(url, headers=headers, **_PLAIN) as response:
            if response.status != _OK:
                raise Unreachable(f"{_shown(url)} answered with the status {response.status}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise Unreachable(f"{_shown(url)} sends a coded body, which is not read")
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                left -= len(chunk)
                if left < 0:
                    raise Unreachable(f"{_shown(url)} has more than {max_bytes} bytes")
                yield chunk

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=self._resolver,
                socket_factory=self._socket,
                ssl=self._tls,
                limit=_CONNECTIONS,
                use_dns_cache=False,
                force_close=True,
            )
            timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_S, sock_read=_READ_S)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    def _socket(self, found: Any) -> socket.socket:
        """Make the socket for an address: the last look before the connection, and the only one for plain addresses."""
        family, kind, protocol, _, address = found
        self._resolver.check(address[0])
        return socket.socket(family, kind, protocol)

    def _read(self, text: str, schemes: tuple[str, ...]) -> URL:
        try:
            url = URL(text)
            host, port = url.host, url.port  # a host that no name can be spelt as is found out only here
        except ValueError as error:
            raise Unreachable(f"'{cut(text)}' is no URL: {error}") from error
        if url.scheme not in schemes or not host or port is None or len(text) > _MAX_URL_CHARS:
            raise Unreachable(
                f"'{cut(text)}' is no {' or '.join(schemes)} URL of at most {_MAX_URL_CHARS} characters with a host"
            )
        if url.user is not None or url.password is not None:
            raise Unreachable("a URL with a user or a password is not taken")
        if not self._allow_private() and (trouble := trouble_of_port(port)):
            raise Unreachable(f"{_shown(url)}: {trouble}")
        return url


_PLAIN: dict[str, Any] = {"allow_redirects": False, "auto_decompress": False}


class _CheckedResolver(AbstractResolver):
    """The system's resolver; a name that has one address that may not be reached has none."""

    def __init__(self, allow_private: Callable[[], bool]) -> None:
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Look a name up. Raises `OSError`, and `Unreachable` for what may not be reached."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        for _, _, _, _, address in found:
            self.check(str(address[0]))
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=socket.AI_NUMERICHOST
            )
            for kind, _, protocol, _, address in found
        ]

    def check(self, address: str) -> None:
        """Raise `Unreachable` for an address that may not be reached."""
        if not self._allow_private() and (trouble := trouble_of_address(address)):
            raise Unreachable(f"{trouble}, and 'batch.allow_private' is off")

    async def close(self) -> None:
        """Hold nothing that needs closing."""


@asynccontextmanager
async def _told(limit_s: float, url: URL) -> AsyncIterator[None]:
    """Turn every trouble of the network into `Unreachable`, within a time."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as error:
        raise Unreachable(f"{_shown(url)} did not answer in time") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Unreachable(f"{_shown(url)}: {type(error).__name__}: {error}") from error


def _shown(url: URL) -> str:
    """Write a URL without its query, which may hold a secret."""
    return cut(str(url.with_query(None).with_fragment(None)))
