"""Counts what an answer costs while it comes. Knows no flight, no limits and no accounts."""

from backends.contract import Finish, Made, Usage
from gateway.analyze import tokens_made
from gateway.running import Item
from gateway.surfaces.wire import Outlet


class Spending:
    """The tokens of one answer: what its model tells, and until then the request's with a guess at each piece.

    So who leaves early has used what came. Where the model never tells, the client is told the guess, as it is when the
    answer is told again.
    """

    __slots__ = ("_read", "_told", "tokens")

    def __init__(self, read: int) -> None:
        self.tokens = self._read = read
        self._told = False

    def count(self, item: Item | Made) -> Usage | None:
        """Count an item; return what is to be told before it, where it is the end and nothing was told."""
        if type(item) is Usage:
            self.tokens, self._told = item.prompt_tokens + item.completion_tokens, True
        elif not self._told:
            self.tokens += tokens_made(item)
            if type(item) is Finish and self.tokens > self._read:
                self._told = True
                return Usage(self._read, self.tokens - self._read)
        return None

    def let_out(self, outlet: Outlet, item: Item) -> bool:
        """Count a piece of which the outlet takes the bytes, and tell whether it did."""
        if type(item) is not tuple or not outlet.write(item[0]):
            return False
        self.count(item)
        return True
