"""Notices that the other side of a connection has hung: it owes something and nothing at all comes from it.

Knows neither the connection nor what is owed. One timer while something is owed; none while all is quiet.
"""

import asyncio
from collections.abc import Callable

# Into so many parts silence is cut. Looks are counted rather than time, so that a gateway which was held up itself
# does not take its own silence for the other side's.
LOOKS = 5


class Pulse:
    """Asks for a sign of life where none came for a while, and gives the other side up `silence_s` after that.

    `ask` sends a question that is answered at once by whoever lives; `lost` is called once, with the reason in words.
    """

    def __init__(
        self, silence_s: float, *, owed: Callable[[], bool], ask: Callable[[], None], lost: Callable[[str], None]
    ) -> None:
        self._silence_s = silence_s
        self._owed = owed
        self._ask = ask
        self._lost = lost
        self._silent_looks = 0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Note that something more is owed from now on, and begin to look unless that is under way."""
        # What was heard before says nothing about now: unless more comes, the next look asks, even where whoever
        # waited has left by then.
        self._silent_looks = self._silent_looks or 1
        if self._timer is None:
            self._set_timer()

    def heard(self) -> None:
        """Note that something came; this is called for all that comes, and costs next to nothing."""
        self._silent_looks = 0

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._silent_looks == 0 and not self._owed():
            return
        if self._silent_looks > LOOKS:
            self._lost(f"it gave no sign of life for {self._silence_s:g} s")
            return
        if self._silent_looks == 1:
            self._ask()
        self._silent_looks += 1
        self._set_timer()

    def _set_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._silence_s / LOOKS, self._look)
