"""Edits of the certificate of a gateway that runs: added, renewed, exchanged and removed."""

import asyncio
import ssl
from pathlib import Path

import grpc
import pytest
import trustme

from gateway.building import certificates
from tests.generation_house import Engines, get, live, running, settings, until, without_processes


@pytest.fixture(name="engines")
def _engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    return without_processes(monkeypatch)


def write(authority: trustme.CA, directory: Path) -> str:
    """Write a new certificate and its key; return the settings for them."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    (directory / "certificate.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (directory / "key.pem").write_bytes(issued.private_key_pem.bytes())
    return f"tls: {{certificate: {directory / 'certificate.pem'}, key: {directory / 'key.pem'}}}"


async def serial(address: tuple[str, int]) -> str:
    """Return what tells the certificate that a new connection gets."""
    return await asyncio.to_thread(ssl.get_server_certificate, address)


async def test_a_renewed_certificate_counts_without_an_edit(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """New connections get what the files have now, over both wires; a bad pair is told of and changes nothing."""
    monkeypatch.setattr(certificates, "LOOK_EVERY_S", 0.02)
    caplog.set_level("INFO")
    authority, stranger = trustme.CA(), trustme.CA()
    root = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    server = write(authority, tmp_path) + ", grpc: '127.0.0.1:0'"
    async with running(settings(tmp_path, server=server)) as gateway:
        address = gateway.listeners.http_address
        first = await serial(address)
        assert await live(gateway.listeners.grpc_address, root)

        (tmp_path / "certificate.pem").write_text("-----BEGIN nothing")
        await until(lambda: "that was in use stays" in caplog.text)
        assert await serial(address) == first
        assert await live(gateway.listeners.grpc_address, root)

        write(stranger, tmp_path)
        await until(lambda: "was renewed" in caplog.text)
        assert await serial(address) != first
        assert await serial((address[0], gateway.listeners.grpc_address[1])) != first  # type: ignore[index]
        with pytest.raises(grpc.aio.AioRpcError):
            await live(gateway.listeners.grpc_address, root)
        assert await live(gateway.listeners.grpc_address, grpc.ssl_channel_credentials(stranger.cert_pem.bytes()))


async def test_tls_is_added_exchanged_and_removed(engines: Engines, tmp_path: Path) -> None:
    """HTTP and gRPC take new connections with or without TLS as the settings say, at the ports that they have."""
    authorities = []
    async with running(settings(tmp_path, server="grpc: '127.0.0.1:0'")) as gateway:
        addresses = gateway.listeners.http_address, gateway.listeners.grpc_address
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            authorities.append(trustme.CA())
            server = write(authorities[-1], tmp_path / name) + ", grpc: '127.0.0.1:0'"
            await gateway.apply(settings(tmp_path, server=server))
            root = grpc.ssl_channel_credentials(authorities[-1].cert_pem.bytes())
            assert await live(gateway.listeners.grpc_address, root)
            assert (await serial(addresses[0])).strip() in (tmp_path / name / "certificate.pem").read_text()
        await gateway.apply(settings(tmp_path, server="grpc: '127.0.0.1:0'"))
        assert await get(addresses[0]) == 200
        await until(lambda: not gateway.listeners._ending)
        assert await live(addresses[1])
        assert (gateway.listeners.http_address, gateway.listeners.grpc_address) == addresses
