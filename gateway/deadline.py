"""How long a client gives its request: `X-Request-Timeout`, in seconds. Knows no clock."""

import math

from gateway.errors import InvalidRequest

_LEAST_S = 0.001


def parse(header: str | None) -> float | None:
    """Return the seconds that the client allows, None where it says nothing. Raises `InvalidRequest`."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not seconds >= _LEAST_S:
        raise InvalidRequest(f"X-Request-Timeout must be a number of seconds from {_LEAST_S:g} on, got '{header[:80]}'")
    return seconds
