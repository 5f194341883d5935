"""How a client would have its request served: `Prefer: wait` (RFC 7240), `X-Warmgate-Prefer`, `X-Warmgate-Next`.

Knows no model and no pool.
"""

import re
from collections.abc import Mapping
from typing import Literal, get_args

from backends.value import value
from gateway.errors import InvalidRequest
from gateway.fields import cut

PREFER = "prefer"
ROUTE = "x-warmgate-prefer"
NEXT = "x-warmgate-next"

Preferred = Literal["fastest", "exact"]
_ALLOWED: tuple[Preferred, ...] = get_args(Preferred)
# More digits than any wait has.
_SECONDS = re.compile(r"[0-9]{1,9}")


@value
class Preferences:
    """What a client said of how it would be served; None where it said nothing.

    `route`: `fastest` takes whichever model of the route, fallbacks among them, is expected to begin first; `exact`
    takes none but the model that it names. `wait_s` is how long it would wait for a slot at most. `next_model` is what
    it will ask for soon.
    """

    route: Preferred | None = None
    wait_s: float | None = None
    next_model: str | None = None


NO_PREFERENCES = Preferences()
"""What nearly all requests prefer: nothing in particular."""


def read(headers: Mapping[str, str]) -> Preferences:
    """Return what a request's headers prefer. Raises `InvalidRequest`."""
    if PREFER not in headers and ROUTE not in headers and NEXT not in headers:
        return NO_PREFERENCES
    return Preferences(_route(headers.get(ROUTE)), _wait_s(headers.get(PREFER)), headers.get(NEXT, "").strip() or None)


def _route(header: str | None) -> Preferred | None:
    if header is None:
        return None
    for allowed in _ALLOWED:
        if header.strip().lower() == allowed:
            return allowed
    raise InvalidRequest(f"X-Warmgate-Prefer must be one of {', '.join(_ALLOWED)}, got '{cut(header)}'")


def _wait_s(header: str | None) -> float | None:
    """Return the preference `wait`; others are ignored, as RFC 7240 §2 asks, and of several the first counts."""
    for part in (header or "").split(","):
        name, _, said = part.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            if not _SECONDS.fullmatch(said := said.strip().strip('"')):
                raise InvalidRequest(f"Prefer: wait must be a whole number of seconds, got '{cut(said)}'")
            return float(said)
    return None
