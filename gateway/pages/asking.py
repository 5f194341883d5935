"""Asks a gateway that runs, over its operator's pages. Blocks, so it is for the command line alone."""

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PAGE = "/admin/config"
MAX_BYTES = 16 * 2**20


class CannotAsk(Exception):
    """No gateway answered, or not as one of ours does; the text says why."""


class NobodyListens(CannotAsk):
    """There is no server where the gateway should be."""


@dataclass(frozen=True, slots=True)
class InForce:
    """What a gateway says of its config: its file, how often it was changed, and the settings in plain form."""

    file: str
    generation: int
    settings: Mapping[str, Any]


def in_force(url: str, certificate: Path | None, timeout_s: float) -> InForce:
    """Ask the gateway at this URL, over HTTPS trusting `certificate` where there is one. Raises `CannotAsk`."""
    state = ask(url, PAGE, certificate, timeout_s)
    match state:
        case {"file": str(file), "generation": int(generation), "settings": {"server": {}, "models": {}} as settings}:
            return InForce(file, generation, settings)
        case _:
            raise CannotAsk(f"{url}{PAGE} does not answer as a warmgate does")


def ask(url: str, page: str, certificate: Path | None, timeout_s: float, body: object = None) -> Any:
    """Return what a page of the gateway at this URL answers to GET, or to POST with a body. Raises `CannotAsk`."""
    try:
        status, said = _exchange(url, page, certificate, timeout_s, None if body is None else json.dumps(body))
    except ConnectionRefusedError:
        raise NobodyListens(f"{url} cannot be asked: no server listens there") from None
    except (OSError, HTTPException, ValueError) as error:
        raise CannotAsk(f"{url} cannot be asked: {getattr(error, 'strerror', None) or error}") from None
    if status != 200:  # noqa: PLR2004
        raise CannotAsk(f"{url}{page} answers with status {status}: {said[:500].decode(errors='replace')}")
    try:
        return json.loads(said)
    except (ValueError, RecursionError):
        return None


def _exchange(url: str, page: str, certificate: Path | None, timeout_s: float, body: str | None) -> tuple[int, bytes]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it is not a URL such as http://127.0.0.1:8080")
    connection = HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    if parts.scheme == "https":
        connection = HTTPSConnection(parts.hostname, parts.port, timeout=timeout_s, context=_trust(certificate))
    try:
        path = parts.path.rstrip("/") + page
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, body.encode(), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read(MAX_BYTES)
    finally:
        connection.close()


def _trust(certificate: Path | None) -> ssl.SSLContext:
    """Trust what the machine trusts, or exactly the gateway's own certificate, whatever name it is asked by."""
    if certificate is None:
        return ssl.create_default_context()
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
