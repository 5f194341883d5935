"""Decides whether a dependency is worth asking. Pure but for its own state; knows nothing of what is asked."""

FAILURES_TO_OPEN = 4
_FIRST_REST_S = 1.0
_LONGEST_REST_S = 30.0
# One that holds this long after it closed has proved itself: the next rest is a short one again.
_PROVEN_S = 30.0


class Breaker:
    """Open after some failures in a row; then only a probe may pass, once a rest is over, and its success closes it.

    Each time that it opens again soon after, the rest is twice as long.
    """

    __slots__ = ("_closed_at", "_failures", "_rest_s", "closed", "openings", "probe_at")

    def __init__(self) -> None:
        self.closed = True
        """Whether to ask."""
        self.openings = 0
        self.probe_at = 0.0
        """From when on a probe may pass, while it is open."""
        self._failures = 0
        self._rest_s = 0.0
        self._closed_at = -_PROVEN_S

    def succeeded(self, now: float) -> None:
        """Note that an answer came."""
        self._failures = 0
        if not self.closed:
            self.closed = True
            self._closed_at = now

    def failed(self, now: float) -> None:
        """Note that no answer came, or not in time."""
        self._failures += 1
        if not self.closed:
            self._rest_s = min(2 * self._rest_s, _LONGEST_REST_S)
            self.probe_at = now + self._rest_s
        elif self._failures >= FAILURES_TO_OPEN:
            self._open(now)

    def _open(self, now: float) -> None:
        proven = now - self._closed_at >= _PROVEN_S
        self._rest_s = _FIRST_REST_S if proven else min(2 * self._rest_s, _LONGEST_REST_S)
        self.probe_at = now + self._rest_s
        self.closed = False
        self.openings += 1
