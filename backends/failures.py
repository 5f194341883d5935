"""How often in a row a pool's replicas failed, when the next start may be tried, and whether to wait for it. Pure."""

from backends.contract import StartFailed
from backends.snapshot import backoff_s

# A job waits for a second start after one that failed, but not for a third.
HOPELESS_FAILURES = 2

LEAST_RETRY_S = 0.1


class Failures:
    """The failures of one model's replicas since the last that was well.

    `last` is for the operator. Clients read its first line alone where the replica had served: what a server printed
    may quote the requests of others.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self.count = 0
        self.retry_at = 0.0
        self.last = self._told = ""
        self.made_room = False
        """Whether others were sent away since a start ran out of memory; that is done once in a row of failures."""

    def note(self, reason: str, now: float, *, first: bool, served: bool) -> None:
        """Count one; it is the `first` of a new row where the replica had long been well."""
        self.count = 1 if first else self.count + 1
        self.made_room = self.made_room and self.count > 1
        self.last = reason
        self._told = reason.partition("\n")[0] if served else reason
        self.retry_at = now + backoff_s(self._model, self.count)

    def hopeless(self, now: float, deadline: float | None, start_s: float) -> StartFailed | None:
        """Return the error for a job that would wait in vain where nothing is up: the next start is too far away."""
        if self.count == 0 or now >= self.retry_at:
            return None
        in_time = deadline is None or self.retry_at + start_s <= deadline
        if in_time and self.count < HOPELESS_FAILURES:
            return None
        wait_s = max(LEAST_RETRY_S, self.retry_at - now)
        return StartFailed(f"{self._model} cannot start (next try in {wait_s:.1f} s): {self._told}", wait_s)

    def words(self) -> str:
        """Say what may be why nobody is served; empty where nothing failed."""
        return f"; the last start failed: {self._told}" if self.count else ""
