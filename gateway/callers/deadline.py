"""How long a client gives its request: `X-Request-Timeout`, in seconds. Knows no clock."""

import re

from gateway.errors import InvalidRequest
from gateway.fields import cut

_LEAST_S = 0.001
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")


def parse(header: str | None) -> float | None:
    """Return the seconds that the client allows, None where it says nothing. Raises `InvalidRequest`."""
    if header is None:
        return None
    if not _DECIMAL.fullmatch(header) or not (seconds := float(header)) >= _LEAST_S:
        raise InvalidRequest(
            f"X-Request-Timeout must be a number of seconds from {_LEAST_S:g} on, such as 2.5, got '{cut(header)}'"
        )
    return seconds
