"""Who calls: API keys, or the loopback interface where the operator set none. Knows no wire's error shape."""

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence

from gateway.errors import Forbidden, Unauthorized
from gateway.request import Caller

_LOOPBACK = Caller(scope="")


class Gatekeeper:
    """Tells callers apart. Keys are kept as SHA-256 digests; the key itself is neither stored nor written anywhere."""

    def __init__(self, keys: Sequence[tuple[str, str, tuple[str, ...]]]) -> None:
        """Take (name, SHA-256 in hex, models) of each key; the name becomes the caller's cache scope."""
        self._callers: Mapping[str, Caller] = {
            digest.lower(): Caller(scope=f"key:{name}", models=models) for name, digest, models in keys
        }

    def identify(self, headers: Mapping[str, str], peer: str | None) -> Caller:
        """Return the caller. Raises `Unauthorized` or `Forbidden`."""
        if not self._callers:
            if is_loopback(peer):
                return _LOOPBACK
            raise Forbidden(f"no keys are configured, so only loopback may call; this call came from {peer}")
        key = _presented(headers)
        if key is None:
            raise Unauthorized("no API key: send it as 'Authorization: Bearer <key>'")
        # Comparing digests tells an attacker nothing: to choose a digest is to invert SHA-256.
        caller = self._callers.get(hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest())
        if caller is None:
            raise Unauthorized("the API key is not known here")
        return caller


def is_loopback(peer: str | None) -> bool:
    """Tell whether an address is this machine's own; a Unix socket's peer has none, and is."""
    return peer is None or peer == "127.0.0.1" or ipaddress.ip_address(peer.partition("%")[0]).is_loopback


def _presented(headers: Mapping[str, str]) -> str | None:
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credential:
        return credential.strip()
    return headers.get("x-api-key")
