"""Which addresses the gateway may turn to on a client's word. Pure.

A client that names a URL must not reach what only the gateway can reach: itself, its network, its cloud's metadata.
"""

import ipaddress

_PORTS = frozenset({80, 443, 8080, 8443})
"""Ports where HTTP is served; others belong to protocols that might take a request for theirs."""

# The IPv6 that is in use; all else is local, reserved, or an IPv4 address in disguise.
_UNICAST_6 = ipaddress.ip_network("2000::/3")
# Two tunnels, which lead to an IPv4 address of the sender's choice, and addresses for manuals.
_NOT_PLAIN = tuple(map(ipaddress.ip_network, ("2001::/32", "2002::/16", "3fff::/20")))


def trouble_of_address(text: str) -> str | None:
    """Return why an address may not be reached, None where it may."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return f"{text} is no address"
    public = address.is_global and not address.is_multicast and not address.is_reserved
    if public and address.version == 6:  # noqa: PLR2004 - the version of IP
        public = address in _UNICAST_6 and not any(address in network for network in _NOT_PLAIN)
    return None if public else f"{text} is no public address"


def trouble_of_port(port: int) -> str | None:
    """Return why a port may not be reached, None where it may."""
    return None if port in _PORTS else f"port {port} is none of {', '.join(map(str, sorted(_PORTS)))}"
