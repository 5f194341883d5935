"""TLS by certificate files: what is negotiated, what is refused, and how bad files are told of."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme
import uvloop

from gateway.building.tls import TlsFilesError, context
from gateway.serving import listener
from gateway.serving.server import Server
from gateway.surfaces.wire import Call, Reply

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Make an authority that the tests' clients trust."""
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write a certificate for localhost and its key."""
    return write(authority, tmp_path_factory.mktemp("tls"))


def write(authority: trustme.CA, directory: Path) -> tuple[Path, Path]:
    """Write a certificate of the authority and its key."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return certificate, key


async def echo(call: Call) -> Reply:
    """Answer with what was sent."""
    return Reply(200, {}, call.body)


def refuse(error: Exception) -> Reply:
    """Answer an error with its words."""
    return Reply(400, {}, str(error).encode())


@asynccontextmanager
async def serving(
    files: tuple[Path, Path], serve: Callable[[Call], Awaitable[Reply]] = echo
) -> AsyncIterator[tuple[Server, int]]:
    """Run a server with TLS on a free port."""
    server = Server(serve, refuse, max_body_bytes=2**20)
    _, port = await server.listen("127.0.0.1", 0, context(*files))
    try:
        yield server, port
    finally:
        await server.drain(0.0)


def client(authority: trustme.CA, alpn: str = "http/1.1") -> ssl.SSLContext:
    """Make a client that trusts the authority."""
    made = ssl.create_default_context()
    authority.configure_trust(made)
    made.set_alpn_protocols([alpn])
    return made


@LOOPS
def test_exchange_over_tls(
    loop: Callable[[], asyncio.AbstractEventLoop], authority: trustme.CA, files: tuple[Path, Path]
) -> None:
    """A great body goes in and out, HTTP/1.1 is agreed on, and what cannot be read is refused and closed."""

    async def run() -> None:
        async with serving(files) as (_, port):
            reader, writer = await asyncio.open_connection("localhost", port, ssl=client(authority))
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            body = b"x" * 500_000
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert await reader.readexactly(len(body)) == body
            writer.write(b"nonsense\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
            writer.close()
            await writer.wait_closed()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(run(), 90))


@LOOPS
def test_client_that_leaves_is_noticed(
    loop: Callable[[], asyncio.AbstractEventLoop], authority: trustme.CA, files: tuple[Path, Path]
) -> None:
    """A client over TLS that goes cancels its call, and nothing is kept of its connection."""

    async def run() -> None:
        begun, left = asyncio.Event(), asyncio.Event()

        async def hold(_: Call) -> Reply:
            begun.set()
            try:
                return await asyncio.get_running_loop().create_future()
            finally:
                left.set()

        async with serving(files, hold) as (server, port):
            _, writer = await asyncio.open_connection("localhost", port, ssl=client(authority))
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await begun.wait()
            writer.close()
            await left.wait()
            assert not server._connections

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(run(), 90))


@LOOPS
def test_handshake_that_never_comes_has_a_deadline(
    loop: Callable[[], asyncio.AbstractEventLoop], files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that speaks plain HTTP, or says nothing at all, is dropped; no connection of it is counted."""
    monkeypatch.setattr(listener, "_HANDSHAKE_DEADLINE_S", 0.05)

    async def run() -> None:
        async with serving(files) as (server, port):
            for said in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"", b"\x16\x03\x01\x02"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(said)
                answered = b""
                with suppress(ConnectionError):
                    answered = await reader.read()
                assert b"HTTP/1.1 200" not in answered
                writer.close()
            assert not server._connections

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(run(), 90))


def test_old_tls_is_not_spoken(authority: trustme.CA, files: tuple[Path, Path]) -> None:
    """Nothing below TLS 1.2 is agreed on."""
    assert context(*files).minimum_version == ssl.TLSVersion.TLSv1_2


def test_bad_files_are_named(authority: trustme.CA, files: tuple[Path, Path], tmp_path: Path) -> None:
    """Each fault of the files names the file and what is wrong with it."""
    certificate, key = files
    _, other_key = write(authority, tmp_path)
    no_pem = tmp_path / "no.pem"
    no_pem.write_bytes(b"\x00\xff")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    os.mkfifo(tmp_path / "pipe.pem")
    for pair, words in [
        ((tmp_path / "missing.pem", key), r"missing\.pem: No such file"),
        ((tmp_path / "pipe.pem", key), r"pipe\.pem: it is no regular file"),
        ((certificate, tmp_path), "Is a directory"),
        ((no_pem, key), r"no\.pem: no PEM file"),
        ((broken, key), r"broken\.pem and .*: not a certificate chain"),
        ((certificate, other_key), "the key does not belong to the certificate"),
    ]:
        with pytest.raises(TlsFilesError, match=words):
            context(*pair)
