"""Who calls: API keys, or the loopback interface where the operator set none. Knows no wire's error shape."""

import functools
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.errors import Forbidden, Unauthorized
from gateway.fields import cut
from gateway.request import UNLIMITED, Caller, Limits

_LOOPBACK = Caller(scope="")
_KEY_BYTES = 24
_HOST = re.compile(r"(?:\[([^\]]+)\]|([^:\[\]]+))(?::[0-9]*)?")


@dataclass(frozen=True, slots=True)
class Key:
    """A key that the operator gave out: its SHA-256 in hex, and what it opens. `name` becomes the cache's scope."""

    name: str
    sha256: str
    models: tuple[str, ...] = ("*",)
    limits: Limits = UNLIMITED


class Gatekeeper:
    """Tells callers apart. Keys are kept as SHA-256 digests; the key itself is neither stored nor written anywhere.

    `hosts` are the names that clients on this machine may reach it by, besides `localhost` and addresses.
    """

    def __init__(self, keys: Sequence[Key], hosts: Iterable[str] = ()) -> None:
        self._hosts = frozenset({"localhost", *(host.lower() for host in hosts)})
        self._keys = tuple(keys)
        self.narrow(self._keys)

    def narrow(self, newest: Sequence[Key]) -> None:
        """Let the own keys open no more than these do from now on, which replaces what was narrowed before.

        What these would add they do not add here. Without keys of its own it stays open to loopback, and with keys it
        asks for one where none of them is left.
        """
        self._callers: Mapping[bytes, tuple[bytes, Caller]] = {
            digest: (digest, _caller(key))
            for key in narrowed(self._keys, newest, by_digest)
            for digest in [bytes.fromhex(key.sha256)]
        }
        # Work that was left behind is of a name, which may have another key now.
        callers = [_caller(key) for key in narrowed(self._keys, newest, by_name)] if self._keys else [_LOOPBACK]
        self._scopes = {caller.scope: caller for caller in callers}

    @property
    def keyed(self) -> bool:
        """Whether a caller is known by its key, and not by its address."""
        return bool(self._keys)

    def identify(self, headers: Mapping[str, str], peer: str | None) -> Caller:
        """Return the caller. Raises `Unauthorized` or `Forbidden`."""
        if not self._keys:
            if is_loopback(peer):
                self.check_host(headers, peer)
                return _LOOPBACK
            raise Forbidden(f"no keys are configured, so only loopback may call; this call came from {peer}")
        key = _presented(headers)
        if key is None:
            raise Unauthorized(_how_to_send(headers))
        digest = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
        # Where the look-up goes depends on the digest alone, and to choose a digest is to invert SHA-256.
        found = self._callers.get(digest)
        if found is None or not hmac.compare_digest(found[0], digest):
            raise Unauthorized("the API key is not known here")
        return found[1]

    def check_host(self, headers: Mapping[str, str], peer: str | None) -> None:
        """Refuse a client on this machine that calls us by a name which is none of ours.

        It may be a browser whose page had its own name lead here (DNS rebinding), and which takes us for its site.
        Raises `Forbidden`.
        """
        host = headers.get("host")
        if host and is_loopback(peer) and (name := _name_in(host)) is not None and name not in self._hosts:
            raise Forbidden(f"'{cut(host)}' is no name of this gateway; 'server.hosts' may list more of them")

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Refuse what a page of another site has a browser do here, where no key shows that somebody wants it.

        A browser sends no header of a key for another site before that has agreed. Raises `Forbidden`.
        """
        if not self._keys and _presented(headers) is None:
            check_same_site(headers)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys."""
        return tuple(caller.scope.removeprefix("key:") for _, caller in self._callers.values())

    def of_scope(self, scope: str) -> Caller | None:
        """Return the caller that has this scope now, for work that it left behind; None where its key is gone."""
        return self._scopes.get(scope)


def by_digest(key: Key) -> str:
    """Return what a client's key is known by."""
    return key.sha256.lower()


def by_name(key: Key) -> str:
    """Return what a key's tenant is known by."""
    return key.name


def narrowed(keys: Iterable[Key], newest: Iterable[Key], known: Callable[[Key], str]) -> tuple[Key, ...]:
    """Return those of the keys that are among newer ones, each with what both open."""
    still = {known(key): key for key in newest}
    return tuple(_narrower(key, still[known(key)]) for key in keys if known(key) in still)


def is_loopback(peer: str | None) -> bool:
    """Tell whether an address is this machine's own; a Unix socket's peer has none, and is."""
    if peer is None or peer == "127.0.0.1":
        return True
    address = ipaddress.ip_address(peer.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def check_same_site(headers: Mapping[str, str]) -> None:
    """Raise `Forbidden` where a browser says that a page of another host sends this."""
    origin = headers.get("origin")
    if origin is not None and _host_of(origin) != headers.get("host", "").lower():
        raise Forbidden(
            f"without a key nothing is changed for pages of other sites; this call came from '{cut(origin)}'"
        )


@functools.lru_cache(maxsize=256)
def _name_in(host: str) -> str | None:
    """Return the name that a `Host` header has, in small letters; None where that is an address."""
    found = _HOST.fullmatch(host)
    name = host if found is None else found[1] or found[2]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower().removesuffix(".")
    return None


def _host_of(origin: str) -> str | None:
    """Return the host and port of a page's origin; None where it has none, or makes no sense."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _narrower(key: Key, newer: Key) -> Key:
    """Return the key with what both open, and the lower of their limits."""
    models = key.models
    if "*" not in newer.models:
        models = newer.models if "*" in models else tuple(name for name in models if name in newer.models)
    one, other = key.limits, newer.limits
    limits = Limits(
        _lower(one.requests_per_minute, other.requests_per_minute),
        _lower(one.tokens_per_minute, other.tokens_per_minute),
        _lower(one.concurrency, other.concurrency),
    )
    return Key(key.name, key.sha256, models, limits)


def _lower(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else min(one, other)


def _caller(key: Key) -> Caller:
    return Caller(f"key:{key.name}", key.models, _limits(key.limits))


def _limits(limits: Limits) -> Limits:
    """Return the one value that stands for no limits, so that it is known by itself."""
    return UNLIMITED if limits == UNLIMITED else limits


def new_key() -> tuple[str, str]:
    """Draw a key that nobody guesses: the key, and what the settings have of it."""
    key = f"wg-{secrets.token_hex(_KEY_BYTES)}"
    return key, hashlib.sha256(key.encode()).hexdigest()


def _how_to_send(headers: Mapping[str, str]) -> str:
    """Tell a client without a key how to send it, and what is wrong with what looks like one."""
    said = "no API key"
    if "authorization" in headers:
        said = "the Authorization header has no API key, since it does not begin with 'Bearer'"
    elif "api-key" in headers:
        said = "no API key is taken from 'api-key'"
    return f"{said}: send it as 'Authorization: Bearer <key>' or 'x-api-key: <key>'"


def _presented(headers: Mapping[str, str]) -> str | None:
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credential:
        return credential.strip()
    return headers.get("x-api-key")
