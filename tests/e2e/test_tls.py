"""HTTPS with the real program: the official client, against a certificate that the test made."""

import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pytest
import trustme

from scripts.running_gateway import launch
from tests.e2e.program import DEADLINE_S, ECHO, config, started


def write(authority: trustme.CA, directory: Path) -> str:
    """Write a certificate for 127.0.0.1 and its key; return the server's settings for them."""
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(directory / "both.pem")
    return f"tls: {{certificate: {directory / 'both.pem'}, key: {directory / 'both.pem'}}}"


def test_official_client_over_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole and streamed answers come over TLS; who speaks plain HTTP to the port gets no answer, and harms nobody."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with started(config(tmp_path, ECHO, server=write(authority, tmp_path)), tmp_path) as (gateway, _):
        assert gateway.url.startswith("https://127.0.0.1:")
        where = urlsplit(gateway.url)
        with socket.create_connection((where.hostname, where.port), timeout=DEADLINE_S) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" not in plain.recv(1000)

        trusting = openai.DefaultHttpxClient(verify=ssl.create_default_context())
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none needed", http_client=trusting) as client:
            chat = {"model": "echo", "messages": [{"role": "user", "content": "over the wire"}]}
            whole = client.chat.completions.create(**chat)
            pieces = list(client.chat.completions.create(**chat, stream=True))

    assert whole.choices[0].message.content == "echo: over the wire"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces if chunk.choices) == "echo: over the wire"


def test_bad_certificate_ends_the_start_with_its_name(tmp_path: Path) -> None:
    """A key that belongs to another certificate is told of in one line, and nothing is served."""
    issued, other = (trustme.CA().issue_cert("127.0.0.1") for _ in range(2))
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    other.private_key_pem.write_to_path(tmp_path / "key.pem")
    tls = f"tls: {{certificate: {tmp_path / 'certificate.pem'}, key: {tmp_path / 'key.pem'}}}"
    process, log = launch(config(tmp_path, ECHO, server=tls), tmp_path)

    assert process.wait(DEADLINE_S) == 1
    said = log.read_text(encoding="utf-8")
    assert said.endswith("key.pem: the key does not belong to the certificate\n")
    assert "Traceback" not in said
