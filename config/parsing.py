"""Reads one value as it stands in the file, or says what is allowed there. Knows nothing of which key it is for."""

import ipaddress
import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

from pydantic import SecretStr, ValidationInfo
from pydantic_core import PydanticCustomError

from config.secret import expand
from config.units import parse_duration

HIDDEN = "hidden_value"

NAME = r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}"
VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
HOST_NAME = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){HOST_NAME}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where the server listens; port 0 takes any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return `host:port`, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(value: object) -> ListenAddress:
    """Return `127.0.0.1:8080`, `localhost:8080` or `[::1]:8080` as an address. Raises `ValueError`."""
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or int(port) > 65535:  # noqa: PLR2004
        raise ValueError("is not an address such as 127.0.0.1:8080 or [::1]:8080, with a port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        return ListenAddress(_ip(host[1:-1], ipaddress.IPv6Address), int(port))
    if re.fullmatch(r"[0-9.]+", host):
        return ListenAddress(_ip(host, ipaddress.IPv4Address), int(port))
    if not _HOST_NAME.fullmatch(host):
        raise ValueError("does not begin with a host name, an IPv4 address, or an IPv6 address in brackets")
    return ListenAddress(host, int(port))


def parse_host(value: object) -> str:
    """Return `gateway.example.org`, a name without port. Raises `ValueError`."""
    if not isinstance(value, str) or not _HOST_NAME.fullmatch(value):
        raise ValueError("is not a host's name such as gateway.example.org, without a port")
    return value.lower()


def parse_gpus(value: object) -> Literal["none", "all"] | tuple[int, ...]:
    """Return `none`, `all`, or the indices of the devices. Raises `ValueError`."""
    if value == "none":
        return "none"
    if value == "all":
        return "all"
    if (
        not isinstance(value, tuple)
        or not value
        or not all(isinstance(index, int) and not isinstance(index, bool) and index >= 0 for index in value)
    ):
        raise ValueError("is not none, all, or a list of indices such as [0, 1]")
    if len(set(value)) < len(value):
        raise ValueError("names a device twice")
    return value


def parse_keep_warm(value: object) -> float | None:
    """Return None for `predict`, or a time in seconds. Raises `ValueError`."""
    if value == "predict":
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{error}, or predict") from None


def parse_threshold(value: object) -> float:
    """Return a cosine above 0 and up to 1. Raises `ValueError`."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not (math.isfinite(value) and 0 < value <= 1):
        raise ValueError("is not a number above 0 and up to 1")
    return float(value)


def parse_url(value: object) -> str:
    """Return an http(s) URL without its last slash. Raises an error that hides the value where it has a password."""
    if isinstance(value, str) and "@" in value:
        raise PydanticCustomError(HIDDEN, "a user or password in a URL would be printed: put the secret in key")
    wrong = ValueError("is not a URL such as https://api.example.com/v1 (http or https, no query)")
    if not isinstance(value, str) or not value.isprintable() or " " in value:
        raise wrong
    try:
        parts = urlsplit(value)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not has_host or "?" in value or "#" in value:
        raise wrong
    return value.rstrip("/")


def parse_command(value: object) -> str:
    """Return a command line that names `{port}` and splits into words as a shell splits it. Raises `ValueError`."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("is not a command line such as 'serve --port {port}'")
    if "{port}" not in value:
        raise ValueError("does not contain {port}: the command must listen on the port that it is given there")
    try:
        shlex.split(value)
    except ValueError as error:
        raise ValueError(f"is not a command line: {str(error).lower()}") from None
    return value


def parse_digest(value: object) -> str:
    """Return a SHA-256 digest in lower case. Raises an error without the value, which may be the key itself."""
    text = value.lower() if isinstance(value, str) else ""
    if not _DIGEST.fullmatch(text):
        raise PydanticCustomError(HIDDEN, "is not the SHA-256 digest of a key: 64 hexadecimal digits, in quotes")
    return text


def parse_switch(value: object) -> bool:
    """Return true or false. Raises `ValueError`."""
    if not isinstance(value, bool):
        raise ValueError("is not true or false")  # noqa: TRY004
    return value


def parse_url_path(value: object) -> str:
    """Return the path of a URL, such as `/health`. Raises `ValueError`."""
    if not isinstance(value, str) or not re.fullmatch(r"/[!-~]*", value):
        raise ValueError("is not a path such as /health")
    return value


def parse_path(value: object) -> Path:
    """Return a path of the file system as written. Raises `ValueError`."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("is not a path")
    return Path(value)


def parse_name(value: object) -> str:
    """Return the name of a model, route or key. Raises `ValueError`."""
    if not isinstance(value, str) or not re.fullmatch(NAME, value):
        raise ValueError("is not a name: up to 128 letters, digits and . _ : / @ + -, the first a letter or digit")
    return value


def parse_name_or_any(value: object) -> str:
    """Return a name, or `*` for all. Raises `ValueError`."""
    return "*" if value == "*" else parse_name(value)


def parse_text(value: object) -> str:
    """Return text that is not empty and has one line. Raises `ValueError`."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("is not one line of text (quote it)")
    return value


def parse_variable(value: object) -> str:
    """Return the name of an environment variable. Raises `ValueError`."""
    if not isinstance(value, str) or not re.fullmatch(VARIABLE, value):
        raise ValueError("is not the name of an environment variable: letters, digits and _")
    return value


def parse_secret(value: object, info: ValidationInfo) -> SecretStr:
    """Return the secret with each `${NAME}` taken from the validation's context. Raises an error without the value."""
    try:
        return expand(value, info.context or {})
    except ValueError as error:
        raise PydanticCustomError(HIDDEN, "{why}", {"why": str(error)}) from None


def parse_shared_url(value: object, info: ValidationInfo) -> SecretStr:
    """Return the URL of a Redis server, each `${NAME}` expanded. Raises an error that hides the value.

    What stands inside a URL is escaped as that needs; a `${NAME}` alone is the whole URL.
    """
    if isinstance(value, str) and not value.startswith("${"):
        context = {name: quote(text, safe="") for name, text in (info.context or {}).items()}
    else:
        context = info.context or {}
    try:
        secret = expand(value, context)
    except ValueError as error:
        raise PydanticCustomError(HIDDEN, "{why}", {"why": str(error)}) from None
    wrong = PydanticCustomError(
        HIDDEN,
        "is not a URL such as redis://host:6379/0, rediss://:${REDIS_PASSWORD}@host:6379/0 or unix:///run/redis.sock",
    )
    try:
        parts = urlsplit(secret.get_secret_value())
        port = parts.port
    except ValueError:
        raise wrong from None
    has_place = bool(parts.path) if parts.scheme == "unix" else bool(parts.hostname) and port != 0
    if parts.scheme not in ("redis", "rediss", "unix") or not has_place:
        raise wrong
    return secret


def _ip(text: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> str:
    try:
        return str(kind(text))
    except ValueError as error:
        raise ValueError(f"has no valid address: {error}") from None
