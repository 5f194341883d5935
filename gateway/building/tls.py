"""TLS for the listeners, from certificate files; a certificate is exchanged while it serves. Knows no server."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from config.load import MAX_FILE_BYTES
from config.reading import content_at


class TlsFilesError(ValueError):
    """The certificate and key cannot be used; the message names the file and says why."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A certificate chain with its private key: ready for handshakes, and as the files have it."""

    context: ssl.SSLContext
    certificate_pem: bytes
    key_pem: bytes


class Tls:
    """What new connections are answered with: the certificate that was loaded last. Those that were made live on."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.context = loaded.context
        """Give this to a listener, once and for all: each handshake takes the certificate of now."""
        self.context.sni_callback = self._hand_over

    def exchange(self, loaded: Loaded) -> None:
        """Answer with this certificate from now on."""
        self.loaded = loaded

    def _hand_over(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _: ssl.SSLContext) -> None:
        """Choose the certificate; the library asks at each handshake, also where the client names no server."""
        connection.context = self.loaded.context


def load(certificate: Path, key: Path) -> Loaded:
    """Read a PEM certificate chain and its private key. Raises `TlsFilesError`, and blocks as `context` does."""
    made = context(certificate, key)
    try:
        return Loaded(made, certificate.read_bytes(), key.read_bytes())
    except OSError as error:
        raise TlsFilesError(f"{error.filename}: {error.strerror}") from error


def context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a server's TLS (1.2 or newer) for a PEM certificate chain and its private key.

    Raises `TlsFilesError`. It blocks for the time of reading two small files.
    """
    for file in (certificate, key):
        _read(file)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    try:
        made.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise TlsFilesError(f"{certificate} and {key}: {_reason(error)}") from error
    return made


def _read(file: Path) -> None:
    """Check one file by itself: the library's own errors do not say which of the two it was."""
    try:
        content = content_at(file, MAX_FILE_BYTES)
    except OSError as error:
        raise TlsFilesError(f"{file}: {error.strerror}") from error
    if b"-----BEGIN " not in content:
        raise TlsFilesError(f"{file}: no PEM file, it has no line '-----BEGIN …'")


def _no_password() -> str:
    raise TlsFilesError("the private key is encrypted; it must be readable without a password")


def _reason(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key does not belong to the certificate"
    return f"not a certificate chain and its private key ({error.reason or error.strerror})"
