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
        self.decoded = 0
        """Characters that the tokens so far stand for; the first `shown` of them may be shown."""
        self.shown = 0
        self.stopped: str | None = None
        """The stop string that was completed."""

    def add(self, token: int) -> str:
        """Take the next token and return what may be shown now; `stopped` names a stop string that was completed."""
        new = self._stream.step(self._tokenizer, token) or ""
        self.decoded += len(new)
        self._held += new
        if not self._stop:
            return self.rest()
        found = [(place, stop) for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if found:
            place, self.stopped = min(found)
            self._held = self._held[:place]
            return self.rest()
        return self._show(len(self._held) - max(overlap(self._held, stop) for stop in self._stop))

    def rest(self) -> str:
        """Return what was held back, once nothing can follow it; an unfinished character is dropped."""
        return self._show(len(self._held))

    def _show(self, count: int) -> str:
        piece, self._held = self._held[:count], self._held[count:]
        self.shown += count
        return piece


def overlap(text: str, stop: str) -> int:
    """Return how many of the last characters of `text` are a beginning of `stop` (all of `stop` excluded)."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
