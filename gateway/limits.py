"""What each key may use: requests and tokens a minute, and requests at a time. Knows no wire and no key itself."""

import time
from collections.abc import Callable, Mapping

from gateway.request import Caller

_NO_HEADERS: Mapping[str, str] = {}


class Permit:
    """Leave for one request; `headers` tell the client what is left. Settle it exactly once, however it ends."""

    headers: Mapping[str, str] = _NO_HEADERS

    def settle(self, tokens: int) -> None:
        """Take the tokens that were really used instead of those that were estimated, and end the request."""


_FREE = Permit()


class Limiter:
    """Keeps account of the callers by their scope."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock

    def admit(self, caller: Caller, tokens: int) -> Permit:
        """Let a request of about so many tokens begin. Raises `RateLimited`."""
        del caller, tokens
        return _FREE
