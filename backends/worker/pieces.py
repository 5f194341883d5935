"""Turns generated tokens into pieces of text that may be shown. Knows stop strings, and nothing of how tokens come."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from backends.contract import BadJob


class Pieces:
    """The text of one sequence as it grows. It never shows half a character, nor what may yet become a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], before: Sequence[int] = ()) -> None:
        """`before` are the tokens that the text continues. Raises BadJob for an empty stop string."""
        if "" in stop:
            raise BadJob("a stop string is empty", "stop")
        self._tokenizer = tokenizer
        self._stream = DecodeStream(ids=list(before), skip_special_tokens=True)
        self._stop = stop
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """Take the next token and return what may be shown now; `stopped` says that a stop string was completed."""
        self._held += self._stream.step(self._tokenizer, token) or ""
        if not self._stop:
            return self.rest()
        found = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = self._held[: min(found)]
            return self.rest()
        shown = len(self._held) - max(overlap(self._held, stop) for stop in self._stop)
        piece, self._held = self._held[:shown], self._held[shown:]
        return piece

    def rest(self) -> str:
        """Return what was held back, once nothing can follow it; an unfinished character is dropped."""
        piece, self._held = self._held, ""
        return piece


def overlap(text: str, stop: str) -> int:
    """Return how many of the last characters of `text` are a beginning of `stop` (all of `stop` excluded)."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
